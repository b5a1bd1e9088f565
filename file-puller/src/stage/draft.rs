//! One file of a release while it is being written: hashed on the way, and a file of the release only once it is the right one.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

use crate::durable::Unsynced;
use crate::fault;
use crate::manifest::ManifestFile;
use crate::path::ReleasePath;
use crate::release::{Digest, FileMode};
use crate::volume::{Doing as _, Volume, VolumeError};

/// One file that is being written.
#[derive(Debug)]
pub struct Draft {
    path: ReleasePath,
    volume: Arc<Volume>,
    unsynced: Arc<Unsynced>,
    file: File,
    hasher: Sha256,
    written: u64,
}

/// What was served is not what the manifest promised: most often content that changed between the two requests.
#[derive(Debug, thiserror::Error)]
#[error("{path} is not what the manifest promises: {difference}")]
pub struct Mismatch {
    /// The file.
    pub path: ReleasePath,
    /// Promised and found.
    pub difference: String,
}

/// Why a draft could not be made a file of the release.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// It is not the file that was promised.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The volume refused.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl Draft {
    pub(super) fn create(
        tree: &OwnedFd,
        path: &ReleasePath,
        volume: &Arc<Volume>,
        unsynced: &Arc<Unsynced>,
    ) -> Result<Self, VolumeError> {
        let file = create(tree, path.as_str()).doing(|| format!("make {path} on {volume}"))?;
        unsynced.made(path.as_str());
        fault::point();
        let (path, volume, unsynced) = (path.clone(), Arc::clone(volume), Arc::clone(unsynced));
        Ok(Self { path, volume, unsynced, file: file.into(), hasher: Sha256::new(), written: 0 })
    }

    /// Adds bytes, and hashes them.
    ///
    /// # Errors
    /// Where the volume refuses, most often because it is full.
    pub fn append(&mut self, chunks: &[Bytes]) -> Result<(), VolumeError> {
        for chunk in chunks {
            self.hasher.update(chunk);
            self.file.write_all(chunk).doing(|| format!("write {} on {}", self.path, self.volume))?;
            self.written += chunk.len() as u64;
            fault::point();
        }
        Ok(())
    }

    /// Begins again, as if nothing had been written.
    ///
    /// # Errors
    /// Where the volume refuses.
    pub fn emptied(mut self) -> Result<Self, VolumeError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.doing(|| format!("empty {} on {}", self.path, self.volume))?;
        Ok(Self { hasher: Sha256::new(), written: 0, ..self })
    }

    /// Makes it a file of the release, whatever it is, and says what it is.
    ///
    /// # Errors
    /// Where the volume refuses.
    pub fn keep(self, mode: FileMode) -> Result<(u64, Digest), VolumeError> {
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode.bits()))
            .doing(|| format!("set the mode of {} on {}", self.path, self.volume))?;
        self.unsynced.written(self.path.as_str(), self.file);
        Ok((self.written, Digest::of(self.hasher)))
    }

    /// Makes it a file of the release, if it is the one that the manifest promises.
    ///
    /// # Errors
    /// Where it is not, or the volume refuses.
    pub fn seal(self, promised: &ManifestFile) -> Result<(), SealError> {
        let mismatch = |difference| Mismatch { path: promised.path.clone(), difference };
        if self.written != promised.size {
            let difference = format!("{} bytes instead of {}", self.written, promised.size);
            return Err(mismatch(difference).into());
        }
        let (_, digest) = self.keep(promised.mode)?;
        if digest != promised.digest {
            return Err(mismatch(format!("SHA-256 {digest} instead of {}", promised.digest)).into());
        }
        Ok(())
    }
}

/// Makes a file that was not there before, and that nobody else can read yet.
pub(super) fn create(beneath: impl rustix::fd::AsFd, name: &str) -> io::Result<OwnedFd> {
    let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(beneath, name, new, Mode::from_raw_mode(0o600))?)
}
