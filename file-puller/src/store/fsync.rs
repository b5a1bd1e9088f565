//! From memory to the disk: what has to be there before it is announced.
//!
//! There are two ways, and each is far too slow where the other one is right. `syncfs(2)` takes one call for any number of files,
//! and waits for all that other programs have written to the same file system: on a busy node that can be gigabytes. `fsync(2)` waits
//! for one file or directory, and mostly for the disk's own cache. So what was changed is noted while it is changed: few names
//! are synced by themselves, many in one call (measured: `docs/benchmarks.md`).
//!
//! The kernel tells of bytes that it could not write to the programs that had the file open at that time; to those that open it later only as
//! long as it remembers the file. So what was written is kept open until it is synced.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;

use lifecycle::Ignore as _;
use parking_lot::Mutex;
use rustix::fs::FileType;
use rustix::io::Errno;

use super::backlog::Backlog;
use super::create::{open_directory, open_file};
use super::directory::entries;
use super::sys;

/// Files and directories up to which each is synced by itself.
pub(super) const FEW: usize = 64;
/// How many of them at a time.
const AT_A_TIME: usize = 8;

/// What was changed in a tree since it was last on the disk.
#[derive(Debug)]
pub(crate) struct FsyncSet {
    names: Mutex<Names>,
    backlog: Arc<Backlog>,
}

#[derive(Debug)]
enum Names {
    /// With the file, where it was written.
    Few(BTreeMap<Box<str>, Option<File>>),
    Many,
}

impl FsyncSet {
    /// Nothing yet; what will be counts on the volume's backlog.
    pub(super) fn new(backlog: &Arc<Backlog>) -> Self {
        Self { names: Mutex::new(Names::Few(BTreeMap::new())), backlog: Arc::clone(backlog) }
    }

    /// Notes a file that was made: its content, and its name in the directory that holds it. A file that is open since it
    /// was written is kept until it is synced; among many, nothing needs to be kept.
    pub(crate) fn created(&self, path: &str, written: Option<File>) {
        self.note(path, written);
        self.note(parent(path), None);
        self.backlog.made(path);
    }

    /// Notes a directory that was made.
    pub(crate) fn created_directory(&self, path: &str) {
        self.note(path, None);
        self.note(parent(path), None);
        self.backlog.made_directory();
    }

    /// Notes that a name was given or taken away; what it stands for is on the disk, or gone.
    pub(crate) fn moved(&self, path: &str) {
        if let Names::Few(few) = &mut *self.names.lock() {
            few.remove(path);
        }
        self.note(parent(path), None);
        self.backlog.moved(path);
    }

    fn note(&self, path: &str, file: Option<File>) {
        let mut names = self.names.lock();
        let Names::Few(few) = &mut *names else { return };
        match few.get_mut(path) {
            Some(kept) => *kept = file.or(kept.take()),
            None => drop(few.insert(path.into(), file)),
        }
        if few.len() > FEW {
            *names = Names::Many;
        }
    }

    /// Waits until all of it is on the disk, and so are these files beside the tree.
    pub(crate) fn flush(
        &self,
        root: BorrowedFd<'_>,
        tree: BorrowedFd<'_>,
        beside: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.backlog.take_error()?;
        let beside = beside.iter().copied().map(Target::Open);
        let mut names = self.names.lock();
        let Names::Few(few) = &mut *names else {
            // A write-back error is reported since Linux 5.8, independent of which file a program has open.
            if sys::sync_file_system(root)? {
                return Ok(());
            }
            flush_all(&beside.collect::<Vec<_>>())?;
            return flush_tree(tree);
        };
        let noted = few.iter().map(|(name, file)| match file {
            Some(file) => Target::Open(file.as_fd()),
            None => Target::Named(tree, name),
        });
        flush_all(&noted.chain(beside).collect::<Vec<_>>())?;
        // Before readers see them: a program that is open for writing cannot be run.
        for file in few.values_mut() {
            *file = None;
        }
        Ok(())
    }
}

/// Has the system begin to write what will be flushed soon, while something else is done. Whether it can is told by the flush: it has
/// its own handle on the root, and the system reports an error once to each.
pub(super) fn begin_flush(root: BorrowedFd<'_>) {
    let Ok(root) = open_directory(root, ".") else { return };
    thread::Builder::new().spawn(move || sys::sync_file_system(root.as_fd()).ignore()).ignore();
}

/// The directory that holds it.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or(".", |(directory, _)| directory)
}

/// Waits until each of these, beneath the tree, is on the disk by itself, however many they are: for what is not urgent, and
/// should not take as long as all other programs' data.
pub(crate) fn flush_each<'n>(tree: BorrowedFd<'n>, names: impl Iterator<Item = &'n str>) -> io::Result<()> {
    flush_all(&names.map(|name| Target::Named(tree, name)).collect::<Vec<_>>())
}

/// A file or directory to be synced.
#[derive(Clone, Copy)]
enum Target<'n> {
    Open(BorrowedFd<'n>),
    Named(BorrowedFd<'n>, &'n str),
}

