//! A tar, compressed or not, unpacked while it arrives: an archive as a source, or one layer of an image.
//!
//! SECURITY: another party's archive writes our disk, so it is read as a list of files, links and directories and nothing
//! else. Devices, FIFOs and sparse files refuse the whole release, and so do paths that break a rule, a file that is listed
//! twice, and an archive that unpacks to more than it may. Nothing is taken over from its owners, times or special bits.
//!
//! A release never has other bytes than GNU tar extracts from the same archive: where readers of the format disagree (extended
//! headers that repeat, contradict or reach beyond an entry, types that not all know), the archive is refused. `tests/tar/run.sh` compares the two.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::Arc;

use lifecycle::escape::escaped;
use lifecycle::units;
use tar::{Archive, Entry, EntryType, PaxExtensions};

use super::contents::{Arrived, Contents};
use super::decompress::inflate;
use crate::content::{
    FileMode, Limits, Listing, ListingError, Manifest, NamesBudget, ReleasePath, Selection,
};
use crate::source::{Compression, SourceError};
use crate::store::{Unpacked, Volume, VolumeError};

/// How an archive becomes a release.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Archives, git and OCI")]
pub(crate) struct Unpacking {
    /// Largest archive, pack or image as it comes over the wire
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = units::size)]
    pub(crate) max_archive_size: u64,

    /// Most bytes that one byte of an archive or a pack may unpack to, beyond the first 16 MiB. The published files that a pack's
    /// deltas build on count as bytes of the pack
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_expansion: u64,
}

/// What content that arrives in one piece is held to.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) selection: Selection,
    pub(crate) limits: Limits,
    pub(crate) unpacking: Unpacking,
}

impl Rules {
    /// What may come out of the compression. Headers and padding of an archive come on top of the content, or trees of a
    /// repository: at most as much again for many small files.
    pub(crate) fn expansion(&self) -> Expansion {
        let most = self.limits.size.saturating_mul(2).saturating_add(HARMLESS);
        Expansion { most, ratio: self.unpacking.max_expansion }
    }
}

/// What compressed content may unpack to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expansion {
    most: u64,
    ratio: u64,
}

impl Expansion {
    /// Refuses more than a release of any kind can need.
    pub(crate) fn check_total(self, unpacked: u64) -> Result<(), &'static str> {
        if unpacked > self.most { Err("it unpacks to much more than --max-size") } else { Ok(()) }
    }

    /// Refuses what was packed too well to be content.
    pub(crate) fn check_ratio(self, unpacked: u64, packed: u64) -> Result<(), String> {
        if unpacked > HARMLESS && unpacked / self.ratio > packed {
            return Err(format!("it expands more than --max-expansion {} times", self.ratio));
        }
        Ok(())
    }
}

/// What a long name or other extension of one entry may take; the format itself knows no limit, and readers keep it in memory.
const LARGEST_EXTENSION: u64 = 256 * 1024;
/// Below this an archive may expand as it likes: a small one may well be nothing but zeros.
const HARMLESS: u64 = 16 * 1024 * 1024;
/// How the names of an image's layer begin that take away what the layers below have (image specification, "Whiteouts").
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// It breaks a rule, or is not an archive at all.
    #[error("archive refused: {}", escaped(.0))]
    Refused(String),
    /// It did not arrive.
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

/// The stream is not what it should be, or expands too much. A connection that breaks only ends it, and is reported by itself.
impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<ListingError> for ArchiveError {
    fn from(error: ListingError) -> Self {
        Self::Refused(error.to_string())
    }
}

/// Unpacks an archive into the volume's private directory.
pub(crate) fn unpack(
    volume: Arc<Volume>,
    input: impl Read + 'static,
    compression: Compression,
    rules: Arc<Rules>,
) -> Result<(Contents, Manifest), ArchiveError> {
    let mut tars = Tars::begin(volume, rules, Whiteouts::AreFiles)?;
    tars.add(input, compression)?;
    tars.finish("it holds no file")
}

