//! Taking away: old releases, what a crash left behind, what is no longer needed in the private directory.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::{Doing as _, RELEASES, SPARE, STAGING, Volume, VolumeError, manifest_name};
use crate::fault;
use crate::release::ReleaseId;

impl Volume {
    /// Empties the private directory, but for the spare copy of the current release.
    ///
    /// # Errors
    /// Where something in it cannot be removed.
    pub fn sweep_staging(&self) -> Result<(), VolumeError> {
        self.sweep(|name| name != SPARE)
    }

    /// Removes the spare copy, if there is one.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub fn sweep_spare(&self) -> Result<(), VolumeError> {
        self.sweep(|name| name == SPARE)
    }

    fn sweep(&self, which: impl Fn(&OsStr) -> bool) -> Result<(), VolumeError> {
        let staging = self.path.join(STAGING);
        for entry in fs::read_dir(&staging).doing(|| format!("read {self}/{STAGING}"))? {
            let entry = entry.doing(|| format!("read {self}/{STAGING}"))?;
            if !which(&entry.file_name()) {
                continue;
            }
            let path = entry.path();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = if is_directory { remove_tree(&path) } else { fs::remove_file(&path) };
            removed.doing(|| format!("remove {}", path.display()))?;
            fault::point();
            tracing::debug!(path = %path.display(), "swept");
        }
        Ok(())
    }

    /// Takes a release off the volume: out of sight in one step, then gone.
    ///
    /// # Errors
    /// Where it cannot be moved or removed.
    pub fn remove(&self, id: &ReleaseId) -> Result<(), VolumeError> {
        let doing = || format!("remove {self}/{RELEASES}/{id}");
        let aside = format!("{id}.removed");
        match rustix::fs::renameat(&self.releases, id.as_str(), &self.staging, &aside) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error).doing(doing),
        }
        fault::point();
        match rustix::fs::unlinkat(&self.releases, manifest_name(id), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error).doing(doing),
        }
        fault::point();
        match remove_tree(&self.path.join(STAGING).join(aside)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).doing(doing),
            _ => Ok(()),
        }
    }

    /// A crash can leave a manifest without a tree (publishing puts the manifest first, removing takes it last), and
    /// somebody's broom a tree without a manifest.
    pub(super) fn sweep_releases(&self) -> Result<(), VolumeError> {
        let current = self.current()?;
        let manifests = self.names(|name| name.strip_suffix(".json").and_then(ReleaseId::parse))?;
        let trees = self.names(ReleaseId::parse)?;
        let halves = manifests.iter().filter(|id| !trees.contains(id));
        // What `current` names is being read: a missing manifest is written again by the next sync.
        let halves =
            halves.chain(trees.iter().filter(|id| !manifests.contains(id) && current.as_ref() != Some(*id)));
        for id in halves {
            tracing::info!(release = %id, "swept half a release that a crash left behind");
            self.remove(id)?;
        }
        Ok(())
    }
}

/// A download that was given up may still be writing its last file, so that a directory fills while it is emptied.
fn remove_tree(path: &Path) -> io::Result<()> {
    const ATTEMPTS: u32 = 5;
    for _ in 1..ATTEMPTS {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => std::thread::yield_now(),
            done => return done,
        }
    }
    fs::remove_dir_all(path)
}
