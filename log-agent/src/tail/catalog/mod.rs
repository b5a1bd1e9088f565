//! All files that are followed, whatever they are called by now: who is new, who was renamed, who is gone.
//!
//! Whether a new one is the copy of another is settled in `copies`, when one is over in `ends`.

mod copies;
mod ends;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::checkpoint::{FileEntry, UnclaimedEntries};
use crate::identity::FileKey;
use crate::loss::LossLedger;
use crate::position::{FileSeq, Segment};
use crate::tail::queue::{LogFamily, RotationAge, rotation_of};
use crate::tail::{Naming, ReadState, TailedFile};

/// How often names that change are looked at again before they are taken as they are.
const STILL: usize = 16;

/// The files and their order.
#[derive(Debug)]
pub(crate) struct Catalog {
    sinks: Vec<String>,
    ledger: LossLedger,
    /// How long a file that nobody should write to any more has to be quiet before its end is believed.
    rotate_wait: Duration,
    sources: BTreeMap<FileSeq, TailedFile>,
    by_key: HashMap<FileKey, FileSeq>,
    by_path: HashMap<PathBuf, FileSeq>,
    newest: BTreeMap<LogFamily, FileSeq>,
    unclaimed: UnclaimedEntries,
    next: u64,
    /// Names that could not be opened, said once.
    warned: BTreeSet<PathBuf>,
}

impl Catalog {
    /// Knows what the checkpoint knew, and follows nothing yet.
    pub(crate) fn new(
        sinks: Vec<String>,
        unclaimed: Vec<FileEntry>,
        rotate_wait: Duration,
        ledger: LossLedger,
    ) -> Self {
        Self {
            sinks,
            ledger,
            rotate_wait,
            sources: BTreeMap::new(),
            by_key: HashMap::new(),
            by_path: HashMap::new(),
            newest: BTreeMap::new(),
            unclaimed: UnclaimedEntries::new(unclaimed),
            next: 0,
            warned: BTreeSet::new(),
        }
    }

    /// Takes in what `scan` finds. New files are put in order by age, after those that are known; returns the targets of
    /// symbolic links, which have to be watched too.
    ///
    /// A rotation in the middle of a scan would give files the age of others. So where there are new ones, names are
    /// looked at until they hold still.
    pub(crate) fn update(&mut self, mut scan: impl FnMut() -> Vec<PathBuf>) -> Vec<PathBuf> {
        // Before the next copy of the same file comes up.
        self.settle_copies();
        let mut names = self.names(&scan());
        let mut opened = HashMap::new();
        for _ in 0..STILL {
            opened = self.open_new(&names);
            if opened.is_empty() {
                break;
            }
            let again = self.names(&scan());
            if again == names
                && names.iter().all(|(_, key)| self.by_key.contains_key(key) || opened.contains_key(key))
            {
                break;
            }
            names = again;
        }
        let (mut new, mut targets, mut attached) = (Vec::new(), Vec::new(), BTreeSet::new());
        self.by_path.clear();
        // One that can be read again may be said again.
        self.warned.retain(|said| names.iter().all(|(path, _)| path != said));
        for (path, key) in &names {
            if let Some(seq) = self.by_key.get(key).copied() {
                self.seen_again(seq, path, attached.insert(seq));
            } else {
                new.push((path.clone(), *key));
            }
            if let Ok(target) = fs::canonicalize(path)
                && target != *path
            {
                targets.push(target);
            }
        }
        new.sort_by_key(|(path, _)| rotation_of(path));
        for (path, key) in new {
            let Some(file) = opened.remove(&key) else {
                // Opened already under another name, or gone in between: then the next scan knows.
                if let Some(seq) = self.by_key.get(&key).copied() {
                    self.seen_again(seq, &path, attached.insert(seq));
                }
                continue;
            };
            match self.follow(&path, key, file) {
                Ok(seq) => drop(attached.insert(seq)),
                Err(error) => self.cannot_open(&path, &error),
            }
        }
        for (seq, source) in &mut self.sources {
            if source.life == Naming::Named && !attached.contains(seq) {
                tracing::debug!(file = %source.path.display(), "no name leads to it any more: reading it to its end");
                source.life = Naming::Unnamed;
            }
        }
        self.settle(copies::Names::AllKnown);
        targets
    }

    /// Which files the paths lead to now.
    fn names(&mut self, paths: &[PathBuf]) -> Vec<(PathBuf, FileKey)> {
        let mut names = Vec::with_capacity(paths.len());
        for path in paths {
            match fs::metadata(path) {
                Ok(metadata) if metadata.is_file() => names.push((path.clone(), FileKey::of(&metadata))),
                Ok(_) => {}
                Err(error) => self.cannot_open(path, &error),
            }
        }
        names
    }

