//! Makes a staged release the one that everybody reads, in one step and for good.
//!
//! The order is what makes a crash harmless. (1) The staged tree reaches the disk. (2) Its manifest, then the tree itself, get
//! their names under `releases/`: from here on the release is complete, and a restart only has to point at it. (3) A new
//! link is renamed over `current`, which is the one instant at which anything changes for a reader. (4) The directories whose
//! entries changed reach the disk, so that a power cut takes none of it back.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::fault;
use crate::manifest::Manifest;
use crate::release::ReleaseId;
use crate::stage::Staging;
use crate::volume::{
    CURRENT, DIRECTORY, Doing as _, RELEASES, Volume, VolumeError, link_text, manifest_name,
};

/// New files that are synced one by one: each waits for the disk, so beyond this one wait for all is shorter.
const FEW_FILES: usize = 16;
/// Directories that are: most of them are on the disk with the first, and cost no more than being asked.
const FEW_DIRECTORIES: usize = 1000;

/// Publishes a staged release, of whose files these are new on the volume.
///
/// # Errors
/// Where the volume refuses; `current` then names what it named before.
pub fn publish(staging: &Staging, manifest: &Manifest, new: &[usize]) -> Result<(), VolumeError> {
    let (volume, id) = (staging.volume(), staging.id());
    settle(staging, manifest, new).doing(|| format!("sync release {id} to the disk of {volume}"))?;
    fault::point();
    place(volume, id)?;
    fault::point();
    rustix::fs::fsync(volume.releases()).doing(|| format!("sync {volume}/{RELEASES}"))?;
    point_at(volume, id)
}

/// Waits until all of the release is on the disk.
fn settle(staging: &Staging, manifest: &Manifest, new: &[usize]) -> io::Result<()> {
    let volume = staging.volume();
    let directories = manifest.directories();
    if new.len() > FEW_FILES || directories.len() > FEW_DIRECTORIES {
        // One call for the whole tree. The price is that a neighbour's unwritten data on the same file system is waited for,
        // too. A write-back error is reported since Linux 5.8.
        return Ok(rustix::fs::syncfs(volume.root())?);
    }
    // Files that are links to those of earlier releases were synced with them. What is new besides is their names.
    let tree = staging.tree();
    for index in new {
        sync(tree, manifest.files[*index].path.as_str(), OFlags::NOFOLLOW)?;
    }
    sync(volume.staging(), &manifest_name(staging.id()), OFlags::NOFOLLOW)?;
    for directory in directories {
        sync(tree, directory, DIRECTORY)?;
    }
    Ok(rustix::fs::fsync(tree)?)
}

fn sync(beneath: BorrowedFd<'_>, path: &str, flags: OFlags) -> io::Result<()> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::fsync(rustix::fs::openat(beneath, path, flags, Mode::empty())?)?)
}

/// Points `current` at a release that is in its place.
///
/// # Errors
/// Where the volume refuses; `current` then names what it named before.
pub fn point_at(volume: &Volume, id: &ReleaseId) -> Result<(), VolumeError> {
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
