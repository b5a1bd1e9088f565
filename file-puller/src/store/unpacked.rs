//! Files that have arrived before it is known where in a release they go: those of an archive, a pack or an image's layers.
//!
//! Each is hashed while it is written, and has a number until the release is put together. Then it is moved to where it
//! belongs, and hard-linked where it belongs in several places, so that links within a source cost no space.

use std::fs::File;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::fsync::{FEW, begin_flush};
use super::lanes::{Batch, Lanes};
use super::numbered::{Name, NumberedFiles};
use super::staging::Staging;
use super::volume::{Context as _, Volume, VolumeError};
use crate::content::{Digest, FileMode, ReleasePath};

/// Files that are kept open until they are synced: as many as are synced one by one (see `fsync`).
const KEPT_OPEN: usize = FEW;
/// The largest file that is gathered in memory, to be written by another thread.
const SMALL: u64 = 64 * 1024;

/// The files that have arrived so far.
#[derive(Debug)]
pub(crate) struct Unpacked {
    volume: Arc<Volume>,
    directory: Arc<NumberedFiles>,
    files: Vec<UnpackedFile>,
    /// The name of the next file that is written by this thread.
    next: Name,
    lanes: Lanes,
    /// Small files that were not given to a thread yet.
    batch: Batch,
}

/// Stands for one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileNumber(usize);

#[derive(Debug)]
struct UnpackedFile {
    name: Name,
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
    target: Target,
    hasher: Sha256,
    size: u64,
}

/// Where its bytes go.
#[derive(Debug)]
enum Target {
    File(Arc<NumberedFiles>, Name, File),
    Batch(Batch),
}

impl Unpacked {
    /// Makes an empty directory for what arrives.
    pub(crate) fn begin(volume: Arc<Volume>) -> Result<Self, VolumeError> {
        let directory = Arc::new(NumberedFiles::begin(&volume)?);
        let lanes = Lanes::new(Arc::clone(&directory));
        Ok(Self {
            volume,
            directory,
            files: Vec::new(),
            next: Name::first(0),
            lanes,
            batch: Batch::default(),
        })
    }

    /// The volume that they are on.
    pub(crate) fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// Begins a file, which can be opened as soon as it is kept.
    pub(crate) fn create(&mut self) -> Result<UnpackedWriter, VolumeError> {
        let name = self.next.take();
        let file = self.directory.create(name)?;
        let target = Target::File(Arc::clone(&self.directory), name, file);
        Ok(UnpackedWriter { target, hasher: Sha256::new(), size: 0 })
    }

    /// Begins a file of at most this size, which is not needed before it has a place in a release.
    pub(crate) fn create_for_later(&mut self, size: u64) -> Result<UnpackedWriter, VolumeError> {
        if size > SMALL || self.files.len() < KEPT_OPEN {
            return self.create();
        }
        let target = Target::Batch(std::mem::take(&mut self.batch));
        Ok(UnpackedWriter { target, hasher: Sha256::new(), size: 0 })
    }

    /// Keeps a file that has been written.
    pub(crate) fn keep(&mut self, writer: UnpackedWriter) -> Result<FileNumber, VolumeError> {
        let UnpackedWriter { target, hasher, .. } = writer;
        let (name, open) = match target {
            Target::File(_, name, file) => (name, (self.files.len() < KEPT_OPEN).then_some(file)),
            Target::Batch(mut batch) => {
                let name = self.lanes.name();
                batch.end(name);
                self.batch = if batch.is_full() { self.lanes.send(batch)? } else { batch };
                (name, None)
            }
        };
        self.files.push(UnpackedFile { name, digest: Digest::of(hasher), open });
        Ok(FileNumber(self.files.len() - 1))
    }

    /// A file for bytes that are no content, to write and to read.
    pub(crate) fn scratch(&self, name: &str) -> Result<File, VolumeError> {
        self.directory.scratch(name)
    }

    /// Removes such a file. It takes space until all handles on it are closed.
    pub(crate) fn remove_scratch(&self, name: &str) {
        self.directory.remove_scratch(name);
    }

    pub(crate) fn digest(&self, file: FileNumber) -> Digest {
        self.files[file.0].digest
    }

    /// Opens a file to read what was written.
    pub(crate) fn open(&self, file: FileNumber) -> Result<File, VolumeError> {
        self.directory.open(self.files[file.0].name)
    }

    /// Gives files their places in the release. A file that has several is hard-linked.
    pub(crate) fn place(
        &mut self,
        staging: &Staging,
        mut placements: Vec<Placement<'_>>,
    ) -> Result<(), VolumeError> {
        self.batch.write(&self.directory)?;
        self.lanes.finish()?;
        if placements.len() > FEW {
            begin_flush(self.volume.root());
        }
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
                    let name = self.next.take();
                    let mut copy = self.directory.create(name)?;
                    let mut from = staging.open_file(before.path)?;
                    std::io::copy(&mut from, &mut copy).context(|| self.directory.naming("write", name))?;
                    self.directory.set_mode(name, mode)?;
                    staging.adopt(self.directory.directory(), &name.path(), path, Some(copy))?;
                }
                None => {
                    let UnpackedFile { name, .. } = self.files[number.0];
                    let open = self.files[number.0].open.take();
                    self.directory.set_mode(name, mode)?;
                    staging.adopt(self.directory.directory(), &name.path(), path, open)?;
                }
            }
            before = Some(placement);
        }
        Ok(())
    }
}

impl UnpackedWriter {
    /// Adds bytes, and hashes them.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), VolumeError> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        match &mut self.target {
            Target::File(directory, name, file) => directory.append(*name, file, bytes),
            Target::Batch(batch) => {
                batch.append(bytes);
                Ok(())
            }
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}
