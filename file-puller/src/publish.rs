//! Makes a staged release the one that everybody reads, in one step and for good.
//!
//! The order is what makes a crash harmless. (1) The staged tree reaches the disk. (2) Its manifest, then the tree itself, get
//! their names under `releases/`: from here on the release is complete, and a restart only has to point at it, once these names
//! have reached the disk. (3) A new
//! link is renamed over `current`, which is the one instant at which anything changes for a reader. (4) The directories whose
//! entries changed reach the disk, so that a power cut takes none of it back.

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use crate::fault;
use crate::release::ReleaseId;
use crate::stage::Staging;
use crate::volume::{CURRENT, Doing as _, RELEASES, Volume, VolumeError, link_text, manifest_name};

/// Publishes a staged release.
///
/// # Errors
/// Where the volume refuses; `current` then names what it named before.
pub fn publish(staging: &Staging) -> Result<(), VolumeError> {
    let (volume, id) = (staging.volume(), staging.id());
    staging.to_disk()?;
    fault::point();
    place(volume, id)?;
    fault::point();
    point_at(volume, id)
}

/// Points `current` at a release that is in its place.
///
/// # Errors
/// Where the volume refuses; `current` then names what it named before.
pub fn point_at(volume: &Volume, id: &ReleaseId) -> Result<(), VolumeError> {
    // Also where the release has been there before: whoever put it there may not have come so far.
    rustix::fs::fsync(volume.releases()).doing(|| format!("sync {volume}/{RELEASES}"))?;
    let doing = || format!("point {volume}/{CURRENT} at release {id}");
    match rustix::fs::unlinkat(volume.staging(), CURRENT, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error).doing(doing),
    }
    rustix::fs::symlinkat(link_text(id), volume.staging(), CURRENT).doing(doing)?;
    fault::point();
    rustix::fs::renameat(volume.staging(), CURRENT, volume.root(), CURRENT).doing(doing)?;
    fault::point();
    rustix::fs::fsync(volume.root()).doing(|| format!("sync {volume}"))
}

/// Moves manifest and tree from staging to their names.
fn place(volume: &Volume, id: &ReleaseId) -> Result<(), VolumeError> {
    let doing = || format!("put release {id} in its place in {volume}/{RELEASES}");
    let (staging, releases) = (volume.staging(), volume.releases());
    let manifest = manifest_name(id);
    rustix::fs::renameat(staging, &manifest, releases, &manifest).doing(doing)?;
    fault::point();
    match rustix::fs::renameat(staging, id.as_str(), releases, id.as_str()) {
        // A damaged tree of the same release is in the way. It may be the current one, so the two change places at once, and
        // the damaged one is swept from staging.
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            let exchange = RenameFlags::EXCHANGE;
            rustix::fs::renameat_with(staging, id.as_str(), releases, id.as_str(), exchange).doing(doing)?;
            fault::point();
            volume.sweep_staging()
        }
        moved => moved.doing(doing),
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
