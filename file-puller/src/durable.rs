//! From memory to the disk: what has to be there before anybody is told that it is.
//!
//! There are two ways, and each is far too slow where the other one is right. `syncfs(2)` takes one call for any number of files,
//! and waits for whatever anybody else has written to the same file system: on a busy node that can be gigabytes. `fsync(2)` waits
//! for one file or directory, and mostly for the disk's own cache. So what was changed is noted while it is changed: few names
//! are synced by themselves, many in one call (measured: `docs/benchmarks.md`).

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::volume::Volume;

/// Files and directories up to which each is synced by itself.
const FEW: usize = 64;
/// How many of them at a time.
const AT_A_TIME: usize = 8;

/// What was changed in a tree since it was last on the disk.
#[derive(Debug)]
pub(crate) struct Unsynced(Mutex<Names>);

#[derive(Debug)]
enum Names {
    Few(BTreeSet<Box<str>>),
    Many,
}

impl Unsynced {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Names::Few(BTreeSet::new())))
    }

    /// Notes that the tree's own directory was made.
    pub(crate) fn note_root(&self) {
        self.note(".");
    }

    /// Notes a file or directory that was made: its content, and its name in the directory that holds it.
    pub(crate) fn made(&self, path: &str) {
        self.note(path);
        self.renamed(path);
    }

    /// Notes that a name was given or taken away; what it stands for is on the disk, or gone.
    pub(crate) fn renamed(&self, path: &str) {
        self.note(path.rsplit_once('/').map_or(".", |(directory, _)| directory));
    }

    /// What will be synced by itself, or `None` where everything will be.
    #[cfg(test)]
    pub(crate) fn names(&self) -> Option<Vec<String>> {
        match &*self.0.lock().unwrap() {
            Names::Few(few) => Some(few.iter().map(ToString::to_string).collect()),
            Names::Many => None,
        }
    }

    fn note(&self, path: &str) {
        // A set is whole at any moment, whatever became of the thread that added to it.
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Names::Few(few) = &mut *names else { return };
        if !few.contains(path) {
            few.insert(path.into());
        }
        if few.len() > FEW {
            *names = Names::Many;
        }
    }

    /// Waits until all of it is on the disk, and so is a file beside the tree, if there is one.
    pub(crate) fn to_disk(
        &self,
        volume: &Volume,
        tree: BorrowedFd<'_>,
        beside: Option<(BorrowedFd<'_>, &str)>,
    ) -> io::Result<()> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Names::Few(few) = &*names else {
            // A write-back error is reported since Linux 5.8.
            return Ok(rustix::fs::syncfs(volume.root())?);
        };
        let beside = beside.into_iter();
        let names: Vec<_> = few.iter().map(|name| (tree, &**name)).chain(beside).collect();
        // The disk empties its cache once for all who ask for that at the same time.
        thread::scope(|scope| {
            let mut shares = names.chunks(names.len().div_ceil(AT_A_TIME).max(1));
            let own = shares.next().unwrap_or_default();
            let spawn = |share| (share, thread::Builder::new().spawn_scoped(scope, move || sync_all(share)));
            let others: Vec<_> = shares.map(spawn).collect();
            sync_all(own)?;
            // Where the system has no more threads, this one does.
            others.into_iter().try_for_each(|(share, other)| {
                other.ok().and_then(|other| other.join().ok()).unwrap_or_else(|| sync_all(share))
            })
        })
    }
}

fn sync_all(names: &[(BorrowedFd<'_>, &str)]) -> io::Result<()> {
    for (directory, name) in names {
        match sync(directory, name) {
            // Made, and taken away again: that its directory lost it is noted, too.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// Waits until a file or directory is on the disk, mode and all; that is why `fdatasync` would not do.
pub(crate) fn sync(beneath: impl AsFd, name: &str) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::fsync(rustix::fs::openat(beneath, name, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_noted_with_its_directory_and_what_is_renamed_by_its_directory_alone() {
        let unsynced = Unsynced::new();
        unsynced.made("css");
        unsynced.made("css/site.css");
        unsynced.renamed("img/2/pod.svg");
        unsynced.renamed("index.html");
        assert_eq!(unsynced.names().unwrap(), [".", "css", "css/site.css", "img/2"]);
    }

    #[test]
    fn many_are_counted_and_not_listed() {
        let unsynced = Unsynced::new();
        for file in 1..FEW {
            unsynced.made(&format!("d/{file}"));
            unsynced.made(&format!("d/{file}"));
        }
        assert_eq!(unsynced.names().unwrap().len(), FEW);
        unsynced.renamed("e/f");
        assert_eq!(unsynced.names(), None);
    }

    /// What was noted and is gone is no failure; what cannot be synced is one.
    #[test]
    fn every_name_that_is_there_is_synced() {
        let above = tempfile::tempdir().unwrap();
        let volume = Volume::open(&above.path().join("volume")).unwrap();
        let unsynced = Unsynced::new();
        unsynced.made("gone/file");
        unsynced.to_disk(&volume, volume.releases(), None).unwrap();
        std::os::unix::fs::symlink("x", above.path().join("volume/releases/link")).unwrap();
        unsynced.made("link");
        assert!(unsynced.to_disk(&volume, volume.releases(), None).is_err());
    }
}
