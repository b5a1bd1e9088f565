//! What is left of files that are followed no more: contents that are still under way to a sink, and entries of the checkpoint that no
//! file has claimed. Every byte of them that was known is confirmed by its sink, or goes on in a file or a copy that is followed, or
//! is entered in the loss ledger: nothing is dropped without an entry.
//!
//! The catalog hands a file over when it stops following the file, and takes an entry back when the entry's file appears.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::content::Content;
use super::copytruncate::{self, Former};
use super::ends::FileEnds;
use super::file::{ReadState, TailedFile};
use super::files::Numbers;
use super::hidden::Hidden;
use super::obstacles::Obstacles;
use super::rotation::LogFamily;
use crate::checkpoint::{FileEntry, UnclaimedEntries};
use crate::identity::FileKey;
use crate::loss::{LossLedger, LossReason};
use crate::position::{Segment, SinkIndex};

/// While a file of a log cannot be opened, no more contents than this are kept of each file for the copies that may be there.
const MOST_PREVIOUS: usize = 16;

/// A content that has no file any more, and is under way to a sink.
#[derive(Debug)]
struct Leaving {
    key: FileKey,
    path: PathBuf,
    log: PathBuf,
    content: Content,
}

#[derive(Debug)]
pub(super) struct Orphans {
    sinks: Arc<[String]>,
    ledger: LossLedger,
    leaving: Vec<Leaving>,
    unclaimed: UnclaimedEntries,
}

impl Orphans {
    /// Everything that the checkpoint knew: no file has been met yet.
    pub(super) fn new(entries: Vec<FileEntry>, sinks: Arc<[String]>, ledger: LossLedger) -> Self {
        Self { sinks, ledger, leaving: Vec::new(), unclaimed: UnclaimedEntries::new(entries) }
    }

    /// Takes the entry of a file that was found.
    pub(super) fn claim(&mut self, key: &FileKey) -> Option<FileEntry> {
        self.unclaimed.take(key)
    }

    /// Takes back an entry whose file could not be followed after all.
    pub(super) fn unclaim(&mut self, entry: FileEntry) {
        self.unclaimed.keep(entry);
    }

    /// Logs that the unclaimed entries belong to.
    pub(super) fn logs(&self) -> impl Iterator<Item = &Path> {
        self.unclaimed.all().map(FileEntry::log)
    }

    /// A file is followed no more: what was not read of it is lost.
    pub(super) fn let_go(&mut self, mut file: TailedFile, reason: LossReason) {
        file.note_last_size();
        let previous = file.take_previous();
        let (key, path, log) = (file.key(), file.path().to_owned(), file.family().log().to_owned());
        let is_read = file.state() != ReadState::Skipped;
        for content in previous.into_iter().chain(is_read.then(|| file.into_content())) {
            self.lose_unread(Leaving { key, path: path.clone(), log: log.clone(), content }, reason);
        }
    }

    /// A file without a name is followed no more because every sink has all of it.
    pub(super) fn let_go_of_drained(&mut self, file: TailedFile) {
        // It may be renamed back into sight; without a single name left it cannot.
        if !file.is_unlinked() && file.state() != ReadState::Skipped {
            self.unclaimed.keep(file.entry_of(file.content(), &self.sinks));
        }
        self.let_go(file, LossReason::Removed);
    }

    /// The agent ends, and no next start can ship what is left of this file without a name: that is entered. Returns how many bytes it
    /// is.
    pub(super) fn give_up(&mut self, file: &TailedFile) -> u64 {
        let is_drained = file.is_drained();
        let contents = file.previous().iter().chain((!is_drained).then(|| file.content()));
        let lose =
            |content: &Content| content.lose_unconfirmed(LossReason::Removed, file.path(), &self.ledger);
        let bytes = contents.map(lose).sum();
        // It may be renamed back into sight.
        if file.state() != ReadState::Skipped && !file.is_unlinked() {
            let entry = file.entry_of(file.content(), &self.sinks);
            let given_up = if is_drained { entry.given_up } else { entry.size };
            self.unclaimed.keep(FileEntry { given_up, ..entry });
        }
        bytes
    }

    /// The agent ends, and nothing that is under way is waited for any more. Returns how many bytes are lost.
    pub(super) fn give_up_leaving(&mut self) -> u64 {
        let leaving = std::mem::take(&mut self.leaving).into_iter();
        let lose = |Leaving { path, content, .. }| {
            content.lose_unconfirmed(LossReason::Removed, &path, &self.ledger)
        };
        leaving.map(lose).sum()
    }

