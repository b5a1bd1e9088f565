//! One file of a release while it arrives: written to its place in the staged tree, and hashed on the way.
//!
//! It has its final name before it is complete, and that is harmless: no reader sees the tree, and what a failed sync leaves of it
//! is hashed before it is used.

use std::fs::File;
use std::io::{self, IoSlice, Seek as _, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::staging::Staging;
use super::volume::{Context as _, VolumeError};
use crate::content::{Digest, ManifestFile, ReleasePath};
use crate::crash_point::{crash_point, stall};

/// One file that is being written. Dropped before it is finished, it is removed.
#[derive(Debug)]
pub(crate) struct StagedFile {
    staging: Arc<Staging>,
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
    pub(crate) path: ReleasePath,
    pub(crate) difference: String,
}

impl StagedFile {
    /// Begins a file that has to become what the manifest promises.
    pub(crate) fn create(staging: &Arc<Staging>, promised: &ManifestFile) -> Result<Self, VolumeError> {
        let file = staging.create(&promised.path)?;
        let (staging, path) = (Arc::clone(staging), promised.path.clone());
        Ok(Self { staging, path, file: Some(file), hasher: Sha256::new(), written: 0 })
    }

    /// Adds bytes, and hashes them.
    pub(crate) fn append(&mut self, chunks: &[Bytes]) -> Result<(), VolumeError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        stall("write");
        for chunk in chunks {
            self.hasher.update(chunk);
            self.written += chunk.len() as u64;
        }
        let written = write_all(file, chunks);
        written.context(|| format!("write {} on {}", self.path, self.staging.volume()))?;
        crash_point();
        Ok(())
    }

    /// Begins again, as if nothing had been written.
    pub(crate) fn restart(&mut self) -> Result<(), VolumeError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let emptied = file.set_len(0).and_then(|()| file.rewind());
        emptied.context(|| format!("empty {} on {}", self.path, self.staging.volume()))?;
        (self.hasher, self.written) = (Sha256::new(), 0);
        Ok(())
    }

    /// Makes it a file of the release, if it is the one that the manifest promises.
    pub(crate) fn finish_verified(
        mut self,
        promised: &ManifestFile,
    ) -> Result<Result<(), Mismatch>, VolumeError> {
        let mismatch = |difference| Mismatch { path: promised.path.clone(), difference };
        if self.written != promised.size {
            let difference = format!("{} bytes instead of {}", self.written, promised.size);
            return Ok(Err(mismatch(difference)));
        }
        let digest = Digest::of(std::mem::take(&mut self.hasher));
        if digest != promised.digest {
            return Ok(Err(mismatch(format!("SHA-256 {digest} instead of {}", promised.digest))));
        }
        if let Some(file) = self.file.take() {
            self.staging.arrived(&self.path, promised.mode, file)?;
        }
        Ok(Ok(()))
    }
}

/// Writes all chunks, in one call if the system takes them all: even a small file comes in several.
fn write_all(file: &mut File, chunks: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<_> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
    let mut rest = &mut slices[..];
    // Takes away those that are empty.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            self.staging.give_up(&self.path);
        }
    }
}
