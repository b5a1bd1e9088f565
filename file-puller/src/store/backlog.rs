//! What has to reach the disk before the kernel can have its memory back: [`Backlog`].
//!
//! A file system with a journal keeps each block of names or inodes that was changed until it is in the journal, then in its own
//! place on the disk, and then until the journal commits the next time (jbd2's checkpoint list; the shrinker that would empty it
//! earlier is not run for a container's limit). Until then these blocks count as the container's memory and cannot be reclaimed,
//! so a hundred thousand names that are changed at once end a container of 64 MiB. So changes are counted, and written before they are
//! too many. Without a limit nothing is counted.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use lifecycle::Ignore as _;
use lifecycle::cgroup::{memory_limit, resident_memory};
use parking_lot::Mutex;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW};

use super::create::open_directory;
use super::sys;

/// The part of what the process leaves of the limit. Its code and the blocks that it reads need more.
const SHARE: u64 = 8;
/// The part of the limit that changes may hold in any case.
const FLOOR: u64 = 16;
/// Bytes that a new file or directory holds, besides its name: its inode in memory and on the disk, next to others that are new.
const NEW: u64 = 2048;
/// Bytes that an old one holds: a whole block of inodes, whose others do not change at the same time.
const OLD: u64 = 4096;

/// Counts what the changes to one volume hold of the container's memory.
#[derive(Debug)]
pub(super) struct Backlog(Option<Limited>);

#[derive(Debug)]
struct Limited {
    limit: u64,
    /// A directory of the volume that no reader sees. The handle is its own: the system reports an error once to each, and
    /// whoever publishes has to see it.
    directory: OwnedFd,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: u64,
    /// Below this they are not too many.
    floor: u64,
}

impl Backlog {
    /// Of a container with a memory limit, else one that counts nothing.
    pub(super) fn new(directory: BorrowedFd<'_>) -> Self {
        Self::within(memory_limit(), directory)
    }

    fn within(limit: Option<u64>, directory: BorrowedFd<'_>) -> Self {
        let limited = limit.and_then(|limit| {
            let directory = open_directory(directory, ".").ok()?;
            Some(Limited { limit, directory, held: Mutex::default() })
        });
        Self(limited)
    }

    /// Notes that a file or directory was made, with this name.
    pub(super) fn made(&self, path: &str) {
        self.add(NEW, path);
    }

    /// Notes that one which was there got this name, or lost it.
    pub(super) fn moved(&self, path: &str) {
        self.add(OLD, path);
    }

    /// Whoever makes them too many waits until they are written, and so do all others: it grows no further meanwhile.
    fn add(&self, bytes: u64, path: &str) {
        let Some(limited) = &self.0 else { return };
        let name = path.rsplit('/').next().map_or(0, str::len) as u64;
        let mut held = limited.held.lock();
        // Blocks of names are half full where a directory grows.
        held.bytes += bytes + 2 * name;
        if held.bytes > held.floor && limited.are_too_many(&mut held) {
            *held = Held::default();
            limited.write();
        }
    }
}

impl Limited {
    /// Writes all changes, and then two more: a commit begins with letting go of what the ones before it have written, up to the first
    /// block that it changes itself, and the next one lets go of the rest.
    fn write(&self) {
        // What cannot be written is told by the flush before anything is published.
        sys::sync_file_system(self.directory.as_fd()).ignore();
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        for _ in 0..2 {
            let times = Timestamps { last_access: now, last_modification: now };
            rustix::fs::futimens(&self.directory, &times).ignore();
            sys::sync_file_system(self.directory.as_fd()).ignore();
        }
    }

    fn are_too_many(&self, held: &mut Held) -> bool {
        let step = self.limit / FLOOR;
        held.floor = held.bytes + step;
        let left = self.limit.saturating_sub(resident_memory().unwrap_or(self.limit));
        held.bytes > step.max(left / SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn held(backlog: &Backlog) -> u64 {
        backlog.0.as_ref().unwrap().held.lock().bytes
    }

    /// What this process takes of the limit is left out of what changes may hold, and a sixteenth of the limit they always may.
    #[test]
    fn changes_are_written_before_they_hold_too_much() {
        let directory = tempfile::tempdir().unwrap();
        let handle = std::fs::File::open(directory.path()).unwrap();
        for (limit, most) in [(MIB, MIB / FLOOR), (1 << 40, u64::MAX)] {
            let backlog = Backlog::within(Some(limit), handle.as_fd());
            let mut before = 0;
            let mut written = false;
            for _ in 0..200 {
                backlog.made("directory/name");
                backlog.moved("name");
                written |= held(&backlog) < before;
                before = held(&backlog);
                assert!(before <= most, "{before} of {limit}");
            }
            assert_eq!(written, most == MIB / FLOOR, "{limit}");
        }
        assert!(Backlog::within(None, handle.as_fd()).0.is_none());
    }
}
