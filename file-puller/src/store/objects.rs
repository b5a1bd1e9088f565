//! Files that have arrived, by what they are: `objects/<sha256>-<mode>` in the private directory.
//!
//! A file has its final name here before it is complete, so a name proves nothing: what an earlier sync or an earlier process left
//! behind is hashed before it is used. In return a failed sync loses no file that had arrived, and content that a manifest
//! names several times is fetched once.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use lifecycle::Ignore as _;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::create::{DIRECTORY, create_file, make_directory, set_mode};
use super::fsync::FEW;
use super::private::OBJECTS;
use super::tree;
use super::volume::{Context as _, Volume, VolumeError};
use crate::content::{Digest, FileMode, ManifestFile, ReleasePath};
use crate::crash_point::{crash_point, stall};

/// The objects of this process.
#[derive(Debug)]
pub(crate) struct Objects {
    volume: Arc<Volume>,
    directory: OwnedFd,
    /// Nothing was there before, so nothing has to be looked for.
    is_new: bool,
    /// Objects that are open since they were written, as long as they are few: see `fsync`.
    open: Mutex<Option<HashMap<(Digest, FileMode), File>>>,
}

impl Objects {
    /// The objects that are there, or an empty directory for new ones.
    pub(crate) fn open(volume: &Arc<Volume>) -> Result<Arc<Self>, VolumeError> {
        let private = volume.private()?;
        let context = || format!("make {}/{OBJECTS}", private.path().display());
        let is_new = match make_directory(private.directory(), OBJECTS, volume.directory_mode()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            made => made.map(|()| true).context(context)?,
        };
        crash_point();
        let directory =
            rustix::fs::openat(private.directory(), OBJECTS, DIRECTORY, Mode::empty()).context(context)?;
        let open = Mutex::new(Some(HashMap::new()));
        Ok(Arc::new(Self { volume: Arc::clone(volume), directory, is_new, open }))
    }

    /// Whether this content is there already. What is there under its name and is something else is removed.
    pub(crate) fn has(&self, file: &ManifestFile) -> bool {
        if self.is_new {
            return false;
        }
        let name = object_name(file.content());
        let found = tree::digest(self.directory.as_fd(), &name);
        let is_it = matches!(found, Ok(digest) if digest == file.digest);
        if is_it {
            // The process that wrote it may have ended before it could do that.
            return rustix::fs::chmodat(&self.directory, &*name, file.mode.as_mode(), AtFlags::empty())
                .is_ok();
        }
        rustix::fs::unlinkat(&self.directory, &*name, AtFlags::empty()).ignore();
        false
    }

    /// Begins a file that has to become what the manifest promises.
    pub(crate) fn create(self: &Arc<Self>, promised: &ManifestFile) -> Result<StagedFile, VolumeError> {
        self.begin(object_name(promised.content()), &promised.path)
    }

    fn begin(self: &Arc<Self>, name: String, path: &ReleasePath) -> Result<StagedFile, VolumeError> {
        let file = match create_file(&self.directory, &name) {
            // What a process that was killed had begun.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.discard(&name);
                create_file(&self.directory, &name)
            }
            made => made,
        };
        let file = file.context(|| format!("make {path} on {}", self.volume))?;
        crash_point();
        Ok(StagedFile::new(Arc::clone(self), name, path.clone(), file.into()))
    }

    /// Takes in a file that is complete: gives it the name of its content, unless it has that already.
    fn add(&self, name: &str, content: (Digest, FileMode), file: File) -> io::Result<()> {
        let object = object_name(content);
        if name != object {
            rustix::fs::renameat(&self.directory, name, &self.directory, &*object)?;
            crash_point();
        }
        let mut open = self.open.lock();
        if let Some(few) = &mut *open {
            few.insert(content, file);
            if few.len() > FEW {
                *open = None;
            }
        }
        Ok(())
    }

    fn discard(&self, name: &str) {
        // Another process may have swept it.
        rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()).ignore();
    }

    /// Moves an object to its place in a tree; returns the file if it is still open.
    pub(super) fn take(
        &self,
        content: (Digest, FileMode),
        tree: BorrowedFd<'_>,
        path: &str,
    ) -> Result<Option<File>, Errno> {
        rustix::fs::renameat(&self.directory, &*object_name(content), tree, path)?;
        Ok(self.open.lock().as_mut().and_then(|few| few.remove(&content)))
    }

    /// Puts an object in a tree, and keeps it for other places.
    pub(super) fn share(
        &self,
        content: (Digest, FileMode),
        tree: BorrowedFd<'_>,
        path: &str,
    ) -> io::Result<()> {
        tree::link_or_copy(self.directory.as_fd(), &object_name(content), tree, path, content)
    }
}

fn object_name((digest, mode): (Digest, FileMode)) -> String {
    format!("{digest}-{mode}")
}

/// One file that is being written. Dropped before it is finished, it is removed.
#[derive(Debug)]
pub(crate) struct StagedFile {
    objects: Arc<Objects>,
    name: String,
    /// For messages: a path at which a release has it.
    path: ReleasePath,
    /// `None` once it is finished.
    file: Option<File>,
    hasher: Sha256,
    written: u64,
}

/// What was served is not what the manifest promised: most often content that changed between the two requests.
#[derive(Debug, thiserror::Error)]
#[error("{path} is not what the manifest promises: {difference}")]
pub(crate) struct Mismatch {
    /// The file.
    pub(crate) path: ReleasePath,
    /// Promised and found.
    pub(crate) difference: String,
}

/// Why a file could not be made an object.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FinishError {
    /// It is not the file that was promised.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The volume refused.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl StagedFile {
    pub(super) fn new(objects: Arc<Objects>, name: String, path: ReleasePath, file: File) -> Self {
        Self { objects, name, path, file: Some(file), hasher: Sha256::new(), written: 0 }
    }

    /// Adds bytes, and hashes them.
    pub(crate) fn append(&mut self, chunks: &[Bytes]) -> Result<(), VolumeError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        stall("write");
        for chunk in chunks {
            self.hasher.update(chunk);
            file.write_all(chunk).context(|| format!("write {} on {}", self.path, self.objects.volume))?;
            self.written += chunk.len() as u64;
            crash_point();
        }
        Ok(())
    }

    /// Begins again, as if nothing had been written.
    pub(crate) fn restart(&mut self) -> Result<(), VolumeError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let emptied = file.set_len(0).and_then(|()| file.rewind());
        emptied.context(|| format!("empty {} on {}", self.path, self.objects.volume))?;
        (self.hasher, self.written) = (Sha256::new(), 0);
        Ok(())
    }

    /// Makes it an object, if it is the one that the manifest promises.
    pub(crate) fn finish_verified(mut self, promised: &ManifestFile) -> Result<(), FinishError> {
        let mismatch = |difference| Mismatch { path: promised.path.clone(), difference };
        if self.written != promised.size {
            let difference = format!("{} bytes instead of {}", self.written, promised.size);
            return Err(mismatch(difference).into());
        }
        let digest = Digest::of(std::mem::take(&mut self.hasher));
        if digest != promised.digest {
            return Err(mismatch(format!("SHA-256 {digest} instead of {}", promised.digest)).into());
        }
        Ok(self.add(digest, promised.mode)?)
    }

    fn add(&mut self, digest: Digest, mode: FileMode) -> Result<(), VolumeError> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let added = set_mode(&file, mode).and_then(|()| self.objects.add(&self.name, (digest, mode), file));
        added.context(|| format!("take in {} on {}", self.path, self.objects.volume))
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            self.objects.discard(&self.name);
        }
    }
}
