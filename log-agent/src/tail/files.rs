//! The files that are followed, by all that they are looked up by: what they are, what they are called, and what they hold.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::content::{Content, Covered};
use super::file::{FileSeq, Naming, ReadState, TailedFile};
use super::rotation::LogFamily;
use crate::checkpoint::FileEntry;
use crate::identity::{FileId, FileKey};
use crate::position::{ContentSeq, Segment, SinkIndex};
use crate::watch::Names;

/// Which contents a checkpoint knows, and what of them.
pub(crate) type Snapshot = Vec<(ContentSeq, Covered)>;

/// Numbers for files and contents, in the order in which they are found.
#[derive(Debug)]
pub(super) struct Numbers {
    /// The process's own.
    run: u64,
    file: u64,
    content: u64,
}

impl Numbers {
    /// In a process with this number.
    pub(super) fn new(run: u64) -> Self {
        Self { run, file: 0, content: 0 }
    }

    pub(super) fn file(&mut self) -> FileSeq {
        self.file += 1;
        FileSeq(self.file)
    }

    pub(super) fn content(&mut self) -> ContentSeq {
        self.content += 1;
        ContentSeq(self.content)
    }

    /// The name that a content has for this process alone.
    pub(super) fn of_process(&self, id: FileId) -> FileId {
        id.of_process(self.run)
    }

    /// A content that was never seen.
    pub(super) fn new_content(&mut self, sinks: usize) -> Content {
        Content::new(self.content(), self.run, sinks)
    }

    /// A content that a checkpoint knows.
    pub(super) fn restored(&mut self, entry: &FileEntry, sinks: &[String]) -> Content {
        Content::restored(self.content(), entry, self.run, sinks)
    }
}

#[derive(Debug, Default)]
pub(super) struct FileTable {
    files: BTreeMap<FileSeq, TailedFile>,
    by_key: HashMap<FileKey, FileSeq>,
    by_path: HashMap<PathBuf, FileSeq>,
    by_content: HashMap<ContentSeq, FileSeq>,
}

impl FileTable {
    /// A file is followed, or was taken and is followed on, with whatever it holds by now.
    pub(super) fn put(&mut self, file: TailedFile) {
        let seq = file.seq();
        self.by_key.insert(file.key(), seq);
        self.by_content.insert(file.content().seq(), seq);
        for previous in file.previous() {
            self.by_content.insert(previous.seq(), seq);
        }
        self.files.insert(seq, file);
    }

    /// Takes a file that is put back right after.
    pub(super) fn take(&mut self, seq: FileSeq) -> Option<TailedFile> {
        self.files.remove(&seq)
    }

    /// Takes files that are put back right after, and may give their contents away before that.
    pub(super) fn take_all(&mut self, files: &[FileSeq]) -> Vec<TailedFile> {
        let files: Vec<_> = files.iter().filter_map(|seq| self.take(*seq)).collect();
        for file in &files {
            self.forget_contents(file);
        }
        files
    }

    pub(super) fn get(&self, seq: FileSeq) -> Option<&TailedFile> {
        self.files.get(&seq)
    }

    pub(super) fn get_mut(&mut self, seq: FileSeq) -> Option<&mut TailedFile> {
        self.files.get_mut(&seq)
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// All of them, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &TailedFile> {
        self.files.values()
    }

    /// Those that may be copies.
    pub(super) fn pending(&self) -> impl Iterator<Item = &TailedFile> {
        self.iter().filter(|file| file.state() == ReadState::PendingCopy)
    }

