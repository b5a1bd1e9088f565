//! An archive as a source: a tar, compressed or not, unpacked into staging while it arrives.
//!
//! SECURITY: whoever writes the archive writes our disk, so it is read as a list of plain files and nothing else. Links,
//! devices, FIFOs and sparse files refuse the whole release, and so do paths that break a rule, a file that is listed
//! twice, and an archive that unpacks to more than it may. Nothing is taken over from its owners, times or special bits.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use lifecycle::units;
use tar::{Archive, EntryType};

use super::decompress::inflate;
use crate::content::path::Conflict;
use crate::content::{FileMode, Limits, Manifest, ManifestFile, ReleasePath};
use crate::source::{Compression, SourceError};
use crate::store::{Incoming, Volume, VolumeError};

/// How an archive becomes a release.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Archives")]
pub(crate) struct Unpacking {
    /// Leading directories to take off each path: 1 for what git forges make of a repository
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) strip_components: usize,

    /// Largest archive as it comes over the wire
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = units::size)]
    pub(crate) max_archive_size: u64,

    /// Most bytes that one byte of an archive may unpack to, beyond the first 16 MiB
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_expansion: u64,
}

const BLOCK: u64 = 512;
/// What a long name or other extension of one entry may take; the format itself knows no limit, and readers keep it in memory.
const LARGEST_EXTENSION: u64 = 256 * 1024;
/// Below this an archive may expand as it likes: a small one may well be nothing but zeros.
const HARMLESS: u64 = 16 * 1024 * 1024;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// It breaks a rule, or is not an archive at all.
    #[error("archive refused: {0}")]
    Refused(String),
    /// It did not arrive.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The volume refused.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

/// What is known of the stream while it is read.
#[derive(Debug, Default)]
struct Meter {
    packed: Cell<u64>,
    unpacked: Cell<u64>,
    /// Bytes between one entry's content and the next.
    between: Cell<u64>,
}

/// Counts what comes out of the compression, and stops it where it is too much.
struct Metered<R> {
    input: R,
    meter: Rc<Meter>,
    ratio: u64,
    most: u64,
}

/// Counts what goes into it.
struct Counted<R> {
    input: R,
    meter: Rc<Meter>,
}

/// Unpacks an archive into the volume's private directory.
pub(crate) fn unpack(
    volume: Arc<Volume>,
    input: impl Read + 'static,
    compression: Compression,
    limits: &Limits,
    unpacking: &Unpacking,
) -> Result<(Incoming, Manifest), ArchiveError> {
    let incoming = Incoming::begin(volume)?;
    let meter = Rc::new(Meter::default());
    let packed = Counted { input, meter: Rc::clone(&meter) };
    let tar = inflate(packed, compression).map_err(|error| refused(&error))?;
    // Headers and padding come on top of the content: at most as much again for many small files.
    let most = limits.size.saturating_mul(2).saturating_add(HARMLESS);
    let unpacked = Metered { input: tar, meter: Rc::clone(&meter), ratio: unpacking.max_expansion, most };
    let mut archive = Archive::new(unpacked);
    let mut files = Files::default();
    let mut end = 0;
    for entry in archive.entries().map_err(|error| refused(&error))? {
        let mut entry = entry.map_err(|error| refused(&error))?;
        end = entry.raw_file_position() + entry.size().next_multiple_of(BLOCK);
        if let Some(path) = files.admit(&entry, limits, unpacking.strip_components)? {
            for directory in path.ancestors() {
                if files.directories.insert(directory.into()) {
                    incoming.make_directory(directory)?;
                }
            }
            let mode = mode_of(&entry)?;
            let mut draft = incoming.create_file(&path)?;
            let mut buffer = vec![0; 64 * 1024];
            loop {
                // Between this entry and the next begins where this one ends.
                meter.between.set(0);
                let read = entry.read(&mut buffer).map_err(|error| refused(&error))?;
                if read == 0 {
                    break;
                }
                draft.append(&[Bytes::copy_from_slice(&buffer[..read])])?;
            }
            let (size, digest) = draft.finish(mode)?;
            if size != entry.size() {
                return Err(ArchiveError::Refused(format!("it ends within {path}")));
            }
            files.listed.push(ManifestFile { path, size, digest, mode, url: None });
        }
        meter.between.set(0);
    }
    check_end(archive.into_inner(), &meter, end)?;
    if files.listed.is_empty() {
        return Err(ArchiveError::Refused(
            "it holds no file, and an empty release is never published".to_owned(),
        ));
    }
    Ok((incoming, Manifest { created: SystemTime::now(), files: files.listed }))
}

/// What was unpacked so far.
#[derive(Default)]
struct Files {
    listed: Vec<ManifestFile>,
    seen: HashSet<ReleasePath>,
    directories: HashSet<Box<str>>,
    total: u64,
}

