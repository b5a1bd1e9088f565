//! The private directory of one process, `.staging/process-…/`: what it puts together, and what it takes away.
//!
//! Its owner holds a lock on the file `lock` in it. A process that starts sweeps the directories whose lock is free. It
//! renames each out of the way first: if the lock is one that a file system only pretends to have, the other process finds its
//! directory gone at the one step that counts, the rename of a whole tree to its place, and publishes nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifecycle::Ignore as _;
use rustix::fs::{AtFlags, DirEntry, Mode};
use rustix::io::Errno;
use rustix::path::Arg;

use super::backlog::Backlog;
use super::create::{make_directory, open_directory, open_file, open_lock_file};
use super::directory::{entries, remove};
use super::sys::{self, Lock};
use crate::crash_point::crash_point;

/// In it: a copy of the current release, which stays there from one sync to the next.
pub(super) const SEED: &str = "seed";
/// In it: the files that have arrived.
pub(super) const OBJECTS: &str = "objects";
/// In it: the files of an archive, a commit or an image.
pub(super) const UNPACKED: &str = "unpacked";
/// How the name of every private directory begins.
pub(super) const PREFIX: &str = "process-";
/// In it: a signed manifest and its signature, until they become a release's.
pub(super) const SIGNED: &str = "signed.json";
pub(super) const SIGNED_SIGNATURE: &str = "signed.json.sig";
/// The file in it that its owner has locked.
const LOCK: &str = "lock";

/// A directory that only this process uses.
#[derive(Debug)]
pub(crate) struct Private {
    name: String,
    directory: OwnedFd,
    path: PathBuf,
    _lock: OwnedFd,
    backlog: Arc<Backlog>,
}

impl Private {
    /// Makes one in the directory `staging`, which lies at `path`.
    pub(super) fn create(
        staging: BorrowedFd<'_>,
        path: &Path,
        mode: Mode,
        backlog: &Arc<Backlog>,
    ) -> io::Result<Self> {
        let name = format!("{PREFIX}{:016x}", fastrand::u64(..));
        make_directory(staging, &name, mode)?;
        let directory = open_directory(staging, &name)?;
        let lock = open_lock_file(&directory, LOCK)?;
        sys::fcntl_lock(&lock)?;
        let path = path.join(&name);
        Ok(Self { name, directory, path, _lock: lock, backlog: Arc::clone(backlog) })
    }

    /// A handle on it.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Its name in `.staging`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The name in `.staging` of something in it. A rename by this name fails once another process has swept the directory;
    /// by the handle, it would not.
    pub(super) fn beneath(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }

    /// Whether it is still where it was made.
    pub(super) fn is_in_place(&self, staging: BorrowedFd<'_>) -> bool {
        same_file(staging, &self.name, self.directory())
    }

    /// Removes what an attempt to sync left in it, but not the seed tree, and not the objects, which
    /// the next can use, and not a signed manifest, which its owner removes.
    pub(super) fn clear(&self) -> io::Result<()> {
        // Only where it is empty.
        rustix::fs::unlinkat(&self.directory, OBJECTS, AtFlags::REMOVEDIR).ignore();
        for entry in entries(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name
                .to_str()
                .is_ok_and(|name| matches!(name, LOCK | SEED | OBJECTS | SIGNED | SIGNED_SIGNATURE))
            {
                continue;
            }
            self.take_away(name)?;
            crash_point();
            tracing::debug!(directory = %self.path.display(), name = %name.to_string_lossy(), "swept");
        }
        Ok(())
    }

    /// Removes all objects, of which none is needed once a sync has ended well.
    pub(super) fn remove_objects(&self) {
        // Empty most of the time, because a release takes its objects.
        if rustix::fs::unlinkat(&self.directory, OBJECTS, AtFlags::REMOVEDIR).is_err() {
            // They cost space, and the next start removes what is left.
            self.take_away(OBJECTS).ignore();
        }
    }

    /// Removes something in it, with all that is in that.
    pub(super) fn take_away(&self, name: impl Arg + Copy) -> io::Result<()> {
        remove(self.directory(), name, &self.backlog)
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        let is_lock = |entry: io::Result<DirEntry>| {
            entry.is_ok_and(|entry| entry.file_name().to_bytes() == LOCK.as_bytes())
        };
        entries(&self.directory).is_ok_and(|mut entries| entries.all(is_lock))
    }

    /// Removes it, if nothing is in it.
    pub(super) fn remove(&self, staging: BorrowedFd<'_>) {
        // What stays is swept by the next start.
        rustix::fs::unlinkat(&self.directory, LOCK, AtFlags::empty()).ignore();
        rustix::fs::unlinkat(staging, &self.name, AtFlags::REMOVEDIR).ignore();
    }
}

/// Whether another process owns the private directory of that name.
pub(super) fn has_owner(staging: BorrowedFd<'_>, name: &str) -> bool {
    let path = format!("{name}/{LOCK}");
    match open_file(staging, &*path) {
        // Shared, because another user's file may be one that this process can only read.
        Ok(lock) => sys::share_fcntl_lock(&lock).is_ok_and(|lock| lock == Lock::HeldByAnother),
        // Another user's, which this process may not even look at.
        Err(Errno::ACCESS) => true,
        Err(_) => false,
    }
}

/// Whether a name beneath `directory` stands for the file or directory that `handle` is open on.
pub(super) fn same_file(directory: BorrowedFd<'_>, name: &str, handle: BorrowedFd<'_>) -> bool {
    let named = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    match (named, rustix::fs::fstat(handle)) {
        (Ok(named), Ok(open)) => (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino),
        _ => false,
    }
}
