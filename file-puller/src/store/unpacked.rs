//! Files that have arrived before it is known where in a release they go: those of an archive, a pack or an image's layers.
//!
//! Each is hashed while it is written, and has a number until the release is put together. Then it is moved to where it
//! belongs, and hard-linked where it belongs in several places, so that links within a source cost no space.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use sha2::{Digest as _, Sha256};

use super::create::{DIRECTORY, create_file, make_directory};
use super::directory::remove;
use super::private::{Private, UNPACKED};
use super::staging::Staging;
use super::volume::{Context as _, Volume, VolumeError};
use crate::content::{Digest, FileMode, ReleasePath};
use crate::crash_point::crash_point;

/// Files that are kept open until they are synced: as many as are synced one by one (see `fsync`).
const KEPT_OPEN: usize = 64;
/// Files to a directory. ext4 looks through a block of names for each that is made or moved, and short names are many to a block.
const SHARE: usize = 64;

/// The files that have arrived so far.
#[derive(Debug)]
pub(crate) struct Unpacked {
    volume: Arc<Volume>,
    private: Arc<Private>,
    directory: OwnedFd,
    files: Vec<UnpackedFile>,
    created: usize,
}

/// Stands for one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileNumber(usize);

#[derive(Debug)]
struct UnpackedFile {
    name: usize,
    digest: Digest,
    open: Option<File>,
}

/// Where a file belongs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement<'p> {
    pub(crate) number: FileNumber,
    pub(crate) mode: FileMode,
    pub(crate) path: &'p ReleasePath,
}

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct UnpackedWriter {
    name: usize,
    /// Of the directory, for messages.
    path: PathBuf,
    file: File,
    hasher: Sha256,
    size: u64,
}

impl Unpacked {
    /// Makes an empty directory for what arrives.
    pub(crate) fn begin(volume: Arc<Volume>) -> Result<Self, VolumeError> {
        let private = volume.private()?;
        let making = || format!("make {}/{UNPACKED}", private.path().display());
        match remove(private.directory(), UNPACKED) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context(making),
            _ => {}
        }
        make_directory(private.directory(), UNPACKED, volume.directory_mode()).context(making)?;
        crash_point();
        let directory =
            rustix::fs::openat(private.directory(), UNPACKED, DIRECTORY, Mode::empty()).context(making)?;
        Ok(Self { volume, private, directory, files: Vec::new(), created: 0 })
    }

    /// The volume that they are on.
    pub(crate) fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// Begins a file.
    pub(crate) fn create(&mut self) -> Result<UnpackedWriter, VolumeError> {
        let name = self.created;
        self.created += 1;
        if name.is_multiple_of(SHARE) {
            make_directory(&self.directory, &(name / SHARE).to_string(), self.volume.directory_mode())
                .context(|| self.naming("make the directory of", name))?;
        }
        let file = create_file(&self.directory, &place(name)).context(|| self.naming("make", name))?;
        crash_point();
        let path = self.private.path().join(UNPACKED);
        Ok(UnpackedWriter { name, path, file: file.into(), hasher: Sha256::new(), size: 0 })
    }

    /// Keeps a file that has been written.
    pub(crate) fn keep(&mut self, writer: UnpackedWriter) -> FileNumber {
        let UnpackedWriter { name, file, hasher, .. } = writer;
        let open = (self.files.len() < KEPT_OPEN).then_some(file);
        self.files.push(UnpackedFile { name, digest: Digest::of(hasher), open });
        FileNumber(self.files.len() - 1)
    }

    /// A file for bytes that are no content, to write and to read.
    pub(crate) fn scratch(&self, name: &str) -> Result<File, VolumeError> {
        let new = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name, new, Mode::from_raw_mode(0o600));
        Ok(file.context(|| self.naming_scratch("make", name))?.into())
    }

    pub(crate) fn digest(&self, file: FileNumber) -> Digest {
        self.files[file.0].digest
    }

    /// Opens a file to read what was written.
    pub(crate) fn open(&self, file: FileNumber) -> Result<File, VolumeError> {
        let name = self.files[file.0].name;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, place(name), flags, Mode::empty());
        Ok(file.context(|| self.naming("open", name))?.into())
    }

    /// Gives files their places in the release. A file that has several is hard-linked.
    pub(crate) fn place(
        &mut self,
        staging: &Staging,
        mut placements: Vec<Placement<'_>>,
    ) -> Result<(), VolumeError> {
        placements.sort_unstable_by_key(|placement| (placement.number, placement.mode));
        let mut before: Option<Placement<'_>> = None;
        for placement in placements {
            let Placement { number, mode, path } = placement;
            match before.filter(|before| before.number == number) {
                Some(before) if before.mode == mode => {
                    staging.link_within(before.path, path, (self.files[number.0].digest, mode))?;
                }
                // A mode belongs to the inode, so the same content as a program and as a plain file is two files.
                Some(before) => {
                    let UnpackedFile { name, .. } = self.files[number.0];
                    let mut writer = self.create()?;
                    let copied = staging.open_file(before.path).and_then(|mut from| {
                        std::io::copy(&mut from, &mut writer.file).context(|| self.naming("copy", name))
                    });
                    copied?;
                    self.set_mode(writer.name, mode)?;
                    let (name, file) = (place(writer.name), Some(writer.file));
                    staging.adopt(self.directory.as_fd(), &name, path, file)?;
                }
                None => {
                    let UnpackedFile { name, .. } = self.files[number.0];
                    let open = self.files[number.0].open.take();
                    self.set_mode(name, mode)?;
                    staging.adopt(self.directory.as_fd(), &place(name), path, open)?;
                }
            }
            before = Some(placement);
        }
        Ok(())
    }

    fn set_mode(&self, name: usize, mode: FileMode) -> Result<(), VolumeError> {
        let bits = Mode::from_raw_mode(mode.bits());
        let set = rustix::fs::chmodat(&self.directory, place(name), bits, AtFlags::empty());
        set.context(|| self.naming("set the mode of", name))
    }

    fn naming_scratch(&self, verb: &str, name: &str) -> String {
        format!("{verb} {}/{UNPACKED}/{name}", self.private.path().display())
    }

    fn naming(&self, verb: &str, name: usize) -> String {
        format!("{verb} {}/{UNPACKED}/{}", self.private.path().display(), place(name))
    }
}

/// Where a file is in the directory.
fn place(name: usize) -> String {
    format!("{}/{}", name / SHARE, name % SHARE)
}

impl UnpackedWriter {
    /// Adds bytes, and hashes them.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), VolumeError> {
        self.hasher.update(bytes);
        let written = self.file.write_all(bytes);
        written.context(|| format!("write {}/{}", self.path.display(), place(self.name)))?;
        self.size += bytes.len() as u64;
        crash_point();
        Ok(())
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}
