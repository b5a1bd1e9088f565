//! Is the published release still what was published? And if a file of it is not: put the right one in its place.
//!
//! Every file is read and hashed. A damaged one is fetched again and renamed over, so it gets a new inode: a reader that has the
//! damaged one open keeps it, the earlier releases that share it are not touched, and every new open is right.
//! This is the one time that a published tree changes, and it changes to what it was.

use std::os::fd::AsFd as _;

use super::create::ensure_directory;
use super::fsync::FsyncSet;
use super::publish::{Published, point_at};
use super::staging::Staging;
use super::tree::{digest_until, looks_intact};
use super::volume::{Context as _, RELEASES, Volume, VolumeError};
use crate::content::{Manifest, ManifestFile, ReleaseId};
use crate::crash_point::crash_point;

/// A verification that can be interrupted between two files, and goes on where it was.
#[derive(Debug)]
pub(crate) struct Verification {
    release: ReleaseId,
    next: usize,
    damaged: Vec<ManifestFile>,
}

impl Verification {
    /// Begins with the release's first file.
    pub(crate) fn new(release: ReleaseId) -> Self {
        Self { release, next: 0, damaged: Vec::new() }
    }

    pub(crate) fn release(&self) -> &ReleaseId {
        &self.release
    }

    /// Reads on until all files were read, or `stop` says that something else is more urgent. Returns the files that are missing
    /// or not what the manifest says, as a manifest of their own, or `None` if it was stopped. Asked again after that, it has the
    /// same answer and reads nothing.
    pub(crate) fn run(
        &mut self,
        volume: &Volume,
        manifest: &Manifest,
        stop: impl Fn() -> bool,
    ) -> Result<Option<Manifest>, VolumeError> {
        let tree = volume.open_release(&self.release)?;
        while let Some(file) = manifest.files.get(self.next) {
            let is_sound = looks_intact(volume, tree.as_fd(), &file.path, file)
                && match digest_until(tree.as_fd(), file.path.as_str(), &stop) {
                    Ok(None) => return Ok(None),
                    Ok(Some(digest)) => digest == file.digest,
                    Err(_) => false,
                };
            if !is_sound {
                self.damaged.push(file.clone());
            }
            self.next += 1;
        }
        let files = self.damaged.clone();
        Ok(Some(Manifest { created: manifest.created, site: manifest.site.clone(), files }))
    }
}

/// Moves staged files over the damaged ones, and shows readers that something has changed. An error means that the tree's shape is
/// damaged, too, and the release has to be put together again.
pub(crate) fn restore(staging: &Staging, damaged: &Manifest) -> Result<Published, VolumeError> {
    let (volume, id) = (staging.volume(), staging.id());
    let tree = volume.open_release(id)?;
    let context = |name: &str| format!("restore {volume}/{RELEASES}/{id}/{name}");
    staging.flush()?;
    let fsync_set = FsyncSet::new(volume.backlog());
    for directory in damaged.directories() {
        if ensure_directory(&tree, directory, volume.directory_mode()).context(|| context(directory))? {
            fsync_set.created_directory(directory);
        }
        crash_point();
    }
    for file in &damaged.files {
        let path = file.path.as_str();
        rustix::fs::renameat(staging.tree(), path, &tree, path).context(|| context(path))?;
        fsync_set.moved(path);
        crash_point();
    }
    let synced = fsync_set.flush(volume.root(), tree.as_fd(), &[]);
    synced.context(|| format!("sync the repair of {id} to the disk of {volume}"))?;
    // The link says what it said before. That it is a new one tells readers who keep files open, or in memory, to look again.
    point_at(volume, id, None, None)
}
