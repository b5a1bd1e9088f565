//! Makes a staged release the one that every reader sees, in one step and for good.
//!
//! The order is what makes a crash harmless. (1) The staged tree reaches the disk. (2) Its signature and its manifest, then the tree itself, get
//! their names under `releases/`: from here on the release is complete, and a restart only has to point at it, once these names
//! have reached the disk. (3) A new link is renamed over `current`, which is the one instant at which anything changes for a
//! reader. (4) The directories whose entries changed reach the disk, so that a power failure takes none of it back.
//!
//! Step 3 is the commit point. A [`Published`] exists only after it, and nothing that comes after it can fail a sync.

use std::time::SystemTime;

use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use super::directory::unlink;
use super::private::same_file;
use super::staging::Staging;
use super::sys;
use super::tree::looks_whole;
use super::volume::{
    CURRENT, Context as _, RELEASES, STAGING, Volume, VolumeError, link_text, manifest_name, signature_name,
};
use crate::content::{Manifest, ReleaseId};
use crate::crash_point::{crash_point, lacks};

/// The proof that `current` names a release, and when the release before it was replaced.
#[derive(Debug)]
#[must_use]
pub(crate) struct Published {
    pub(crate) replaced_at: SystemTime,
}

/// Publishes a staged release, whose files `manifest` lists; `replaced` is the one that `current` names now.
pub(crate) fn publish(
    staging: &Staging,
    manifest: &Manifest,
    replaced: Option<&ReleaseId>,
) -> Result<Published, VolumeError> {
    staging.flush()?;
    crash_point();
    let tree = place(staging, manifest)?;
    crash_point();
    point_at(staging.volume(), staging.id(), tree, replaced)
}

/// Points `current` at a release that is in its place, with this tree if it is ours.
pub(crate) fn point_at(
    volume: &Volume,
    id: &ReleaseId,
    tree: Option<BorrowedFd<'_>>,
    replaced: Option<&ReleaseId>,
) -> Result<Published, VolumeError> {
    // Also where the release has been there before: the process that put it there may not have come so far.
    sys::sync_directory(volume.releases()).context(|| format!("sync {volume}/{RELEASES}"))?;
    let context = || format!("point {volume}/{CURRENT} at release {id}");
    let private = volume.private()?;
    unlink(private.directory(), CURRENT).context(context)?;
    sys::symlink(&link_text(id), private.directory(), CURRENT).context(|| {
        format!("make a symbolic link on {volume}, which its file system has to be able to have")
    })?;
    crash_point();
    if let Some(replaced) = replaced.filter(|replaced| *replaced != id) {
        stamp(volume, replaced);
    }
    if tree.is_some_and(|tree| !same_file(volume.releases(), id.as_str(), tree)) {
        return Err(volume.is_shared());
    }
    // By its name, not by the handle: see `private`.
    let link = private.beneath(CURRENT);
    match rustix::fs::renameat(volume.staging(), &*link, volume.root(), CURRENT) {
        Err(Errno::NOENT) => return Err(volume.is_shared()),
        renamed => renamed.context(context)?,
    }
    // Committed. What fails from here on is only logged.
    crash_point();
    let synced = if lacks("sync-root") { Err(Errno::IO) } else { sys::sync_directory(volume.root()) };
    if let Err(error) = synced {
        tracing::warn!(%volume, %error, "cannot sync the volume's directory; a power failure may bring the release before back");
    }
    Ok(Published { replaced_at: SystemTime::now() })
}

/// Notes on the volume that a release is no longer current, as the modification time of its manifest. Before it is
/// replaced, so that a crash between the two does not make it look older than it is.
fn stamp(volume: &Volume, replaced: &ReleaseId) {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    let name = manifest_name(replaced);
    if let Err(error) = rustix::fs::utimensat(volume.releases(), &*name, &times, AtFlags::SYMLINK_NOFOLLOW) {
        tracing::warn!(release = %replaced, %error, "its time of replacement is not noted; after a restart, --keep-for counts from when it was published");
    }
}