/// What is known of the stream while it is read.
#[derive(Debug, Default)]
struct Meter {
    packed: Cell<u64>,
    unpacked: Cell<u64>,
    /// Where the content of the entry that is being read ends, whether it is unpacked or skipped.
    content_end: Cell<u64>,
    /// Whether there is nothing more to read.
    at_end: Cell<bool>,
}

/// Counts what comes out of the compression, and stops it where it is too much.
struct Metered<R> {
    input: R,
    meter: Rc<Meter>,
    limits: Expansion,
}

/// Counts what goes into it.
struct Counted<R> {
    input: R,
    meter: Rc<Meter>,
}

/// What names that begin with `.wh.` are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whiteouts {
    AreFiles,
    TakeAway,
}

/// Content that arrives as tars, within limits that hold for all of them together: an archive, or an image's layers, lowest first.
pub(crate) struct Tars {
    rules: Arc<Rules>,
    whiteouts: Whiteouts,
    unpacked: Unpacked,
    /// What the tars so far have. Where there are whiteouts, that is by its path in the image: a selection may leave out what takes
    /// away, and what is taken away has to be known by the same name.
    listing: Listing<Arrived>,
    /// Bytes of all files so far, also of those that a later layer takes away.
    total: u64,
    /// What their names take in memory.
    names: NamesBudget,
}

/// What an entry is, and under which path of the release it belongs.
enum Item {
    File,
    Symlink,
    HardLink,
}

impl Tars {
    pub(crate) fn begin(
        volume: Arc<Volume>,
        rules: Arc<Rules>,
        whiteouts: Whiteouts,
    ) -> Result<Self, VolumeError> {
        let (listing, names) = (Listing::default(), NamesBudget::of_container(0));
        Ok(Self { rules, whiteouts, unpacked: Unpacked::begin(volume)?, listing, total: 0, names })
    }

    /// Unpacks a tar, and puts what it has over what those before it have.
    pub(crate) fn add(
        &mut self,
        input: impl Read + 'static,
        compression: Compression,
    ) -> Result<(), ArchiveError> {
        let layer = self.read(input, compression)?;
        if self.listing.is_empty() {
            self.listing = layer;
            return Ok(());
        }
        let overlaid = self.listing.overlay(layer);
        overlaid
            .map_err(|(path, conflict)| ArchiveError::Refused(format!("{path} {conflict} of a lower layer")))
    }

    /// The release that the tars are together. `empty` says of them that they have no file.
    pub(crate) fn finish(self, empty: &str) -> Result<(Contents, Manifest), ArchiveError> {
        if self.listing.is_empty() {
            return Err(ArchiveError::Refused(format!("{empty}, and an empty release is never published")));
        }
        let listing = match self.whiteouts {
            Whiteouts::AreFiles => self.listing,
            Whiteouts::TakeAway => {
                self.listing.selected(&self.rules.selection).map_err(ArchiveError::Refused)?
            }
        };
        Ok(Contents::new(self.unpacked, listing, &self.rules.limits, self.names)?)
    }

    /// Reads a tar to its end.
    fn read(
        &mut self,
        input: impl Read + 'static,
        compression: Compression,
    ) -> Result<Listing<Arrived>, ArchiveError> {
        let meter = Rc::new(Meter::default());
        let packed = Counted { input, meter: Rc::clone(&meter) };
        let tar = inflate(packed, compression);
        let limits = self.rules.expansion();
        let mut archive = Archive::new(Metered { input: tar, meter: Rc::clone(&meter), limits });
        let mut layer = Listing::default();
        let mut buffer = vec![0; 64 * 1024];
        for entry in archive.entries()? {
            let mut entry = entry?;
            meter.content_end.set(entry.raw_file_position().saturating_add(stored_size(&entry)?));
            self.entry(&mut entry, &mut layer, &mut buffer)?;
        }
        check_end(archive.into_inner(), &meter)?;
        Ok(layer)
    }

