//! What has to reach the disk before the kernel can have its memory back: [`Backlog`].
//!
//! A file system with a journal keeps each block of names or inodes that was changed until it is in the journal, then in its own
//! place on the disk, and then until the journal commits the next time (jbd2's checkpoint list; the shrinker that would empty it
//! earlier is not run for a container's limit). Until then these blocks count as the container's memory and cannot be reclaimed,
//! so a hundred thousand names that are changed at once end a container of 64 MiB. So changes are counted, and written before they are
//! too many. Without a limit nothing is counted.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use lifecycle::Ignore as _;
use lifecycle::cgroup::{memory_left, memory_limit};
use parking_lot::Mutex;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use super::create::open_directory;
use super::sys;

/// The part of the limit that changes may hold in any case.
const SHARE: u64 = 16;
/// Where more than this part of the limit is left, they may hold more.
const LEFT: u64 = 4;
/// Bytes that a new file holds, besides its name: its inode in memory and on the disk, next to others that are new.
const FILE: u64 = 2048;
/// Bytes that a new directory holds: a block of its own besides.
const DIRECTORY: u64 = 10 * 1024;
/// Bytes that an old file holds: its part of a block of inodes, of which not all change at the same time.
const OLD: u64 = 1024;

/// Counts what the changes to one volume hold of the container's memory.
#[derive(Debug)]
pub(super) struct Backlog(Option<Limited>);

#[derive(Debug)]
struct Limited {
    limit: u64,
    /// A directory of the volume that no reader sees. The handle is its own, and its errors are not those of other handles.
    directory: OwnedFd,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: u64,
    /// Above this they are compared with what is left.
    threshold: u64,
    /// Why something could not be written.
    error: Option<Errno>,
}

impl Backlog {
    /// Of a container with a memory limit, else one that counts nothing.
    pub(super) fn new(directory: BorrowedFd<'_>) -> Self {
        Self::within(memory_limit(), directory)
    }

    fn within(limit: Option<u64>, directory: BorrowedFd<'_>) -> Self {
        let limited = limit.and_then(|limit| {
            let directory = open_directory(directory, ".").ok()?;
            let held = Held { threshold: limit / SHARE, ..Held::default() };
            Some(Limited { limit, directory, held: Mutex::new(held) })
        });
        Self(limited)
    }

    /// Notes that a file was made, with this name.
    pub(super) fn made(&self, path: &str) {
        self.add(FILE, path);
    }

    /// Notes that a directory was made.
    pub(super) fn made_directory(&self) {
        self.add(DIRECTORY, "");
    }

    /// Notes that something which was there got this name, or lost it.
    pub(super) fn moved(&self, path: &str) {
        self.add(OLD, path);
    }

    /// The error of a write since this was last asked. The system has reported it here, and reports it no second time.
    pub(super) fn take_error(&self) -> Result<(), Errno> {
        self.0.as_ref().and_then(|limited| limited.held.lock().error.take()).map_or(Ok(()), Err)
    }

    /// Adds a change. The thread whose change is one too many writes them all, and the others wait for that: the backlog does not grow
    /// meanwhile.
    fn add(&self, bytes: u64, path: &str) {
        let Some(limited) = &self.0 else { return };
        let name = path.rsplit('/').next().map_or(0, str::len) as u64;
        let mut held = limited.held.lock();
        // Blocks of names are half full where a directory grows.
        held.bytes += bytes + 2 * name;
        if held.bytes <= held.threshold {
            return;
        }
        let share = limited.limit / SHARE;
        if memory_left().is_some_and(|left| left > limited.limit / LEFT) {
            held.threshold = held.bytes + share;
        } else {
            *held = Held { bytes: 0, threshold: share, error: limited.write().err().or(held.error) };
        }
    }
}

impl Limited {
    /// Writes all changes, and then two more: a commit begins with letting go of what the ones before it have written, up to the first
    /// block that it changes itself, and the next one lets go of the rest.
    fn write(&self) -> Result<(), Errno> {
        sys::sync_file_system(self.directory.as_fd())?;
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        for _ in 0..2 {
            rustix::fs::futimens(&self.directory, &times).ignore();
            sys::sync_file_system(self.directory.as_fd())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1024 * 1024;

    fn held(backlog: &Backlog) -> u64 {
        backlog.0.as_ref().unwrap().held.lock().bytes
    }

    /// In this process nothing is left of such a limit, or nothing is known of it.
    #[test]
    fn changes_are_written_before_they_hold_too_much() {
        let directory = tempfile::tempdir().unwrap();
        let handle = std::fs::File::open(directory.path()).unwrap();
        let backlog = Backlog::within(Some(LIMIT), handle.as_fd());
        let mut times = 0;
        let mut before = 0;
        for _ in 0..100 {
            backlog.made("directory/name");
            backlog.moved("name");
            backlog.made_directory();
            times += u32::from(held(&backlog) < before);
            before = held(&backlog);
            assert!(before <= LIMIT / SHARE || memory_left().is_some(), "{before}");
        }
        assert!(times > 10 || memory_left().is_some(), "{times}");
        assert_eq!(backlog.take_error(), Ok(()));
        assert!(Backlog::within(None, handle.as_fd()).0.is_none());
    }

    /// A pipe cannot be synced, and says so.
    #[test]
    fn what_could_not_be_written_is_told_once() {
        let limited = Limited {
            limit: 0,
            directory: std::io::pipe().unwrap().0.into(),
            held: Mutex::new(Held { error: Some(Errno::IO), ..Held::default() }),
        };
        let backlog = Backlog(Some(limited));
        backlog.made("name");
        assert_eq!([backlog.take_error(), backlog.take_error()], [Err(Errno::IO), Ok(())]);
    }
}