/// Moves signature, manifest and tree from staging to their names. Returns the tree, unless another process was quicker with the
/// same release: then its tree is in the place.
fn place<'s>(staging: &'s Staging, manifest: &Manifest) -> Result<Option<BorrowedFd<'s>>, VolumeError> {
    let (volume, id, private) = (staging.volume(), staging.id().as_str(), staging.private());
    let context = || format!("put release {id} in its place in {volume}/{RELEASES}");
    let (from, releases) = (volume.staging(), volume.releases());
    let named = manifest_name(staging.id());
    let moved = |moved: Result<(), Errno>| match moved {
        Err(Errno::NOENT) => Err(volume.is_shared()),
        moved => moved.context(context),
    };
    // First, so that no crash leaves a signed manifest without it. A release that was put together again may have one of an
    // earlier manifest.
    let signature = signature_name(staging.id());
    if staging.is_signed() {
        moved(rustix::fs::renameat(from, &*private.beneath(&signature), releases, &*signature))?;
    } else {
        unlink(releases, &*signature).context(context)?;
    }
    crash_point();
    moved(rustix::fs::renameat(from, &*private.beneath(&named), releases, &*named))?;
    crash_point();
    let staged = private.beneath(id);
    match rustix::fs::renameat(from, &*staged, releases, id) {
        // A tree of the same release is in the way. If it is whole, another process has put it there since the sync began, and it
        // has readers already: it stays.
        Err(Errno::NOTEMPTY | Errno::EXIST) if looks_whole(volume, staging.id(), manifest)? => Ok(None),
        // If it is damaged, it may be the current one: so the two change places at once, and the damaged one is swept from staging.
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            if !sys::exchange(from, &staged, releases, id).context(context)? {
                let damaged = format!("{id}.damaged");
                rustix::fs::renameat(releases, id, private.directory(), &*damaged).context(context)?;
                crash_point();
                moved(rustix::fs::renameat(from, &*staged, releases, id))?;
            }
            crash_point();
            Ok(Some(staging.tree()))
        }
        renamed => moved(renamed).map(|()| Some(staging.tree())),
    }
}

impl Volume {
    /// The error for what only another process can have done.
    fn is_shared(&self) -> VolumeError {
        VolumeError::Shared(self.path().join(STAGING))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::MetadataExt as _;
    use std::sync::Arc;

    use super::*;
    use crate::store::create::DirectoryOptions;
    use crate::store::fixtures::{manifest, write};
    use crate::store::{Clear, clear};

    /// Where locks do not hold, another process may put the same release in its place first. The tree that readers have is not
    /// exchanged for an equal one, which would take its files away beneath them; a damaged one is.
    #[test]
    fn a_whole_tree_in_the_way_stays() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("volume");
        let volume = Arc::new(Volume::open(&path, DirectoryOptions::default()).unwrap());
        let manifest = manifest(&[("a", "")]);
        let stage = || {
            clear(&volume, Clear::Attempt).unwrap();
            let staging = Arc::new(Staging::begin(&volume, &manifest.id(), &manifest).unwrap());
            write(&staging, &[&manifest.files[0]], &[""]);
            staging
        };
        let inode = || std::fs::metadata(path.join("releases").join(manifest.id().as_str())).unwrap().ino();
        let _published = publish(&stage(), &manifest, None).unwrap();
        let theirs = inode();
        let _published = publish(&stage(), &manifest, None).unwrap();
        assert_eq!(inode(), theirs);
        std::fs::remove_file(path.join("current/a")).unwrap();
        let _published = publish(&stage(), &manifest, None).unwrap();
        assert_ne!(inode(), theirs);
        assert_eq!(std::fs::read(path.join("current/a")).unwrap(), b"a");
    }

    /// Where locks do not hold, the tree in the place may be another than the one that was put together.
    #[test]
    fn nothing_points_at_another_tree_than_ours() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("volume");
        let volume = Volume::open(&path, DirectoryOptions::default()).unwrap();
        let id = ReleaseId::parse("0123456789abcdef").unwrap();
        let tree = path.join("releases").join(id.as_str());
        std::fs::create_dir(&tree).unwrap();
        let ours = std::fs::File::open(&tree).unwrap();
        std::fs::rename(&tree, above.path().join("away")).unwrap();
        std::fs::create_dir(&tree).unwrap();
        assert!(matches!(point_at(&volume, &id, Some(ours.as_fd()), None), Err(VolumeError::Shared(_))));
        assert!(path.join("current").symlink_metadata().is_err());
        let theirs = std::fs::File::open(&tree).unwrap();
        let _published = point_at(&volume, &id, Some(theirs.as_fd()), None).unwrap();
        assert_eq!(volume.current().unwrap(), Some(id));
    }

    /// A pipe cannot be synced: nothing points at a release whose name is not known to be on the disk.
    #[test]
    fn the_name_of_a_release_is_on_the_disk_before_anything_points_at_it() {
        let above = tempfile::tempdir().unwrap();
        let volume = Volume::open(&above.path().join("volume"), DirectoryOptions::default()).unwrap();
        let id = ReleaseId::parse("0123456789abcdef").unwrap();
        std::fs::create_dir(above.path().join("volume/releases").join(id.as_str())).unwrap();
        let _published = point_at(&volume, &id, None, None).unwrap();
        std::fs::remove_file(above.path().join("volume/current")).unwrap();
        let volume = volume.with_releases(std::io::pipe().unwrap().0.into());
        assert!(point_at(&volume, &id, None, None).is_err());
        assert!(above.path().join("volume/current").symlink_metadata().is_err());
    }
}
