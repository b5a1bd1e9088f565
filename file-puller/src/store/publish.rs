//! Makes a staged release the one that everybody reads, in one step and for good.
//!
//! The order is what makes a crash harmless. (1) The staged tree reaches the disk. (2) Its manifest, then the tree itself, get
//! their names under `releases/`: from here on the release is complete, and a restart only has to point at it, once these names
//! have reached the disk. (3) A new link
//! is renamed over `current`, which is the one instant at which anything changes for a reader. (4) The directories whose
//! entries changed reach the disk, so that a power cut takes none of it back.

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::staging::Staging;
use super::sweep::sweep_staging;
use super::volume::{CURRENT, Context as _, RELEASES, Volume, VolumeError, link_text, manifest_name};
use crate::content::ReleaseId;
use crate::crash_point::crash_point;

/// Publishes a staged release.
pub(crate) fn publish(staging: &Staging) -> Result<(), VolumeError> {
    let (volume, id) = (staging.volume(), staging.id());
    staging.flush()?;
    crash_point();
    place(volume, id)?;
    crash_point();
    point_at(volume, id)
}

/// Points `current` at a release that is in its place.
pub(crate) fn point_at(volume: &Volume, id: &ReleaseId) -> Result<(), VolumeError> {
    // Also where the release has been there before: whoever put it there may not have come so far.
    rustix::fs::fsync(volume.releases()).context(|| format!("sync {volume}/{RELEASES}"))?;
    let context = || format!("point {volume}/{CURRENT} at release {id}");
    match rustix::fs::unlinkat(volume.staging(), CURRENT, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error).context(context),
    }
    rustix::fs::symlinkat(link_text(id), volume.staging(), CURRENT).context(context)?;
    crash_point();
    rustix::fs::renameat(volume.staging(), CURRENT, volume.root(), CURRENT).context(context)?;
    crash_point();
    rustix::fs::fsync(volume.root()).context(|| format!("sync {volume}"))
}

/// Moves manifest and tree from staging to their names.
fn place(volume: &Volume, id: &ReleaseId) -> Result<(), VolumeError> {
    let context = || format!("put release {id} in its place in {volume}/{RELEASES}");
    let (staging, releases) = (volume.staging(), volume.releases());
    let manifest = manifest_name(id);
    rustix::fs::renameat(staging, &manifest, releases, &manifest).context(context)?;
    crash_point();
    match rustix::fs::renameat(staging, id.as_str(), releases, id.as_str()) {
        // A damaged tree of the same release is in the way. It may be the current one, so the two change places at once, and
        // the damaged one is swept from staging.
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            let exchange = RenameFlags::EXCHANGE;
            rustix::fs::renameat_with(staging, id.as_str(), releases, id.as_str(), exchange)
                .context(context)?;
            crash_point();
            sweep_staging(volume)
        }
        moved => moved.context(context),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe cannot be synced: nothing points at a release whose name is not known to be on the disk.
    #[test]
    fn the_name_of_a_release_is_on_the_disk_before_anything_points_at_it() {
        let above = tempfile::tempdir().unwrap();
        let volume = Volume::open(&above.path().join("volume")).unwrap();
        let id = ReleaseId::parse("0123456789abcdef").unwrap();
        std::fs::create_dir(above.path().join("volume/releases").join(id.as_str())).unwrap();
        point_at(&volume, &id).unwrap();
        std::fs::remove_file(above.path().join("volume/current")).unwrap();
        let volume = volume.with_releases(std::io::pipe().unwrap().0.into());
        assert!(point_at(&volume, &id).is_err());
        assert!(above.path().join("volume/current").symlink_metadata().is_err());
    }
}
