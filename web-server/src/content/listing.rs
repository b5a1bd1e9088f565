//! The files of a plain directory, as a live manifest lists them.
//!
//! The list is kept from one look to the next, so that a change of one file is not paid for by reading the others.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use lifecycle::Ignore as _;
use tokio::sync::mpsc;

use super::digest::Digest;
use super::dir::{FileInfo, Lookup};
use super::edition::Edition;
use super::generation::FileEntry;
use super::live::{LiveDirectory, is_settled};
use super::representation::Modified;
use super::root::Content;
use super::walk::{Visitor, visit};
use crate::memory::{Account, Budget, NoRoom, Share};

/// What has been noticed of a directory, and was not looked at yet.
#[derive(Debug, Default)]
pub(crate) struct Noticed {
    paths: HashSet<String>,
    /// Something that no path was given for, so that all has to be looked at.
    unknown: bool,
}

impl Noticed {
    /// So many files that are written at once are found by a walk, rather than remembered one by one.
    const MOST_PATHS: usize = 4096;

    /// A change of this file or directory.
    pub(crate) fn add(&mut self, path: &str) {
        if self.unknown {
            return;
        }
        self.paths.insert(path.to_owned());
        if self.paths.len() > Self::MOST_PATHS {
            self.add_unknown();
        }
    }

    /// A change that may be anywhere.
    pub(crate) fn add_unknown(&mut self) {
        *self = Self { paths: HashSet::new(), unknown: true };
    }

    /// Whether all has to be looked at.
    pub(crate) fn is_unknown(&self) -> bool {
        self.unknown
    }

    /// Whether there is nothing to look at.
    pub(crate) fn is_empty(&self) -> bool {
        self.paths.is_empty() && !self.unknown
    }
}

/// Looks at a plain directory on a thread of its own, which ends when this is dropped. The heap gives a thread what that thread has
/// freed before: on any thread of a pool, each would come to keep memory for a list of all files.
pub(crate) struct Lister {
    noticed: std::sync::mpsc::Sender<Noticed>,
    taken_in: mpsc::Receiver<io::Result<TakenIn>>,
}

/// What came of looking at what has changed.
pub(crate) struct TakenIn {
    /// Where it is another than before.
    pub(crate) edition: Option<Edition>,
    /// Files that changed while they were read.
    pub(crate) unsettled: Vec<String>,
}

impl Lister {
    /// Has seen nothing yet.
    pub(crate) fn start(content: &Arc<Content>, reserved: &Arc<[&'static str]>) -> io::Result<Self> {
        let (content, reserved) = (Arc::clone(content), Arc::clone(reserved));
        let (noticed, received) = std::sync::mpsc::channel();
        let (sent, taken_in) = mpsc::channel(1);
        std::thread::Builder::new().name("list".to_owned()).spawn(move || {
            let Content::Live(live) = &*content else { return };
            let mut listing = Listing::new(live.budget());
            for noticed in received {
                let edition = listing.take_in(&content, noticed, &reserved);
                let unsettled = std::mem::take(&mut listing.unsettled);
                if edition.is_err() {
                    // What is in it may be half of what there is.
                    listing = Listing::new(live.budget());
                }
                if sent.blocking_send(edition.map(|edition| TakenIn { edition, unsettled })).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { noticed, taken_in })
    }

    /// Looks at what has changed, or at all.
    pub(crate) async fn take_in(&mut self, noticed: Noticed) -> io::Result<TakenIn> {
        // A thread that is gone has ended the process: it can only panic.
        self.noticed.send(noticed).ignore();
        match self.taken_in.recv().await {
            Some(taken_in) => taken_in,
            None => std::future::pending().await,
        }
    }
}

/// The files of a plain directory as they were found last.
#[derive(Debug)]
struct Listing {
    files: BTreeMap<Box<str>, Listed>,
    /// What they take of the memory budget.
    memory: Share,
    /// Files that changed while they were read.
    unsettled: Vec<String>,
    /// Whether an edition has been made of them.
    is_shown: bool,
    /// Whether it is enough to look at the paths that have changed: not before a walk has found all there is, nor where a file has
    /// two paths, so that a change of one says nothing about the other.
    is_kept_by_path: bool,
    /// How often files were looked for: what was not found this time is gone.
    look: u32,
}

/// A file as it was found last.
#[derive(Debug)]
struct Listed {
    digest: Digest,
    info: FileInfo,
    /// Whether another change would show in the file's state: the digest is as good as the state is the same.
    is_settled: bool,
    /// When it was found.
    look: u32,
}

impl Listed {
    /// In memory, its path included: in a tree whose nodes are half full, and in the set of inodes while all are looked at.
    fn cost(path: &str) -> u64 {
        270 + path.len() as u64
    }

    fn entry<'a>(&self, path: &'a str) -> FileEntry<'a> {
        let FileInfo { state, executable } = self.info;
        let modified = Modified::at(state.last_change());
        FileEntry { path, size: state.size, digest: self.digest, executable, modified }
    }
}

impl Listing {
    /// Of nothing yet.
    fn new(budget: &Arc<Budget>) -> Self {
        Self {
            files: BTreeMap::new(),
            memory: Share::new(budget, Account::Manifest),
            unsettled: Vec::new(),
            is_shown: false,
            is_kept_by_path: false,
            look: 0,
        }
    }