    /// The files of each log that has copies, or may have some.
    pub(super) fn with_copies(&self) -> HashMap<LogFamily, Vec<FileSeq>> {
        let concerned: HashSet<&LogFamily> = self
            .iter()
            .filter(|file| file.state() == ReadState::PendingCopy || !file.previous().is_empty())
            .map(TailedFile::family)
            .collect();
        let mut families: HashMap<LogFamily, Vec<FileSeq>> = HashMap::new();
        for file in self.iter().filter(|file| concerned.contains(file.family())) {
            families.entry(file.family().clone()).or_default().push(file.seq());
        }
        families
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut TailedFile> {
        self.files.values_mut()
    }

    /// Those that were removed, and how many bytes of the disk each holds.
    pub(super) fn held(&self) -> impl Iterator<Item = (&TailedFile, u64)> {
        self.iter().filter_map(|file| file.held_bytes().map(|bytes| (file, bytes)))
    }

    pub(super) fn seqs(&self) -> Vec<FileSeq> {
        self.files.keys().copied().collect()
    }

    /// The file that is this one.
    pub(super) fn with_key(&self, key: &FileKey) -> Option<FileSeq> {
        self.by_key.get(key).copied()
    }

    /// The file that this name leads to.
    pub(super) fn at_path(&self, path: &Path) -> Option<FileSeq> {
        self.by_path.get(path).copied()
    }

    /// These are the names that lead to the files now.
    pub(super) fn note_names(&mut self, names: &Names) {
        self.by_path.clear();
        for found in &names.files {
            let Some(seq) = self.with_key(&FileKey::of(&found.metadata)) else { continue };
            let path = &found.place.path;
            let target = if found.is_link { std::fs::canonicalize(path).ok() } else { None };
            self.by_path.extend([path.clone()].into_iter().chain(target).map(|path| (path, seq)));
        }
    }

    /// No name leads to the other files than `found` any more, unless theirs could not be seen. Returns those that could not be read any
    /// more.
    pub(super) fn note_unnamed(&mut self, names: &Names, found: &HashSet<FileSeq>) -> Vec<FileSeq> {
        let mut gone = Vec::new();
        for file in self.iter_mut() {
            // What cannot be seen is where it was, unless it is known to be nowhere.
            if file.naming() == Naming::Named
                && !found.contains(&file.seq())
                && (names.has_seen(file.path()) || file.is_unlinked())
            {
                file.unnamed();
                if !file.is_open() {
                    gone.push(file.seq());
                }
            }
        }
        gone
    }

    /// The content with this number, and the name of its file.
    pub(super) fn content(&mut self, content: ContentSeq) -> Option<(&Path, &mut Content)> {
        let file = self.by_content.get(&content).and_then(|seq| self.files.get_mut(seq));
        file.and_then(|file| file.content_with(content))
    }

    /// Follows a file no more.
    pub(super) fn remove(&mut self, seq: FileSeq) -> Option<TailedFile> {
        let file = self.files.remove(&seq)?;
        self.by_key.remove(&file.key());
        if self.at_path(file.path()) == Some(seq) {
            self.by_path.remove(file.path());
        }
        self.forget_contents(&file);
        Some(file)
    }

    fn forget_contents(&mut self, file: &TailedFile) {
        for content in file.previous().iter().chain([file.content()]) {
            self.by_content.remove(&content.seq());
        }
    }

    /// Notes what a sink has confirmed; false where no file has that content.
    pub(super) fn confirm(&mut self, sink: SinkIndex, segment: &Segment) -> bool {
        let Some((path, content)) = self.content(segment.content) else { return false };
        let path = path.to_owned();
        content.confirm(sink, segment, &path);
        true
    }

    /// What a checkpoint has to say now, and what is known to it then.
    pub(super) fn entries(&mut self, sinks: &[String]) -> (Vec<FileEntry>, Snapshot) {
        let (mut entries, mut snapshot) = (Vec::new(), Snapshot::new());
        self.files.values_mut().for_each(TailedFile::prepare_entry);
        for file in self.iter().filter(|file| file.state() != ReadState::Skipped) {
            let mut add = |content: &Content, gone: bool| {
                let pending_copy = !gone && file.state() == ReadState::PendingCopy;
                entries.push(FileEntry { gone, pending_copy, ..file.entry_of(content, sinks) });
                snapshot.extend(content.covered().map(|covered| (content.seq(), covered)));
            };
            add(file.content(), false);
            file.previous().iter().for_each(|previous| add(previous, true));
        }
        (entries, snapshot)
    }
}
