//! System calls that not every file system has, and what is done instead.
//!
//! NFS has no `RENAME_EXCHANGE`, some FUSE file systems have no hard links or no modes, and some refuse to sync a directory. What is
//! missing is named in the log once; what is done instead gives the same result, only slower or with a weaker promise, which the
//! contract states. Only symbolic links have no substitute: a volume without them is refused at the start. A test takes each of them away with `FILE_PULLER_WITHOUT`, if the program has the feature `fault-points`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, RenameFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::crash_point::lacks;

/// Whether an error says that the file system does not have the operation, rather than that it failed.
pub(super) fn is_missing(error: Errno) -> bool {
    matches!(error, Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOTTY)
}

/// Says once for each operation that it is missing.
fn warn_once(said: &AtomicBool, operation: &str, instead: &str) {
    if !said.swap(true, Ordering::Relaxed) {
        tracing::warn!("the volume's file system has no {operation}: {instead}");
    }
}

/// Hard-links a file, where the file system has hard links and allows one more.
pub(super) fn link(from: BorrowedFd<'_>, old: &str, to: BorrowedFd<'_>, new: &str) -> Result<(), Errno> {
    if lacks("link") {
        return Err(Errno::PERM);
    }
    rustix::fs::linkat(from, old, to, new, AtFlags::empty())
}

/// Makes a symbolic link, where the file system has them.
pub(super) fn symlink(target: &str, beneath: impl AsFd, name: &str) -> Result<(), Errno> {
    if lacks("symlink") {
        return Err(Errno::PERM);
    }
    rustix::fs::symlinkat(target, beneath, name)
}

/// Sets the mode of a file or directory of our own.
pub(super) fn chmod(beneath: impl AsFd, name: impl Arg, mode: Mode) -> Result<(), Errno> {
    unless_without_modes(|| rustix::fs::chmodat(beneath, name, mode, AtFlags::empty()))
}

/// The same for one that is open.
pub(super) fn fchmod(file: impl AsFd, mode: Mode) -> Result<(), Errno> {
    unless_without_modes(|| rustix::fs::fchmod(file, mode))
}

/// A file system without modes refuses to set one, and has none to get wrong. The volume says so at the start.
fn unless_without_modes(set: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    match if lacks("chmod") { Err(Errno::PERM) } else { set() } {
        Err(error) if error == Errno::PERM || is_missing(error) => Ok(()),
        set => set,
    }
}

/// Lets two names change places at once. `false` where the file system cannot.
pub(super) fn exchange(
    from: BorrowedFd<'_>,
    old: &str,
    to: BorrowedFd<'_>,
    new: &str,
) -> Result<bool, Errno> {
    static SAID: AtomicBool = AtomicBool::new(false);
    let exchanged = if lacks("exchange") {
        Err(Errno::INVAL)
    } else {
        rustix::fs::renameat_with(from, old, to, new, RenameFlags::EXCHANGE)
    };
    match exchanged {
        Ok(()) => Ok(true),
        Err(error) if is_missing(error) => {
            let instead = "a damaged release is gone for an instant while it is replaced";
            warn_once(&SAID, "RENAME_EXCHANGE", instead);
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Writes everything that is in memory of the volume to its disk. `false` where that cannot be asked for.
pub(super) fn sync_file_system(root: BorrowedFd<'_>) -> Result<bool, Errno> {
    static SAID: AtomicBool = AtomicBool::new(false);
    match if lacks("syncfs") { Err(Errno::NOSYS) } else { rustix::fs::syncfs(root) } {
        Ok(()) => Ok(true),
        Err(error) if is_missing(error) => {
            warn_once(&SAID, "syncfs", "every file is synced by itself");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Writes a directory's entries to the disk, where the file system can be asked to.
pub(super) fn sync_directory(directory: impl AsFd) -> Result<(), Errno> {
    static SAID: AtomicBool = AtomicBool::new(false);
    let is_directory = || {
        let stat = rustix::fs::fstat(&directory);
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    };
    match if lacks("fsync-directory") { Err(Errno::INVAL) } else { rustix::fs::fsync(&directory) } {
        Err(error) if (is_missing(error) || error == Errno::BADF) && is_directory() => {
            let instead = "after a power failure the volume may show an earlier release";
            warn_once(&SAID, "fsync of directories", instead);
            Ok(())
        }
        synced => synced,
    }
}

/// How an attempt to lock went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    Held,
    HeldByAnother,
    Missing,
}

/// Locks a file or directory for this node's processes.
pub(super) fn flock(handle: impl AsFd) -> io::Result<Lock> {
    if lacks("locks") {
        // As if every lock succeeded, also one that another process holds.
        return Ok(Lock::Held);
    }
    outcome(if lacks("flock") { Err(Errno::NOLCK) } else { rustix::fs::flock(handle, EXCLUSIVE) })
}

/// Locks a file as `fcntl(2)` does: NFS and most cluster file systems forward this lock to their server. Closing any other handle
/// on the file in this process gives the lock back, so nothing else may open the file.
pub(super) fn fcntl_lock(file: impl AsFd) -> io::Result<Lock> {
    if lacks("locks") {
        return Ok(Lock::Held);
    }
    outcome(rustix::fs::fcntl_lock(file, EXCLUSIVE))
}

/// Shares that lock, which no process can while another holds it. A file that is open to be read only is enough for this.
pub(super) fn share_fcntl_lock(file: impl AsFd) -> io::Result<Lock> {
    if lacks("locks") {
        return Ok(Lock::Held);
    }
    outcome(rustix::fs::fcntl_lock(file, FlockOperation::NonBlockingLockShared))
}

const EXCLUSIVE: FlockOperation = FlockOperation::NonBlockingLockExclusive;

fn outcome(locked: Result<(), Errno>) -> io::Result<Lock> {
    match locked {
        Ok(()) => Ok(Lock::Held),
        Err(Errno::WOULDBLOCK | Errno::ACCESS) => Ok(Lock::HeldByAnother),
        Err(error) if is_missing(error) || error == Errno::NOLCK => Ok(Lock::Missing),
        Err(error) => Err(error.into()),
    }
}