impl Files {
    /// Whether an entry is a file of the release, and under which path.
    fn admit<R: Read>(
        &mut self,
        entry: &tar::Entry<'_, R>,
        limits: &Limits,
        strip: usize,
    ) -> Result<Option<ReleasePath>, ArchiveError> {
        let name = entry.path_bytes();
        let shown = String::from_utf8_lossy(&name);
        let refuse = |why: String| Err(ArchiveError::Refused(format!("{shown:?} {why}")));
        let is_directory = match entry.header().entry_type() {
            EntryType::Regular => false,
            EntryType::Directory => true,
            // Remarks of the archive's maker, such as the commit that a git forge writes there.
            EntryType::XGlobalHeader => return Ok(None),
            EntryType::Symlink | EntryType::Link => {
                return refuse("is a link, and a release has none".to_owned());
            }
            EntryType::GNUSparse => return refuse("is a sparse file, and a release has none".to_owned()),
            other => {
                return refuse(format!(
                    "is neither a file nor a directory (type {:?})",
                    char::from(other.as_byte())
                ));
            }
        };
        let Ok(text) = std::str::from_utf8(&name) else { return refuse("is not UTF-8".to_owned()) };
        // `tar -C site .` writes `./index.html` and `./css/`.
        let text = text.strip_prefix("./").unwrap_or(text);
        let text = if is_directory { text.strip_suffix('/').unwrap_or(text) } else { text };
        if is_directory && matches!(text, "" | ".") {
            return Ok(None);
        }
        let path = match ReleasePath::parse(text) {
            Ok(path) => path,
            Err(error) => return refuse(format!("is refused as a path: {error}")),
        };
        if is_directory {
            // A directory comes with its files; one that is empty is no content.
            return Ok(None);
        }
        let Some(path) = path.without_first(strip) else { return Ok(None) };
        self.check_size(&path, entry.size(), limits)?;
        if self.directories.contains(path.as_str()) || path.ancestors().any(|one| self.seen_file(one)) {
            return refuse(Conflict::FileUnderFile.to_string());
        }
        if !self.seen.insert(path.clone()) {
            return refuse(Conflict::Duplicate.to_string());
        }
        Ok(Some(path))
    }

    fn seen_file(&self, path: &str) -> bool {
        ReleasePath::parse(path).is_ok_and(|path| self.seen.contains(&path))
    }

    fn check_size(&mut self, path: &ReleasePath, size: u64, limits: &Limits) -> Result<(), ArchiveError> {
        self.total = self.total.saturating_add(size);
        let refuse = |why: String| Err(ArchiveError::Refused(why));
        if self.listed.len() >= limits.files {
            return refuse(format!("it has more than --max-files {} files", limits.files));
        }
        if size > limits.file_size {
            return refuse(format!(
                "{path} has {size} bytes, more than --max-file-size {}",
                limits.file_size
            ));
        }
        if self.total > limits.size {
            return refuse(format!("its files have more than --max-size {} bytes together", limits.size));
        }
        Ok(())
    }
}

/// As Git keeps it: see `scan`, which does the same, so that a directory and an archive of it are the same release.
fn mode_of<R: Read>(entry: &tar::Entry<'_, R>) -> Result<FileMode, ArchiveError> {
    let bits = entry.header().mode().map_err(|error| refused(&error))?;
    Ok(if bits & 0o100 == 0 { FileMode::PLAIN } else { FileMode::EXECUTABLE })
}

/// A tar ends with a block of zeros. One that only stops was cut off, and after the end nothing may follow but padding.
fn check_end(mut rest: impl Read, meter: &Meter, end: u64) -> Result<(), ArchiveError> {
    if meter.unpacked.get() < end + BLOCK {
        return Err(ArchiveError::Refused("it is cut off: its end marker is missing".to_owned()));
    }
    let mut buffer = vec![0; 64 * 1024];
    loop {
        meter.between.set(0);
        match rest.read(&mut buffer).map_err(|error| refused(&error))? {
            0 => return Ok(()),
            read if buffer[..read].iter().all(|byte| *byte == 0) => {}
            _ => return Err(ArchiveError::Refused("there is something after its end".to_owned())),
        }
    }
}

fn refused(error: &io::Error) -> ArchiveError {
    ArchiveError::Refused(error.to_string())
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.meter.packed.set(self.meter.packed.get() + read as u64);
        Ok(read)
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        let meter = &self.meter;
        let unpacked = meter.unpacked.get() + read as u64;
        meter.unpacked.set(unpacked);
        meter.between.set(meter.between.get() + read as u64);
        if unpacked > HARMLESS && unpacked / self.ratio > meter.packed.get() {
            return Err(io::Error::other(format!(
                "it expands more than --max-expansion {} times",
                self.ratio
            )));
        }
        if unpacked > self.most {
            return Err(io::Error::other("it unpacks to much more than --max-size"));
        }
        if meter.between.get() > LARGEST_EXTENSION {
            return Err(io::Error::other("an entry's name or extension is larger than any path"));
        }
        Ok(read)
    }
}