    fn entry<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        layer: &mut Listing<Arrived>,
        buffer: &mut [u8],
    ) -> Result<(), ArchiveError> {
        if entry.header().entry_type() == EntryType::XGlobalHeader {
            return check_global(entry);
        }
        let name = entry.path_bytes().into_owned();
        let shown = || format!("{:?}", String::from_utf8_lossy(&name));
        let refuse = |why: String| Err(ArchiveError::Refused(format!("{} {why}", shown())));
        // SECURITY: also of what is left out: what one reader skips as its content, another reads as entries.
        if let Err(why) = check_extent(entry, &name) {
            return refuse(why);
        }
        let kind = entry.header().entry_type();
        let (source, is_directory) = (normalized(&name), is_directory(kind, &name));
        if self.whiteouts == Whiteouts::TakeAway && !is_directory && self.take_away(source) {
            return Ok(());
        }
        let Some(listed) = self.listed_as(source) else { return Ok(()) };
        let item = match kind {
            _ if is_directory => None,
            EntryType::Regular | EntryType::Continuous => Some(Item::File),
            EntryType::Symlink => Some(Item::Symlink),
            EntryType::Link => Some(Item::HardLink),
            EntryType::GNUSparse => return refuse("is a sparse file, and a release has none".to_owned()),
            other => {
                let kind = char::from(other.as_byte());
                return refuse(format!("is neither a file nor a directory (type {kind:?})"));
            }
        };
        let Ok(text) = std::str::from_utf8(listed) else { return refuse("is not UTF-8".to_owned()) };
        if item.is_none() && matches!(text, "" | ".") {
            return Ok(());
        }
        let path = match ReleasePath::parse(text) {
            Ok(path) => path,
            Err(error) => return refuse(format!("is refused as a path: {error}")),
        };
        let Some(item) = item else {
            // A directory comes with its files; one that is empty is no content, and replaces what lower layers have there.
            if let Err(conflict) = layer.check_directory(&path) {
                return refuse(conflict.to_string());
            }
            self.listing.make_directory(&path);
            return Ok(());
        };
        self.rules.limits.check_one_more(layer.len()).map_err(ArchiveError::Refused)?;
        self.names.add(&path).map_err(ArchiveError::Refused)?;
        let added = match item {
            Item::File => {
                self.check_size(&path, entry.size())?;
                if let Err(conflict) = layer.check(&path) {
                    return refuse(conflict.to_string());
                }
                let file = self.file(entry, &path, buffer)?;
                layer.add_file(path, file)
            }
            Item::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                let Ok(target) = std::str::from_utf8(&target) else {
                    return refuse("links to a name that is not UTF-8".to_owned());
                };
                layer.add_link(path, target)
            }
            Item::HardLink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                let text = String::from_utf8_lossy(&target);
                let Some(of) = self.listed_as(normalized(&target)) else {
                    return refuse(format!(
                        "is a hard link to {text:?}, which is left out together with the content of both; leave out both names, or neither"
                    ));
                };
                let of = std::str::from_utf8(of).ok().and_then(|of| ReleasePath::parse(of).ok());
                match of.map(|of| layer.add_copy(path, &of, &self.listing)) {
                    Some(Ok(true)) => Ok(()),
                    Some(Err(conflict)) => Err(conflict),
                    Some(Ok(false)) | None => {
                        return refuse(format!(
                            "is a hard link to {text:?}, and no file before it has that name"
                        ));
                    }
                }
            }
        };
        added.or_else(|conflict| refuse(conflict.to_string()))
    }

    /// Under which path something is listed, or `None` where it is left out.
    fn listed_as<'n>(&self, source: &'n [u8]) -> Option<&'n [u8]> {
        let selected = self.rules.selection.select(source)?;
        Some(match self.whiteouts {
            Whiteouts::AreFiles => selected,
            Whiteouts::TakeAway => source,
        })
    }

    /// Takes away from the layers below what a whiteout names, or what an entry that is left out replaces. Returns whether the path is a
    /// whiteout's. The layer's own entries are not listed yet, so it does not matter where in the layer a whiteout stands.
    fn take_away(&mut self, source: &[u8]) -> bool {
        let path = std::str::from_utf8(source).ok().and_then(|text| ReleasePath::parse(text).ok());
        // Under another path nothing is listed.
        let Some(path) = path else { return false };
        let whiteout = whiteout(&path);
        if let Some(gone) = &whiteout {
            self.listing.remove(gone);
        } else if self.listed_as(source).is_none() {
            self.listing.remove(path.as_str());
        }
        whiteout.is_some()
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        path: &ReleasePath,
        buffer: &mut [u8],
    ) -> Result<Arrived, ArchiveError> {
        // As Git keeps it: see `manifest_cmd`, which does the same, so that a directory and an archive of it are one release.
        let bits = entry.header().mode()?;
        let mode = if bits & 0o100 == 0 { FileMode::PLAIN } else { FileMode::EXECUTABLE };
        let mut writer = self.unpacked.create_for_later(entry.size())?;
        loop {
            match entry.read(buffer)? {
                0 => break,
                read => writer.write(&buffer[..read])?,
            }
        }
        if writer.size() != entry.size() {
            return Err(ArchiveError::Refused(format!("it ends within {path}")));
        }
        let (size, number) = (writer.size(), self.unpacked.keep(writer)?);
        Ok(Arrived { size, digest: self.unpacked.digest(number), mode, file: Some(number) })
    }

    fn check_size(&mut self, path: &ReleasePath, size: u64) -> Result<(), ArchiveError> {
        self.total = self.total.saturating_add(size);
        self.rules.limits.check_size(path, size).map_err(ArchiveError::Refused)?;
        let limit = self.rules.limits.size;
        if self.total > limit {
            let why = format!("its files have more than --max-size {limit} bytes together");
            return Err(ArchiveError::Refused(why));
        }
        Ok(())
    }
}