fn flush_all(all: &[Target<'_>]) -> io::Result<()> {
    // The disk empties its cache once for all who ask for that at the same time.
    thread::scope(|scope| {
        let mut shares = all.chunks(all.len().div_ceil(AT_A_TIME).max(1));
        let own = shares.next().unwrap_or_default();
        let spawn = |share| (share, thread::Builder::new().spawn_scoped(scope, move || flush_share(share)));
        let others: Vec<_> = shares.map(spawn).collect();
        flush_share(own)?;
        // Where the system has no more threads, this one does.
        others.into_iter().try_for_each(|(share, other)| {
            other.ok().and_then(|other| other.join().ok()).unwrap_or_else(|| flush_share(share))
        })
    })
}

/// Waits until a directory and all that is in it is on the disk, one by one.
fn flush_tree(directory: BorrowedFd<'_>) -> io::Result<()> {
    for entry in entries(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let handle = open_file(directory, name)?;
        if is_directory(&handle)? {
            flush_tree(handle.as_fd())?;
        } else {
            rustix::fs::fsync(handle)?;
        }
    }
    Ok(sys::sync_directory(directory)?)
}

fn is_directory(handle: impl AsFd) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(handle)?.st_mode) == FileType::Directory)
}

fn flush_share(share: &[Target<'_>]) -> io::Result<()> {
    for one in share {
        match one.flush() {
            // Made, and taken away again: that its directory lost it is noted, too.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            synced => synced?,
        }
    }
    Ok(())
}

impl Target<'_> {
    /// Waits until it is on the disk, mode and all; that is why `fdatasync` would not do.
    fn flush(self) -> Result<(), Errno> {
        match self {
            Self::Open(file) => rustix::fs::fsync(file),
            Self::Named(tree, name) => {
                let handle = open_file(tree, name)?;
                if is_directory(&handle)? { sys::sync_directory(handle) } else { rustix::fs::fsync(handle) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::Mode;

    use super::*;
    use crate::store::create::DirectoryOptions;
    use crate::store::volume::Volume;

    impl FsyncSet {
        /// What will be synced by itself, or `None` where everything will be.
        pub(crate) fn names(&self) -> Option<Vec<String>> {
            match &*self.names.lock() {
                Names::Few(few) => Some(few.keys().map(ToString::to_string).collect()),
                Names::Many => None,
            }
        }

        /// What is kept open until then.
        pub(crate) fn kept(&self) -> Vec<String> {
            match &*self.names.lock() {
                Names::Few(few) => {
                    few.iter().filter(|(_, file)| file.is_some()).map(|(path, _)| path.to_string()).collect()
                }
                Names::Many => Vec::new(),
            }
        }
    }

    fn backlog() -> Arc<Backlog> {
        Arc::new(Backlog::new(File::open("/").unwrap().as_fd()))
    }

    #[test]
    fn what_is_made_is_noted_with_its_directory_and_what_is_renamed_by_its_directory_alone() {
        let fsync_set = FsyncSet::new(&backlog());
        fsync_set.created("css", None);
        fsync_set.created("css/site.css", None);
        fsync_set.moved("img/2/pod.svg");
        fsync_set.moved("index.html");
        assert_eq!(fsync_set.names().unwrap(), [".", "css", "css/site.css", "img/2"]);
        // Something that is on the disk takes its place.
        fsync_set.moved("css/site.css");
        assert_eq!(fsync_set.names().unwrap(), [".", "css", "img/2"]);
    }

    #[test]
    fn many_are_counted_and_not_listed() {
        let fsync_set = FsyncSet::new(&backlog());
        for file in 1..FEW {
            fsync_set.created(&format!("d/{file}"), None);
            fsync_set.created(&format!("d/{file}"), None);
        }
        assert_eq!(fsync_set.names().unwrap().len(), FEW);
        fsync_set.moved("e/f");
        assert_eq!(fsync_set.names(), None);
        fsync_set.created("d/1", Some(File::open("/dev/null").unwrap()));
        assert_eq!(fsync_set.names(), None);
    }

    fn volume() -> (tempfile::TempDir, Volume) {
        let above = tempfile::tempdir().unwrap();
        let volume = Volume::open(&above.path().join("volume"), DirectoryOptions::default()).unwrap();
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
        let fsync_set = FsyncSet::new(&backlog());
        names[..FEW - 1].iter().for_each(|name| fsync_set.created(name, None));
        let sync = || fsync_set.flush(volume.root(), volume.releases(), &[]);
        let sync_each = || flush_each(volume.releases(), names.iter().map(String::as_str));
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
        let fsync_set = FsyncSet::new(&backlog());
        fsync_set.created("file", None);
        fsync_set.flush(volume.root(), volume.releases(), &[]).unwrap();
        assert!(fsync_set.flush(volume.root(), volume.releases(), &[pipe().as_fd()]).is_err());
        fsync_set.created("file", Some(pipe()));
        assert!(fsync_set.flush(volume.root(), volume.releases(), &[]).is_err());
        // Another file took its place.
        fsync_set.moved("file");
        fsync_set.flush(volume.root(), volume.releases(), &[]).unwrap();
    }
}
