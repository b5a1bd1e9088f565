//! Taking away: old releases, and what a process that ended left behind.

use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::create::open_directory;
use super::directory::{entries, unlink};
use super::objects::keep_arrived;
use super::private::{self, OBJECTS, Private};
use super::volume::{
    Context as _, LOCK, RELEASES, SIGNATURE_EXTENSION, STAGING, Volume, VolumeError, manifest_id,
    manifest_name, signature_name,
};
use crate::content::ReleaseId;
use crate::crash_point::crash_point;

/// Clears away what earlier processes left half done.
pub(crate) fn sweep_at_start(volume: &Volume) -> Result<(), VolumeError> {
    let context = || format!("read {volume}/{STAGING}");
    for entry in entries(volume.staging()).context(context)? {
        let entry = entry.context(context)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == LOCK {
            continue;
        }
        match name.to_str().filter(|name| name.starts_with(private::PREFIX)) {
            Some(name) if volume.is_own(name) || private::has_owner(volume.staging(), name) => {}
            _ => sweep(volume, name)?,
        }
    }
    sweep_releases(volume)?;
    volume.release_private();
    Ok(())
}

/// Removes something from `.staging`: out of its owner's way in one step, then for good. Objects are kept for the next sync.
fn sweep(volume: &Volume, name: &OsStr) -> Result<(), VolumeError> {
    let private = volume.private()?;
    let context = || format!("remove {volume}/{STAGING}/{}", name.display());
    let swept = "swept";
    match rustix::fs::renameat(volume.staging(), name, private.directory(), swept) {
        // Another process was faster.
        Err(Errno::NOENT) => return Ok(()),
        // What costs only space must not keep this process from syncing.
        Err(error @ (Errno::ACCESS | Errno::PERM)) => {
            tracing::warn!(name = %name.display(), %error, "what a process of another user has left in {STAGING} is not swept; remove it, or run both with --group-write");
            return Ok(());
        }
        moved => moved.context(context)?,
    }
    crash_point();
    adopt_objects(volume, &private, swept);
    private.take_away(swept).context(context)?;
    crash_point();
    tracing::debug!(name = %name.display(), "swept");
    Ok(())
}

/// Takes over the files that had arrived for a process that has ended.
fn adopt_objects(volume: &Volume, private: &Private, swept: &str) {
    let directory = private.directory();
    let objects = format!("{swept}/{OBJECTS}");
    match rustix::fs::renameat(directory, &*objects, directory, OBJECTS) {
        Ok(()) => tracing::debug!("what an earlier process had fetched is kept"),
        // There are none, or others were adopted already: then these are fetched again where they are needed.
        Err(error) => tracing::trace!(%error, "no objects to keep"),
    }
    if let Ok(staged) = open_directory(directory, swept)
        && let Err(error) = keep_arrived(staged.as_fd(), private, volume)
    {
        tracing::debug!(%error, "what had arrived is not kept");
    }
}

/// Takes a release off the volume, unless `current` names it: out of sight in one step, then gone.
pub(crate) fn remove_release(volume: &Volume, id: &ReleaseId) -> Result<(), VolumeError> {
    let context = || format!("remove {volume}/{RELEASES}/{id}");
    let is_current = || Ok::<_, VolumeError>(volume.current_target()?.as_ref() == Some(id));
    if is_current()? {
        return Ok(());
    }
    let private = volume.private()?;
    let aside = format!("{id}.removed");
    match rustix::fs::renameat(volume.releases(), id.as_str(), private.directory(), &aside) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error).context(context),
    }
    crash_point();
    // Another process may have pointed `current` at it in between, on a volume whose locks are only pretended.
    if is_current()? {
        return rustix::fs::renameat(private.directory(), &aside, volume.releases(), id.as_str())
            .context(|| format!("put {volume}/{RELEASES}/{id} back, which became current meanwhile"));
    }
    for name in [manifest_name(id), signature_name(id)] {
        unlink(volume.releases(), name).context(context)?;
        crash_point();
    }
    private.take_away(&*aside).context(context)?;
    volume.release_private();
    Ok(())
}

/// A crash can leave a manifest without a tree (publishing puts the manifest first, removing takes it last), and an operator a
/// tree without a manifest.
fn sweep_releases(volume: &Volume) -> Result<(), VolumeError> {
    let current = volume.current()?;
    let manifests = volume.names(manifest_id)?;
    let trees = volume.names(ReleaseId::parse)?;
    let halves = manifests.iter().filter(|id| !trees.contains(id));
    // What `current` names is being read: a missing manifest is written again by the next sync.
    let halves =
        halves.chain(trees.iter().filter(|id| !manifests.contains(id) && current.as_ref() != Some(*id)));
    for id in halves {
        match remove_release(volume, id) {
            Ok(()) => tracing::info!(release = %id, "swept half a release that a crash left behind"),
            // What costs only space must not keep this process from syncing.
            Err(error) if error.is_denied() => {
                tracing::warn!(%error, "half a release of another user is not swept; remove it, or run both with --group-write");
            }
            Err(error) => return Err(error),
        }
    }
    let ours = |name: &str| name.strip_suffix(SIGNATURE_EXTENSION).and_then(manifest_id);
    for id in volume.names(ours)?.iter().filter(|id| !manifests.contains(id)) {
        tracing::info!(release = %id, "swept a signature that a crash left behind");
        rustix::fs::unlinkat(volume.releases(), signature_name(id), AtFlags::empty())
            .context(|| format!("remove {volume}/{RELEASES}/{}", signature_name(id)))?;
    }
    Ok(())
}

/// What to remove of what was staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clear {
    /// All but the seed tree and the objects, which the next attempt can use.
    Attempt,
    /// All but the seed tree.
    All,
}

/// Removes what an attempt to sync has left.
pub(crate) fn clear(volume: &Volume, what: Clear) -> Result<(), VolumeError> {
    let Some(private) = volume.existing_private() else { return Ok(()) };
    match what {
        Clear::Attempt => {
            if let Err(error) = keep_arrived(private.directory(), &private, volume) {
                tracing::debug!(%error, "what had arrived is not kept");
            }
        }
        Clear::All => private.remove_objects(),
    }
    private.clear().context(|| format!("clear {}", private.path().display()))?;
    volume.release_private();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::create::DirectoryOptions;
    use crate::store::point_at;

    /// What retention knows of `current` may be out of date where another process publishes as well.
    #[test]
    fn what_is_current_by_now_is_not_removed() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("volume");
        let volume = Volume::open(&path, DirectoryOptions::default()).unwrap();
        let ids = ["0123456789abcdef", "fedcba9876543210"].map(|id| ReleaseId::parse(id).unwrap());
        let tree = |id: &ReleaseId| path.join("releases").join(id.as_str());
        for id in &ids {
            std::fs::create_dir(tree(id)).unwrap();
            let _published = point_at(&volume, id, None, None).unwrap();
        }
        for id in &ids {
            remove_release(&volume, id).unwrap();
        }
        assert_eq!(ids.map(|id| tree(&id).exists()), [false, true]);
    }
}
