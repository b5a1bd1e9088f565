//! Taking away: old releases, what a crash left behind, what is no longer needed in the private directory.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::volume::{Context as _, RELEASES, SPARE, STAGING, Volume, VolumeError, manifest_name};
use crate::content::ReleaseId;
use crate::crash_point::crash_point;

/// Clears away what an earlier process left half done.
pub(crate) fn sweep_at_start(volume: &Volume) -> Result<(), VolumeError> {
    sweep_staging(volume)?;
    sweep_seed(volume)?;
    sweep_releases(volume)
}

/// Empties the private directory, but for the spare copy of the current release.
pub(crate) fn sweep_staging(volume: &Volume) -> Result<(), VolumeError> {
    sweep(volume, |name| name != SPARE)
}

/// Removes the spare copy, if there is one.
pub(crate) fn sweep_seed(volume: &Volume) -> Result<(), VolumeError> {
    sweep(volume, |name| name == SPARE)
}

fn sweep(volume: &Volume, which: impl Fn(&OsStr) -> bool) -> Result<(), VolumeError> {
    let staging = volume.path().join(STAGING);
    for entry in fs::read_dir(&staging).context(|| format!("read {volume}/{STAGING}"))? {
        let entry = entry.context(|| format!("read {volume}/{STAGING}"))?;
        if !which(&entry.file_name()) {
            continue;
        }
        let path = entry.path();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_directory { remove_tree(&path) } else { fs::remove_file(&path) };
        removed.context(|| format!("remove {}", path.display()))?;
        crash_point();
        tracing::debug!(path = %path.display(), "swept");
    }
    Ok(())
}

/// Takes a release off the volume: out of sight in one step, then gone.
pub(crate) fn remove_release(volume: &Volume, id: &ReleaseId) -> Result<(), VolumeError> {
    let context = || format!("remove {volume}/{RELEASES}/{id}");
    let aside = format!("{id}.removed");
    match rustix::fs::renameat(volume.releases(), id.as_str(), volume.staging(), &aside) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error).context(context),
    }
    crash_point();
    match rustix::fs::unlinkat(volume.releases(), manifest_name(id), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error).context(context),
    }
    crash_point();
    match remove_tree(&volume.path().join(STAGING).join(aside)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context(context),
        _ => Ok(()),
    }
}

/// A crash can leave a manifest without a tree (publishing puts the manifest first, removing takes it last), and
/// somebody's broom a tree without a manifest.
fn sweep_releases(volume: &Volume) -> Result<(), VolumeError> {
    let current = volume.current()?;
    let manifests = volume.names(|name| name.strip_suffix(".json").and_then(ReleaseId::parse))?;
    let trees = volume.names(ReleaseId::parse)?;
    let halves = manifests.iter().filter(|id| !trees.contains(id));
    // What `current` names is being read: a missing manifest is written again by the next sync.
    let halves =
        halves.chain(trees.iter().filter(|id| !manifests.contains(id) && current.as_ref() != Some(*id)));
    for id in halves {
        tracing::info!(release = %id, "swept half a release that a crash left behind");
        remove_release(volume, id)?;
    }
    Ok(())
}

/// A download that was given up may still be writing its last file, so that a directory fills while it is restart.
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
