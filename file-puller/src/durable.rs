//! From memory to the disk: what has to be there before anybody is told that it is.
//!
//! There are two ways, and each is far too slow where the other one is right. `syncfs(2)` takes one call for any number of files,
//! and waits for whatever anybody else has written to the same file system: on a busy node that can be gigabytes. `fsync(2)` waits
//! for one file or directory, and mostly for the disk's own cache. So what was changed is noted while it is changed: few names
//! are synced by themselves, many in one call (measured: `docs/benchmarks.md`).
//!
//! The kernel tells of bytes that it could not write to whoever had the file open at that time; to those who open it later only as
//! long as it remembers the file. So what was written is kept open until it is synced.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
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
    /// With the file, where it was written.
    Few(BTreeMap<Box<str>, Option<File>>),
    Many,
}

impl Unsynced {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Names::Few(BTreeMap::new())))
    }

    /// Notes that the tree's own directory was made.
    pub(crate) fn note_root(&self) {
        self.note(".", None);
    }

    /// Notes a file or directory that was made: its content, and its name in the directory that holds it.
    pub(crate) fn made(&self, path: &str) {
        self.note(path, None);
        self.note(holder(path), None);
    }

    /// Keeps a file that was made until it is synced; among many, nothing needs to be kept.
    pub(crate) fn written(&self, path: &str, file: File) {
        self.note(path, Some(file));
    }

    /// Notes that a name was given or taken away; what it stands for is on the disk, or gone.
    pub(crate) fn renamed(&self, path: &str) {
        if let Names::Few(few) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            few.remove(path);
        }
        self.note(holder(path), None);
    }

    /// What will be synced by itself, or `None` where everything will be.
    #[cfg(test)]
    pub(crate) fn names(&self) -> Option<Vec<String>> {
        match &*self.0.lock().unwrap() {
            Names::Few(few) => Some(few.keys().map(ToString::to_string).collect()),
            Names::Many => None,
        }
    }

    /// What is kept open until then.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> Vec<String> {
        match &*self.0.lock().unwrap() {
            Names::Few(few) => {
                few.iter().filter(|(_, file)| file.is_some()).map(|(path, _)| path.to_string()).collect()
            }
            Names::Many => Vec::new(),
        }
    }

    fn note(&self, path: &str, file: Option<File>) {
        // A map is whole at any moment, whatever became of the thread that added to it.
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Names::Few(few) = &mut *names else { return };
        match few.get_mut(path) {
            Some(kept) => *kept = file.or(kept.take()),
            None => drop(few.insert(path.into(), file)),
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
        beside: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Names::Few(few) = &mut *names else {
            // A write-back error is reported since Linux 5.8, whoever has had which file open.
            return Ok(rustix::fs::syncfs(volume.root())?);
        };
        let noted = few.iter().map(|(name, file)| match file {
            Some(file) => One::Open(file.as_fd()),
            None => One::Named(tree, name),
        });
        all_to_disk(&noted.chain(beside.map(One::Open)).collect::<Vec<_>>())?;
        // Before anybody sees them: a program that somebody has open for writing cannot be run.
        for file in few.values_mut() {
            *file = None;
        }
        Ok(())
    }
}

/// The directory that holds it.
fn holder(path: &str) -> &str {
    path.rsplit_once('/').map_or(".", |(directory, _)| directory)
}

/// Waits until each of these, beneath the tree, is on the disk by itself, however many they are: for what is not urgent, and
/// should not take as long as everybody else's data.
pub(crate) fn each_to_disk<'n>(tree: BorrowedFd<'n>, names: impl Iterator<Item = &'n str>) -> io::Result<()> {
    all_to_disk(&names.map(|name| One::Named(tree, name)).collect::<Vec<_>>())
}

/// A file or directory to be synced.
#[derive(Clone, Copy)]
enum One<'n> {
    Open(BorrowedFd<'n>),
    Named(BorrowedFd<'n>, &'n str),
}