    /// Finds the copies among these files, which are those of one log. What the files held before, and no copy has, is gone, unless a
    /// file of the log is hidden.
    pub(super) fn find_copies(
        &mut self,
        family: &LogFamily,
        files: &mut [TailedFile],
        hidden: &Hidden<'_>,
        ends: &FileEnds,
        numbers: &mut Numbers,
        obstacles: &mut Obstacles,
    ) {
        let is_complete = !hidden.may_be_of(family.log());
        // What a checkpoint knows of contents whose file is gone, or has another content since.
        let entries = if is_complete {
            self.unclaimed.take_where(|entry| entry.log() == family.log())
        } else {
            Vec::new()
        };
        let mut former = Former::of_entries(entries, numbers, &self.sinks);
        copytruncate::resolve(files, &mut former, &self.ledger, ends, numbers);
        for former in former {
            self.unclaimed.keep(former.into_entry());
        }
        for file in files {
            let settled = if is_complete {
                file.settle_previous(&self.ledger)
            } else {
                Ok(file.take_previous_beyond(MOST_PREVIOUS))
            };
            if let Err(error) = &settled {
                obstacles.note_file(file.path(), error);
            }
            for content in settled.unwrap_or_default() {
                let (key, path, log) = (file.key(), file.path().to_owned(), file.family().log().to_owned());
                self.lose_unread(Leaving { key, path, log, content }, LossReason::Truncated);
            }
        }
    }

    fn lose_unread(&mut self, mut leaving: Leaving, reason: LossReason) {
        leaving.content.lose_unread(reason, &leaving.path, &self.ledger);
        if leaving.content.is_under_way() {
            self.leaving.push(leaving);
        }
    }

    /// Enters what a checkpoint knew as unconfirmed of files that are gone, and forgets those that were gone for long. What is `hidden`,
    /// or may be in a copy of a log that is `pending`, is kept.
    pub(super) fn give_up_unclaimed(&mut self, hidden: &Hidden<'_>, pending: &HashSet<&Path>) {
        let waits = |entry: &FileEntry| hidden.may_be(entry) || pending.contains(entry.log());
        let sinks = &self.sinks;
        let given_up =
            self.unclaimed.take_where(|entry| !entry.unconfirmed(sinks).is_empty() && !waits(entry));
        for entry in given_up {
            self.enter_lost(&entry);
            if !entry.gone {
                self.unclaimed.keep(FileEntry { given_up: entry.size, ..entry });
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        for forgotten in self.unclaimed.forget(now, |entry| hidden.may_be_where_it_was(entry)) {
            self.enter_lost(&forgotten);
        }
    }

    /// The file of an entry is gone: what sinks did not confirm of it is lost.
    fn enter_lost(&self, entry: &FileEntry) {
        for (sink, range) in entry.unconfirmed(&self.sinks) {
            self.ledger.record_lost(LossReason::Removed, sink, &entry.path, range);
        }
    }

    /// Notes what a sink has confirmed of a content that has no file any more.
    pub(super) fn confirm(&mut self, sink: SinkIndex, segment: &Segment) {
        for leaving in self.leaving.iter_mut().filter(|leaving| leaving.content.seq() == segment.content) {
            leaving.content.confirm(sink, segment, &leaving.path);
        }
        self.leaving.retain(|leaving| leaving.content.is_under_way());
    }

    /// Files that may be there still, and how many bytes of them sinks have not confirmed.
    pub(super) fn unconfirmed(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.unclaimed.all().map(|entry| {
            let ranges = entry.unconfirmed(&self.sinks).into_iter().map(|(_, range)| range);
            (entry.path.as_path(), ranges.map(|range| range.end - range.start).sum())
        })
    }

    /// How many bytes of unclaimed entries are given up.
    pub(super) fn given_up(&self) -> u64 {
        self.unclaimed.all().map(|entry| entry.given_up).sum()
    }

    /// What a checkpoint has to say of them.
    pub(super) fn entries(&self) -> impl Iterator<Item = FileEntry> {
        let gone = self.leaving.iter().map(|Leaving { key, path, log, content }| FileEntry {
            gone: true,
            ..content.entry(*key, path, log, &self.sinks)
        });
        gone.chain(self.unclaimed.all().cloned())
    }
}
