//! What `--group-write` adds to releases that were made without it.
//!
//! A directory can be moved away only by a user who may write it, so without this another user of the group could never remove an old
//! release of the first one's, nor exchange a damaged one.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{FileType, Mode};

use super::create::{add_group_rights, open_directory, open_file};
use super::directory::entries;
use super::volume::{Context as _, RELEASES, Volume, VolumeError, manifest_name};
use crate::content::ReleaseId;

/// Lets the volume's group write the directories and manifests of this user's releases, if `--group-write` is given.
pub(crate) fn open_to_group(volume: &Volume) {
    if volume.directory_mode().contains(Mode::WGRP)
        && let Err(error) = open_releases(volume)
    {
        // Only other users need the right, so this one goes on.
        tracing::warn!(%error, "releases that were made without --group-write stay closed to the group");
    }
}

fn open_releases(volume: &Volume) -> Result<(), VolumeError> {
    for id in volume.names(ReleaseId::parse)? {
        let context = || format!("give {volume}/{RELEASES}/{id} to its group");
        if let Ok(manifest) = open_file(volume.releases(), &*manifest_name(&id)) {
            add_group_rights(&manifest, volume.manifest_mode().as_mode()).context(context)?;
        }
        open_tree(volume.open_release(&id)?.as_fd(), volume.directory_mode()).context(context)?;
    }
    Ok(())
}

fn open_tree(directory: BorrowedFd<'_>, mode: Mode) -> io::Result<()> {
    let stat = rustix::fs::fstat(directory)?;
    let is_ours = stat.st_uid == rustix::process::geteuid().as_raw();
    if !is_ours || Mode::from_raw_mode(stat.st_mode).contains(Mode::WGRP) {
        return Ok(());
    }
    for entry in entries(directory)? {
        let entry = entry?;
        // Some file systems do not tell what an entry is.
        if matches!(entry.file_type(), FileType::Directory | FileType::Unknown)
            && let Ok(below) = open_directory(directory, entry.file_name())
        {
            open_tree(below.as_fd(), mode)?;
        }
    }
    // Last, so that a directory which has the right proves that all beneath it have it.
    Ok(add_group_rights(directory, mode)?)
}
