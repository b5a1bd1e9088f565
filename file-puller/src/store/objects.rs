//! Files that had arrived for a sync that failed, by what they are: `objects/<sha256>-<mode>` in the private directory.
//!
//! What arrives is written into the staged tree. When a sync has failed, or a process has ended, its complete files are moved
//! here, so none is fetched twice. A name proves nothing: a file is hashed before it is used.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use lifecycle::Ignore as _;
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::backlog::Backlog;
use super::create::{ensure_directory, open_directory};
use super::directory::entries;
use super::private::{OBJECTS, Private};
use super::tree;
use super::volume::{Context as _, Volume, VolumeError, manifest_id, read_manifest};
use crate::content::{Digest, FileMode, Manifest, ManifestFile};
use crate::crash_point::crash_point;

/// The objects of this process.
#[derive(Debug)]
pub(crate) struct Objects {
    directory: OwnedFd,
    backlog: Arc<Backlog>,
    /// Nothing was there before, so nothing has to be looked for.
    is_new: bool,
    keeps_modes: bool,
}

impl Objects {
    /// The objects that are there, or an empty directory.
    pub(crate) fn open(volume: &Volume) -> Result<Self, VolumeError> {
        let private = volume.private()?;
        let (directory, is_new) = open(private.directory(), volume.directory_mode())
            .context(|| format!("make {}/{OBJECTS}", private.path().display()))?;
        let (backlog, keeps_modes) = (Arc::clone(volume.backlog()), volume.keeps_modes());
        Ok(Self { directory, backlog, is_new, keeps_modes })
    }

    /// Whether this content is there already. What is there under its name and is something else is removed.
    pub(crate) fn has(&self, file: &ManifestFile) -> bool {
        if self.is_new {
            return false;
        }
        let name = object_name(file.content());
        let found = tree::digest(self.directory.as_fd(), &name);
        let is_it = matches!(found, Ok(digest) if digest == file.digest);
        if is_it {
            return !self.keeps_modes || self.give_mode(&name, file.mode).is_ok();
        }
        self.backlog.moved(&name);
        rustix::fs::unlinkat(&self.directory, &*name, AtFlags::empty()).ignore();
        false
    }

    /// Gives an object its mode, which the process that wrote it may have ended before. Most have it, and to set it once more would be
    /// a change.
    fn give_mode(&self, name: &str, mode: FileMode) -> Result<(), Errno> {
        let mode = mode.as_mode();
        let stat = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if Mode::from_raw_mode(stat.st_mode & 0o7777) == mode {
            return Ok(());
        }
        self.backlog.moved(name);
        rustix::fs::chmodat(&self.directory, name, mode, AtFlags::empty())
    }

    /// Moves an object to its place in a tree.
    pub(super) fn take(
        &self,
        content: (Digest, FileMode),
        tree: BorrowedFd<'_>,
        path: &str,
    ) -> Result<(), Errno> {
        let name = object_name(content);
        self.backlog.moved(&name);
        rustix::fs::renameat(&self.directory, &*name, tree, path)
    }
}

/// Makes objects of the files that had arrived for the releases which are staged in `from`. Those are given up with that.
pub(super) fn keep_arrived(from: BorrowedFd<'_>, private: &Private, volume: &Volume) -> io::Result<()> {
    for entry in entries(from)? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().ok().and_then(manifest_id) else { continue };
        let (Ok(tree), Some(manifest)) = (open_directory(from, id.as_str()), read_manifest(from, &id)) else {
            continue;
        };
        let (objects, _) = open(private.directory(), volume.directory_mode())?;
        keep_files(tree.as_fd(), &manifest, objects.as_fd(), volume.backlog());
    }
    Ok(())
}

fn keep_files(tree: BorrowedFd<'_>, manifest: &Manifest, objects: BorrowedFd<'_>, backlog: &Backlog) {
    let mut places: HashMap<_, usize> = HashMap::new();
    for file in &manifest.files {
        *places.entry(file.content()).or_default() += 1;
    }
    for file in &manifest.files {
        let path = file.path.as_str();
        let Ok(stat) = rustix::fs::statat(tree, path, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        // What has more names than places in the tree is an earlier release's.
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && places
                .get(&file.content())
                .is_some_and(|places| usize::try_from(stat.st_nlink).is_ok_and(|names| names <= *places))
            && u64::try_from(stat.st_size) == Ok(file.size)
        {
            backlog.moved(path);
            // What cannot be kept is fetched again.
            rustix::fs::renameat(tree, path, objects, &*object_name(file.content())).ignore();
            crash_point();
        }
    }
}

fn open(private: BorrowedFd<'_>, directory_mode: Mode) -> io::Result<(OwnedFd, bool)> {
    let is_new = ensure_directory(private, OBJECTS, directory_mode)?;
    crash_point();
    Ok((open_directory(private, OBJECTS)?, is_new))
}

fn object_name((digest, mode): (Digest, FileMode)) -> String {
    format!("{digest}-{mode}")
}
