//! The files that are followed, by all that they are looked up by: what they are, what they are called, and what they hold. And what
//! they held when they were let go, while that is under way to a sink.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::content::{Content, Covered};
use super::file::{FileSeq, ReadState, TailedFile};
use crate::checkpoint::FileEntry;
use crate::identity::FileKey;
use crate::loss::{LossLedger, LossReason};
use crate::position::{ContentSeq, Segment, SinkIndex};

/// Which contents a checkpoint knows, and what of them.
pub(crate) type Snapshot = Vec<(ContentSeq, Covered)>;

/// Numbers for files and contents, in the order in which they are found.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    file: u64,
    content: u64,
}

impl Numbers {
    pub(super) fn file(&mut self) -> FileSeq {
        self.file += 1;
        FileSeq(self.file)
    }

    pub(super) fn content(&mut self) -> ContentSeq {
        self.content += 1;
        ContentSeq(self.content)
    }
}

/// A content that has no file any more, and is under way to a sink.
#[derive(Debug)]
struct Leaving {
    key: FileKey,
    path: PathBuf,
    log: PathBuf,
    content: Content,
}

#[derive(Debug, Default)]
pub(super) struct FileTable {
    files: BTreeMap<FileSeq, TailedFile>,
    by_key: HashMap<FileKey, FileSeq>,
    by_path: HashMap<PathBuf, FileSeq>,
    by_content: HashMap<ContentSeq, FileSeq>,
    leaving: Vec<Leaving>,
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

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut TailedFile> {
        self.files.values_mut()
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

    pub(super) fn note_path(&mut self, path: PathBuf, file: FileSeq) {
        self.by_path.insert(path, file);
    }

    /// Forgets all names, before they are noted again.
    pub(super) fn forget_paths(&mut self) {
        self.by_path.clear();
    }

    /// The content with this number, and the name of its file.
    pub(super) fn content(&mut self, content: ContentSeq) -> Option<(&Path, &mut Content)> {
        let file = self.by_content.get(&content).and_then(|seq| self.files.get_mut(seq));
        file.and_then(|file| file.content_with(content))
    }

    /// Follows a file no more: what was not read of it is lost.
    pub(super) fn let_go(&mut self, seq: FileSeq, reason: LossReason, ledger: &LossLedger) {
        let Some(mut file) = self.remove(seq) else { return };
        file.note_last_size();
        let previous = file.take_previous();
        let (key, path, log) = (file.key(), file.path().to_owned(), file.family().log().to_owned());
        let is_read = file.state() != ReadState::Skipped;
        for content in previous.into_iter().chain(is_read.then(|| file.into_content())) {
            self.lose(Leaving { key, path: path.clone(), log: log.clone(), content }, reason, ledger);
        }
    }

    /// What a file held before is gone: what was not read of it is lost.
    pub(super) fn let_go_of_previous(&mut self, file: &TailedFile, content: Content, ledger: &LossLedger) {
        let (key, path, log) = (file.key(), file.path().to_owned(), file.family().log().to_owned());
        self.lose(Leaving { key, path, log, content }, LossReason::Truncated, ledger);
    }

    fn lose(&mut self, mut leaving: Leaving, reason: LossReason, ledger: &LossLedger) {
        self.by_content.remove(&leaving.content.seq());
        leaving.content.lose_unread(reason, &leaving.path, ledger);
        if leaving.content.is_under_way() {
            self.leaving.push(leaving);
        }
    }

    pub(super) fn remove(&mut self, seq: FileSeq) -> Option<TailedFile> {
        let file = self.files.remove(&seq)?;
        self.by_key.remove(&file.key());
        if self.at_path(file.path()) == Some(seq) {
            self.by_path.remove(file.path());
        }
        Some(file)
    }

    /// Notes what a sink has confirmed.
    pub(super) fn confirm(&mut self, sink: SinkIndex, segment: &Segment) {
        if let Some((path, content)) = self.content(segment.content) {
            let path = path.to_owned();
            content.confirm(sink, segment, &path);
            return;
        }
        for leaving in self.leaving.iter_mut().filter(|leaving| leaving.content.seq() == segment.content) {
            leaving.content.confirm(sink, segment, &leaving.path);
        }
        self.leaving.retain(|leaving| leaving.content.is_under_way());
    }

    /// What a checkpoint has to say now, and what is known to it then.
    pub(super) fn entries(&mut self, sinks: &[String]) -> (Vec<FileEntry>, Snapshot) {
        let (mut entries, mut snapshot) = (Vec::new(), Snapshot::new());
        self.files.values_mut().for_each(TailedFile::prepare_entry);
        for file in self.iter().filter(|file| file.state() != ReadState::Skipped) {
            let mut add = |content: &Content, gone: bool| {
                entries.push(FileEntry { gone, ..file.entry_of(content, sinks) });
                snapshot.extend(content.covered().map(|covered| (content.seq(), covered)));
            };
            add(file.content(), false);
            file.previous().iter().for_each(|previous| add(previous, true));
        }
        for Leaving { key, path, log, content } in &self.leaving {
            entries.push(FileEntry { gone: true, ..content.entry(*key, path, log, sinks) });
        }
        (entries, snapshot)
    }

    /// Nothing that is under way is waited for any more. Returns how many bytes are lost.
    pub(super) fn lose_leaving(&mut self, ledger: &LossLedger) -> u64 {
        let leaving = std::mem::take(&mut self.leaving).into_iter();
        leaving
            .map(|Leaving { path, content, .. }| content.lose_unconfirmed(LossReason::Removed, &path, ledger))
            .sum()
    }
}