fn all_to_disk(all: &[One<'_>]) -> io::Result<()> {
    // The disk empties its cache once for all who ask for that at the same time.
    thread::scope(|scope| {
        let mut shares = all.chunks(all.len().div_ceil(AT_A_TIME).max(1));
        let own = shares.next().unwrap_or_default();
        let spawn = |share| (share, thread::Builder::new().spawn_scoped(scope, move || share_to_disk(share)));
        let others: Vec<_> = shares.map(spawn).collect();
        share_to_disk(own)?;
        // Where the system has no more threads, this one does.
        others.into_iter().try_for_each(|(share, other)| {
            other.ok().and_then(|other| other.join().ok()).unwrap_or_else(|| share_to_disk(share))
        })
    })
}

fn share_to_disk(share: &[One<'_>]) -> io::Result<()> {
    for one in share {
        match one.to_disk() {
            // Made, and taken away again: that its directory lost it is noted, too.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            synced => synced?,
        }
    }
    Ok(())
}

impl One<'_> {
    /// Waits until it is on the disk, mode and all; that is why `fdatasync` would not do.
    fn to_disk(self) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match self {
            Self::Open(file) => rustix::fs::fsync(file),
            Self::Named(tree, name) => {
                rustix::fs::fsync(rustix::fs::openat(tree, name, flags, Mode::empty())?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::FileType;

    #[test]
    fn what_is_made_is_noted_with_its_directory_and_what_is_renamed_by_its_directory_alone() {
        let unsynced = Unsynced::new();
        unsynced.made("css");
        unsynced.made("css/site.css");
        unsynced.renamed("img/2/pod.svg");
        unsynced.renamed("index.html");
        assert_eq!(unsynced.names().unwrap(), [".", "css", "css/site.css", "img/2"]);
        // Something that is on the disk takes its place.
        unsynced.renamed("css/site.css");
        assert_eq!(unsynced.names().unwrap(), [".", "css", "img/2"]);
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
        unsynced.written("d/1", File::open("/dev/null").unwrap());
        assert_eq!(unsynced.names(), None);
    }

    fn volume() -> (tempfile::TempDir, Volume) {
        let above = tempfile::tempdir().unwrap();
        let volume = Volume::open(&above.path().join("volume")).unwrap();
        (above, volume)
    }

    /// A pipe cannot be synced, and says so. That shows for every place in the list that it is.
    #[test]
    fn every_name_that_is_there_is_synced() {
        let (above, volume) = volume();
        let names: Vec<_> = (0..FEW + 9).map(|number| format!("{number:03}")).collect();
        let path = |name: &str| above.path().join("volume/releases").join(name);
        for name in &names {
            std::fs::write(path(name), "").unwrap();
        }
        let unsynced = Unsynced::new();
        names[..FEW - 1].iter().for_each(|name| unsynced.made(name));
        let sync = || unsynced.to_disk(&volume, volume.releases(), None);
        let sync_each = || each_to_disk(volume.releases(), names.iter().map(String::as_str));
        for (number, name) in names.iter().enumerate() {
            std::fs::remove_file(path(name)).unwrap();
            // What was noted and is gone is no failure.
            assert!(sync().is_ok() && sync_each().is_ok());
            rustix::fs::mknodat(volume.releases(), &**name, FileType::Fifo, Mode::RUSR, 0).unwrap();
            assert_eq!(sync().is_err(), number < FEW - 1, "{name} among few");
            assert!(sync_each().is_err(), "{name} among any number");
            std::fs::remove_file(path(name)).unwrap();
            std::fs::write(path(name), "").unwrap();
        }
    }

    /// The name stands for a file that can be synced, what was kept open for it is a pipe.
    #[test]
    fn what_was_written_is_synced_as_it_was_kept_open() {
        let (above, volume) = volume();
        std::fs::write(above.path().join("volume/releases/file"), "").unwrap();
        let pipe = || File::from(std::os::fd::OwnedFd::from(std::io::pipe().unwrap().0));
        let unsynced = Unsynced::new();
        unsynced.made("file");
        unsynced.to_disk(&volume, volume.releases(), None).unwrap();
        assert!(unsynced.to_disk(&volume, volume.releases(), Some(pipe().as_fd())).is_err());
        unsynced.written("file", pipe());
        assert!(unsynced.to_disk(&volume, volume.releases(), None).is_err());
        // Another file took its place.
        unsynced.renamed("file");
        unsynced.to_disk(&volume, volume.releases(), None).unwrap();
    }
}
