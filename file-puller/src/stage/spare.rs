//! A copy of the current release in hard links, made while nobody waits: the next release begins with it.
//!
//! Every release is a tree of its own, and to link ten thousand files takes the kernel longer than all the rest of a small
//! change. With the links made beforehand, a change costs what it changes. The copy lies in the private directory, so no reader
//! ever sees it before it is a release, and a restart sweeps it away.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::{Staging, make_directory, write_manifest};
use crate::fault;
use crate::manifest::Manifest;
use crate::path::ReleasePath;
use crate::plan::{Departure, Known};
use crate::release::ReleaseId;
use crate::volume::{DIRECTORY, Doing as _, SPARE, STAGING, Volume, VolumeError};

/// The copy, and of which release it is one. To know that one's manifest saves the next sync from reading it.
#[derive(Debug)]
pub struct Spare {
    of: Known,
}

impl Spare {
    /// Copies a release that has at least so many files; a smaller one is linked soon enough when it is needed.
    ///
    /// # Errors
    /// Where the volume refuses. Nothing is left of it then.
    pub fn make(volume: &Volume, of: ReleaseId, least: usize) -> Result<Option<Self>, VolumeError> {
        volume.sweep_spare()?;
        let manifest = volume.manifest(&of).filter(|manifest| manifest.files.len() >= least);
        let Some(manifest) = manifest.map(Arc::new) else { return Ok(None) };
        let copied =
            copy(volume, &of, &manifest).doing(|| format!("copy {of} to {volume}/{STAGING}/{SPARE}"));
        if copied.is_err() {
            volume.sweep_spare()?;
        }
        copied.map(|()| Some(Self { of: Known { id: of, manifest } }))
    }

    /// Which release it is a copy of.
    pub fn of(&self) -> &Known {
        &self.of
    }

    /// Makes it a release that is being put together: without what is gone, with the directories of what will come.
    ///
    /// # Errors
    /// Where the volume refuses.
    pub fn begin(
        self,
        volume: Arc<Volume>,
        id: ReleaseId,
        manifest: &Manifest,
        departure: &Departure,
    ) -> Result<Staging, VolumeError> {
        volume.sweep_staging()?;
        let doing = || format!("make {volume}/{STAGING}/{id} of {SPARE}");
        rustix::fs::renameat(volume.staging(), SPARE, volume.staging(), id.as_str()).doing(doing)?;
        fault::point();
        let tree =
            rustix::fs::openat(volume.staging(), id.as_str(), DIRECTORY, Mode::empty()).doing(doing)?;
        for path in &departure.gone {
            take_out(&volume, &tree, path)?;
        }
        for directory in manifest.directories() {
            match make_directory(&tree, directory) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.doing(|| format!("make {volume}/{STAGING}/{id}/{directory}"))?,
            }
            fault::point();
        }
        write_manifest(&volume, &id, manifest)?;
        Ok(Staging { volume, id, tree, copy_of: Some(self.of.id) })
    }
}

fn copy(volume: &Volume, release: &ReleaseId, manifest: &Manifest) -> io::Result<()> {
    let original = rustix::fs::openat(volume.releases(), release.as_str(), DIRECTORY, Mode::empty())?;
    make_directory(volume.staging(), SPARE)?;
    let copy = rustix::fs::openat(volume.staging(), SPARE, DIRECTORY, Mode::empty())?;
    for directory in manifest.directories() {
        make_directory(&copy, directory)?;
        fault::point();
    }
    for file in &manifest.files {
        let path = file.path.as_str();
        rustix::fs::linkat(&original, path, &copy, path, AtFlags::empty())?;
        fault::point();
    }
    // So that publishing finds most of it on the disk; what it does not find there it waits for.
    Ok(rustix::fs::fsync(&copy)?)
}

/// Removes a file, and the directories that are empty without it.
fn take_out(volume: &Volume, tree: &OwnedFd, path: &ReleasePath) -> Result<(), VolumeError> {
    let tree = tree.as_fd();
    let doing = |name: &str| format!("take {name} out of a copy in {volume}/{STAGING}");
    rustix::fs::unlinkat(tree, path.as_str(), AtFlags::empty()).doing(|| doing(path.as_str()))?;
    fault::point();
    let directories: Vec<_> = path.ancestors().collect();
    for directory in directories.into_iter().rev() {
        match rustix::fs::unlinkat(tree, directory, AtFlags::REMOVEDIR) {
            Ok(()) => fault::point(),
            Err(Errno::NOTEMPTY | Errno::EXIST) => break,
            Err(error) => return Err(error).doing(|| doing(directory)),
        }
    }
    Ok(())
}