/// A name without what says nothing: `tar -C site .` writes `./index.html` and `./css/`.
fn normalized(name: &[u8]) -> &[u8] {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    name.strip_suffix(b"/").unwrap_or(name)
}

/// What a whiteout with this path takes away: a file, or a directory with everything in it. `None` where the path is no whiteout's.
fn whiteout(path: &ReleasePath) -> Option<String> {
    let (directory, name) = path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()));
    let gone = name.strip_prefix(WHITEOUT)?;
    // The directory itself is its own layer's, whatever has its name below.
    if name == OPAQUE {
        return Some(directory.to_owned());
    }
    // The notes that AUFS left to itself (`.wh..wh.plnk`) name what no layer has.
    let slash = if directory.is_empty() { "" } else { "/" };
    Some(format!("{directory}{slash}{gone}"))
}

/// Whether GNU tar reads an entry as a directory: a name that ends with a slash is one, also of a file.
fn is_directory(kind: EntryType, name: &[u8]) -> bool {
    let is_file = matches!(kind, EntryType::Regular | EntryType::Continuous);
    kind == EntryType::Directory || is_file && name.ends_with(b"/")
}

/// How many bytes of the archive an entry's content takes. Those of a sparse file's holes are not there.
fn stored_size<R: Read>(entry: &Entry<'_, R>) -> io::Result<u64> {
    match entry.header().entry_type() {
        // SECURITY: an extended header may contradict the header, and what would come of too large a size is memory.
        EntryType::GNUSparse => Ok(entry.header().entry_size()?.min(entry.size())),
        _ => Ok(entry.size()),
    }
}

/// Refuses an entry of which readers would not agree where it ends, and with it where the next one begins.
fn check_extent<R: Read>(entry: &mut Entry<'_, R>, name: &[u8]) -> Result<(), String> {
    use EntryType::{
        Block, Char, Continuous, Directory, Fifo, GNULongLink, GNULongName, GNUSparse, Link, Regular,
        Symlink, XHeader,
    };
    let kind = entry.header().entry_type();
    match kind {
        Regular | Continuous | Directory | Link | Symlink | Char | Block | Fifo | GNUSparse => {}
        // Some readers know these in every format, and others only in those that were made for them.
        XHeader | GNULongName | GNULongLink => {
            return Err("is an extended header, and its format has none".to_owned());
        }
        // Some readers extract any other type as a file, and others read there what to make of the next entry: GNU tar takes
        // the next one's name from Solaris's extended header (X).
        other => {
            let kind = char::from(other.as_byte());
            return Err(format!("is of the type {kind:?}, which not every reader knows"));
        }
    }
    check_extensions(entry)?;
    let is_link = matches!(kind, Symlink | Link);
    let is_device = matches!(kind, Char | Block | Fifo);
    // GNU tar looks for the next entry right behind these, whatever their size.
    if entry.size() != 0 && (is_directory(kind, name) || is_link || is_device) {
        return Err("has content, and is not a file".to_owned());
    }
    Ok(())
}