    fn cannot_open(&mut self, path: &Path, error: &io::Error) {
        // Gone between the scan and now: the next scan knows.
        if error.kind() != io::ErrorKind::NotFound && self.warned.insert(path.to_owned()) {
            tracing::warn!(file = %path.display(), %error, "cannot read it: trying again at every scan");
        }
    }

    /// `first` says that this is the first of its names in this scan: of several, the first counts.
    fn seen_again(&mut self, seq: FileSeq, path: &Path, first: bool) {
        self.by_path.insert(path.to_owned(), seq);
        if let Some(source) = self.sources.get_mut(&seq)
            && first
        {
            source.life = Naming::Named;
            if source.path != path {
                tracing::debug!(from = %source.path.display(), to = %path.display(), "renamed");
                path.clone_into(&mut source.path);
            }
        }
    }

    /// Opens the files that are not followed yet, by what they turn out to be.
    fn open_new(&mut self, names: &[(PathBuf, FileKey)]) -> HashMap<FileKey, File> {
        let mut opened = HashMap::new();
        for (path, key) in names {
            if self.by_key.contains_key(key) {
                continue;
            }
            match open(path).and_then(|file| Ok((file.metadata()?, file))) {
                Ok((metadata, file)) if metadata.is_file() => {
                    drop(opened.insert(FileKey::of(&metadata), file));
                }
                Ok(_) => {}
                Err(error) => self.cannot_open(path, &error),
            }
        }
        opened
    }

    /// Begins to follow a file.
    fn follow(&mut self, path: &Path, key: FileKey, file: File) -> io::Result<FileSeq> {
        let seq = FileSeq(self.next);
        let (family, age) = rotation_of(path);
        let mut source = TailedFile::begin(seq, family.clone(), path, file, self.sinks.len())?;
        if let Some(entry) = self.unclaimed.take(&key) {
            source.resume(&entry, &self.sinks, &self.ledger)?;
            tracing::info!(file = %path.display(), from = source.least_confirmed(), "following");
        } else if age != RotationAge::Current && self.is_copy(&mut source)? {
            tracing::info!(file = %path.display(), from = source.least_confirmed(), "following: a copy made before a truncation");
        } else {
            tracing::info!(file = %path.display(), from = 0, "following");
        }
        self.next += 1;
        self.by_key.insert(key, seq);
        self.by_path.insert(path.to_owned(), seq);
        if source.reading == ReadState::Active {
            // A copy is no successor: its original is still the one that is written to.
            self.newest.insert(family, seq);
        }
        self.sources.insert(seq, source);
        Ok(seq)
    }

    /// A followed file.
    pub(crate) fn source(&mut self, seq: FileSeq) -> Option<&mut TailedFile> {
        self.sources.get_mut(&seq)
    }

    /// All of them, oldest first.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &TailedFile> {
        self.sources.values()
    }

    /// Which file a path names.
    pub(crate) fn at_path(&self, path: &Path) -> Option<FileSeq> {
        self.by_path.get(path).copied()
    }

    /// Notes that the file at `path` is also found by the path of a symbolic link's target.
    pub(crate) fn alias(&mut self, target: PathBuf) {
        if let Ok(metadata) = fs::metadata(&target)
            && let Some(seq) = self.by_key.get(&FileKey::of(&metadata)).copied()
        {
            self.by_path.insert(target, seq);
        }
    }

    /// The files that no name leads to.
    pub(crate) fn detached(&self) -> Vec<FileSeq> {
        let detached = self.sources.values().filter(|source| source.life == Naming::Unnamed);
        detached.map(|source| source.seq).collect()
    }

    /// Looks at the sizes of these files, or of all, and returns those that may have something to read.
    pub(crate) fn poll_sizes(&mut self, which: impl Fn(&TailedFile) -> bool) -> Vec<FileSeq> {
        let mut found = Vec::new();
        for source in self.sources.values_mut().filter(|source| which(source)) {
            match source.poll_sizes() {
                Ok(true) => found.push(source.seq),
                Ok(false) => {}
                Err(error) => tracing::warn!(file = %source.path.display(), %error, "cannot look at it"),
            }
        }
        found
    }

    /// Notes what a sink has confirmed.
    pub(crate) fn confirm(&mut self, sink: usize, segment: &Segment) {
        let source = self.sources.get_mut(&segment.source);
        if !source.is_some_and(|source| source.confirm(sink, segment)) {
            // Of a content that is gone, but for its copy.
            self.sources.values_mut().any(|copy| copy.confirm_former(sink, segment));
        }
    }

    /// What a checkpoint has to say now.
    pub(crate) fn entries(&mut self) -> Vec<FileEntry> {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let followed = self.sources.values().filter_map(|source| source.entry(&self.sinks));
        followed.chain(self.unclaimed.entries(now).to_vec()).collect()
    }
}

/// Opens for reading, and never waits: a FIFO put in a file's place would keep an ordinary open waiting for its writer.
fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}