    /// Looks at what has changed, or at all, and makes an edition where that is another. Blocks.
    fn take_in(
        &mut self,
        content: &Arc<Content>,
        noticed: Noticed,
        reserved: &[&str],
    ) -> io::Result<Option<Edition>> {
        let Content::Live(live) = &**content else { return Ok(None) };
        if noticed.unknown || !self.is_kept_by_path {
            self.replace_all(live)?;
        } else {
            for path in noticed.paths {
                self.look_at(live, &path)?;
            }
        }
        if self.is_shown {
            return Ok(None);
        }
        let files = self.files.iter().map(|(path, listed)| listed.entry(path));
        let make = || Edition::of_files(content, live.budget(), files.clone(), reserved);
        let edition = make().or_else(|error| {
            if !NoRoom::is_cause_of(&error) {
                return Err(error);
            }
            live.forget();
            make()
        })?;
        self.is_shown = true;
        Ok(Some(edition))
    }

    fn replace_all(&mut self, live: &LiveDirectory) -> io::Result<()> {
        self.is_kept_by_path = self.find(live, "")?;
        self.forget("");
        Ok(())
    }

    /// A file that was written, a directory that was moved here, or nothing any more.
    fn look_at(&mut self, live: &LiveDirectory, path: &str) -> io::Result<()> {
        match live.directory().inspect(path)? {
            Lookup::File(info) => {
                self.look += 1;
                self.put(live, path, info)?;
            }
            Lookup::Dir => _ = self.find(live, path)?,
            Lookup::None => self.look += 1,
        }
        self.forget(path);
        Ok(())
    }

    /// Looks at all files beneath a directory, and says whether each has one path.
    fn find(&mut self, live: &LiveDirectory, directory: &str) -> io::Result<bool> {
        self.look += 1;
        let mut finding = Finding { listing: self, live, inodes: HashSet::new(), found: 0 };
        visit(live.directory(), directory, &mut finding)?;
        Ok(finding.inodes.len() == finding.found)
    }

    /// Forgets what was at a path or beneath it and was not found there any more.
    fn forget(&mut self, path: &str) {
        let look = self.look;
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let beneath = self.files.range::<str, _>(from).take_while(|(path, _)| path.starts_with(&prefix));
        let known = self.files.get_key_value(path).into_iter().chain(beneath);
        let gone: Vec<_> =
            known.filter(|(_, listed)| listed.look != look).map(|(path, _)| path.clone()).collect();
        self.is_shown &= gone.is_empty();
        for path in gone {
            self.files.remove(&path);
            self.memory.shrink(Listed::cost(&path));
        }
    }

    fn put(&mut self, live: &LiveDirectory, path: &str, info: FileInfo) -> io::Result<()> {
        if let Some(known) = self.files.get_mut(path) {
            // What was known of a file that is being written stays listed: it is about to be looked at again.
            known.look = self.look;
            if known.is_settled && known.info == info {
                return Ok(());
            }
        }
        // Before it is read: what is settled then cannot change unseen.
        let is_settled = is_settled(info.state);
        let Some(digest) = live.digest(path, info.state)? else {
            self.unsettled.push(path.to_owned());
            return Ok(());
        };
        let listed = Listed { digest, info, is_settled, look: self.look };
        if let Some(known) = self.files.get_mut(path) {
            self.is_shown &= known.entry(path) == listed.entry(path);
            *known = listed;
            return Ok(());
        }
        self.is_shown = false;
        if self.memory.grow(Listed::cost(path)).is_err() {
            // Digests only save time, and those of listed files are here.
            live.forget();
            self.memory.grow(Listed::cost(path))?;
        }
        self.files.insert(path.into(), listed);
        Ok(())
    }
}

/// Takes files into a listing as they are found.
struct Finding<'a> {
    listing: &'a mut Listing,
    live: &'a LiveDirectory,
    inodes: HashSet<u64>,
    found: usize,
}

impl Visitor for Finding<'_> {
    type Error = io::Error;

    fn file(&mut self, path: &str, info: FileInfo) -> io::Result<()> {
        self.inodes.insert(info.state.inode);
        self.found += 1;
        self.listing.put(self.live, path, info)
    }

    fn directory(&mut self, _path: &str) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::content::dir::Directory;
    use crate::content::index::LoadOptions;

    #[test]
    fn of_many_paths_none_is_remembered() {
        let mut noticed = Noticed::default();
        for number in 0..100_000 {
            noticed.add(&number.to_string());
        }
        assert!(noticed.unknown && noticed.paths.len() <= Noticed::MOST_PATHS);
        noticed.add("another");
        assert!(noticed.paths.is_empty());
    }

    #[test]
    fn a_file_that_is_being_written_stays_listed_when_its_directory_is_looked_at() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("d/f");
        std::fs::create_dir(root.path().join("d")).unwrap();
        std::fs::write(&file, "first").unwrap();
        let options = LoadOptions {
            cache: 0,
            stale_assets: Duration::ZERO,
            header_policy: Arc::default(),
            budget: Budget::hidden(None),
        };
        let directory = Directory::open(root.path()).unwrap();
        let content = Arc::new(Content::Live(LiveDirectory::new(directory, options, Gauge::default())));
        let Content::Live(live) = &*content else { panic!("it is a plain directory") };
        let mut listing = Listing::new(live.budget());
        assert!(listing.take_in(&content, Noticed::default(), &[]).unwrap().is_some());
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for length in (1..1000).cycle().take_while(|_| !over.load(Ordering::Relaxed)) {
                    std::fs::write(&file, "x".repeat(length)).unwrap();
                }
            });
            let is_seen = (0..100_000).any(|_| {
                let noticed = Noticed { paths: HashSet::from(["d".to_owned()]), unknown: false };
                listing.take_in(&content, noticed, &[]).unwrap();
                !listing.unsettled.is_empty()
            });
            over.store(true, Ordering::Relaxed);
            assert!(is_seen, "it never changed while it was read");
        });
        assert_eq!(listing.files.keys().map(|path| &**path).collect::<Vec<_>>(), ["d/f"]);
    }
}
