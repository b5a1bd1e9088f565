//! One file of a release while it is being written: hashed on the way, and a file of the release only once it is the right one.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

use super::fsync::FsyncSet;
use super::volume::{Context as _, Volume, VolumeError};
use crate::content::{Digest, FileMode, ManifestFile, ReleasePath};
use crate::crash_point::crash_point;

/// One file that is being written.
#[derive(Debug)]
pub(crate) struct StagedFile {
    path: ReleasePath,
    volume: Arc<Volume>,
    fsync_set: Arc<FsyncSet>,
    file: File,
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

/// Why a draft could not be made a file of the release.
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
    pub(super) fn create(
        tree: &OwnedFd,
        path: &ReleasePath,
        volume: &Arc<Volume>,
        fsync_set: &Arc<FsyncSet>,
    ) -> Result<Self, VolumeError> {
        let file = create(tree, path.as_str()).context(|| format!("make {path} on {volume}"))?;
        fsync_set.created(path.as_str());
        crash_point();
        let (path, volume, fsync_set) = (path.clone(), Arc::clone(volume), Arc::clone(fsync_set));
        Ok(Self { path, volume, fsync_set, file: file.into(), hasher: Sha256::new(), written: 0 })
    }

    /// Adds bytes, and hashes them.
    pub(crate) fn append(&mut self, chunks: &[Bytes]) -> Result<(), VolumeError> {
        for chunk in chunks {
            self.hasher.update(chunk);
            self.file.write_all(chunk).context(|| format!("write {} on {}", self.path, self.volume))?;
            self.written += chunk.len() as u64;
            crash_point();
        }
        Ok(())
    }

    /// Begins again, as if nothing had been written.
    pub(crate) fn restart(mut self) -> Result<Self, VolumeError> {
        let restart = self.file.set_len(0).and_then(|()| self.file.rewind());
        restart.context(|| format!("empty {} on {}", self.path, self.volume))?;
        Ok(Self { hasher: Sha256::new(), written: 0, ..self })
    }

    /// Makes it a file of the release, whatever it is, and says what it is.
    pub(crate) fn finish(self, mode: FileMode) -> Result<(u64, Digest), VolumeError> {
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode.bits()))
            .context(|| format!("set the mode of {} on {}", self.path, self.volume))?;
        self.fsync_set.wrote(self.path.as_str(), self.file);
        Ok((self.written, Digest::of(self.hasher)))
    }

    /// Makes it a file of the release, if it is the one that the manifest promises.
    pub(crate) fn finish_verified(self, promised: &ManifestFile) -> Result<(), FinishError> {
        let mismatch = |difference| Mismatch { path: promised.path.clone(), difference };
        if self.written != promised.size {
            let difference = format!("{} bytes instead of {}", self.written, promised.size);
            return Err(mismatch(difference).into());
        }
        let (_, digest) = self.finish(promised.mode)?;
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