/// Refuses an entry whose extended header readers would understand differently.
fn check_extensions<R: Read>(entry: &mut Entry<'_, R>) -> Result<(), String> {
    let (size, path) = (entry.size(), entry.path_bytes().into_owned());
    let link = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
    let Some(extensions) = entry.pax_extensions().map_err(|error| error.to_string())? else { return Ok(()) };
    // What each of these says has to be what was read of it.
    let read = [(&b"path"[..], path), (b"linkpath", link), (b"size", size.to_string().into_bytes())];
    let mut seen = [false; 3];
    for extension in extensions {
        let extension = extension.map_err(|_| "has a malformed extended header".to_owned())?;
        let key = extension.key_bytes();
        if is_sparse(key) {
            let why = "is a sparse file, and not every reader finds the end of one; make the archive without --sparse";
            return Err(why.to_owned());
        }
        if let Some(at) = read.iter().position(|(name, _)| *name == key)
            && (std::mem::replace(&mut seen[at], true) || extension.value_bytes() != read[at].1)
        {
            let key = String::from_utf8_lossy(key);
            return Err(format!("has an extended header that contradicts itself about its {key}"));
        }
    }
    Ok(())
}

/// Whether an extension says that the bytes in the archive are not those of the file.
fn is_sparse(key: &[u8]) -> bool {
    key.starts_with(b"GNU.sparse.") || key == b"SCHILY.realsize"
}

/// A global header has remarks of the archive's maker, such as the commit that a git forge writes there. What it says about
/// names and sizes would hold for every entry behind it, and not every reader knows that.
fn check_global<R: Read>(entry: &mut Entry<'_, R>) -> Result<(), ArchiveError> {
    let refuse = |why: &str| Err(ArchiveError::Refused(format!("its global extended header {why}")));
    if entry.size() > LARGEST_EXTENSION {
        return refuse("is larger than any remark");
    }
    let mut content = Vec::new();
    entry.read_to_end(&mut content)?;
    for extension in PaxExtensions::new(&content) {
        let Ok(extension) = extension else { return refuse("is malformed") };
        let key = extension.key_bytes();
        if is_sparse(key) || matches!(key, b"path" | b"linkpath" | b"size") {
            let key = escaped(&String::from_utf8_lossy(key)).to_string();
            return refuse(&format!("sets {key} for all files"));
        }
    }
    // Its content has been read, so what is left is an extended header before it, which describes the entry behind it.
    let has_own_name = entry.path_bytes() != entry.header().path_bytes();
    let before = entry.pax_extensions()?;
    if has_own_name || before.is_some_and(|mut extensions| extensions.next().is_some()) {
        return refuse("stands between an entry and the extended header of that");
    }
    Ok(())
}

/// A tar ends with a block of zeros. One that only stops was cut off, and after the end nothing may follow but padding.
fn check_end(mut rest: impl Read, meter: &Meter) -> Result<(), ArchiveError> {
    if meter.at_end.get() {
        return Err(ArchiveError::Refused("it is cut off: its end marker is missing".to_owned()));
    }
    // Padding may have any length.
    meter.content_end.set(u64::MAX);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match rest.read(&mut buffer)? {
            0 => return Ok(()),
            read if buffer[..read].iter().all(|byte| *byte == 0) => {}
            _ => return Err(ArchiveError::Refused("there is something after its end".to_owned())),
        }
    }
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
        meter.at_end.set(read == 0 && !buffer.is_empty());
        self.limits.check_ratio(unpacked, meter.packed.get()).map_err(io::Error::other)?;
        self.limits.check_total(unpacked).map_err(io::Error::other)?;
        if unpacked > meter.content_end.get().saturating_add(LARGEST_EXTENSION) {
            return Err(io::Error::other("an entry's name or extension is larger than any path"));
        }
        Ok(read)
    }
}
