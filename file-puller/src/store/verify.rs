//! Is the published release still what was published? And if a file of it is not: put the right one in its place.
//!
//! Every file is read and hashed. A damaged one is fetched again and renamed over, so it gets a new inode: whoever has the
//! damaged one open keeps what he has, the earlier releases that share it are not touched, and every new open is right.
//! This is the one time that a published tree changes, and it changes to what it was.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::fsync::FsyncSet;
use super::publish::point_at;
use super::staging::Staging;
use super::tree::looks_intact;
use super::volume::{Context as _, RELEASES, Volume, VolumeError};
use crate::content::{Digest, Manifest, ManifestFile, ReleaseId};
use crate::crash_point::crash_point;

/// The files of a release that are missing or not what its manifest says, as a manifest of their own.
pub(crate) fn damaged(volume: &Volume, id: &ReleaseId, manifest: &Manifest) -> Result<Manifest, VolumeError> {
    let tree = volume.open_release(id)?;
    let sound = |file: &&ManifestFile| {
        looks_intact(tree.as_fd(), &file.path, file)
            && digest(&tree, file).is_ok_and(|digest| digest == file.digest)
    };
    let files = manifest.files.iter().filter(|file| !sound(file)).cloned().collect();
    Ok(Manifest { created: manifest.created, files })
}

/// Moves staged files over the damaged ones, and shows readers that something has changed.
pub(crate) fn restore(staging: &Staging, manifest: &Manifest) -> Result<(), VolumeError> {
    let (volume, id) = (staging.volume(), staging.id());
    let tree = volume.open_release(id)?;
    let context = |name: &str| format!("restore {volume}/{RELEASES}/{id}/{name}");
    staging.flush()?;
    let fsync_set = FsyncSet::new();
    for directory in manifest.directories() {
        match rustix::fs::mkdirat(&tree, directory, Mode::from_raw_mode(0o755)) {
            Ok(()) => fsync_set.created(directory),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error).context(|| context(directory)),
        }
        crash_point();
    }
    for file in &manifest.files {
        let path = file.path.as_str();
        rustix::fs::renameat(staging.tree(), path, &tree, path).context(|| context(path))?;
        fsync_set.moved(path);
        crash_point();
    }
    let synced = fsync_set.flush(volume.root(), tree.as_fd(), None);
    synced.context(|| format!("sync the repair of {id} to the disk of {volume}"))?;
    // The link says what it said before. That it is a new one tells readers who keep files open, or in memory, to look again.
    point_at(volume, id)
}

fn digest(tree: &std::os::fd::OwnedFd, file: &ManifestFile) -> io::Result<Digest> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(tree, file.path.as_str(), flags, Mode::empty())?);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::of(hasher)),
            read => hasher.update(&buffer[..read]),
        }
    }
}
