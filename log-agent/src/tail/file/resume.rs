//! Going on: after a restart where a checkpoint says, or in a copy where its original was.

use std::io;

use super::{Cursor, TailedFile};
use crate::checkpoint::FileEntry;
use crate::identity::{Fingerprint, WINDOW};
use crate::loss::{LossLedger, LossReason};

impl TailedFile {
    /// Goes on where a checkpoint says the sinks stand, if this is still the content that it speaks of; else begins
    /// anew, and enters what is known to be lost.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(crate) fn resume(
        &mut self,
        entry: &FileEntry,
        sinks: &[String],
        ledger: &LossLedger,
    ) -> io::Result<()> {
        self.epoch = entry.epoch;
        if self.adopt(entry, sinks)? {
            return Ok(());
        }
        // The bytes that were confirmed to nobody and had been there when the checkpoint was written.
        for (sink, confirmed) in entry.confirmed_by(sinks).iter().enumerate() {
            if entry.size > confirmed.offset.get() {
                ledger.record_lost(
                    LossReason::Truncated,
                    sink,
                    &self.path,
                    confirmed.offset.get()..entry.size,
                );
            }
        }
        self.start_over("while the agent was away");
        Ok(())
    }

    /// Goes on where an entry says, if the content before is what it says; true where it is.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(crate) fn adopt(&mut self, entry: &FileEntry, sinks: &[String]) -> io::Result<bool> {
        let mut head = vec![0; entry.head.len.min(WINDOW)];
        if self.fill(&mut head, 0)? != head.len() || !entry.head.matches(&head) {
            return Ok(false);
        }
        let mut cursors = Vec::with_capacity(sinks.len());
        for confirmed in entry.confirmed_by(sinks) {
            let offset = confirmed.offset.get();
            let mut before = vec![0; confirmed.before.len.min(WINDOW)];
            let Some(from) = offset.checked_sub(before.len() as u64) else { return Ok(false) };
            if self.fill(&mut before, from)? != before.len() || !confirmed.before.matches(&before) {
                return Ok(false);
            }
            cursors.push(Cursor { read: confirmed.offset.resume(), searched: offset, before, confirmed });
        }
        self.id = Some(entry.id);
        self.epoch = entry.epoch;
        self.head = head;
        self.cursors = cursors;
        Ok(true)
    }

    /// Another file may be a copy of this one, made in order to truncate it.
    pub(crate) fn expect_truncation(&mut self) {
        self.copied = true;
    }

    /// Whether this file was truncated, and its copy is not known yet.
    pub(crate) fn has_past(&self) -> bool {
        self.past.is_some()
    }

    /// No copy waits any more.
    pub(crate) fn forget_past(&mut self) {
        self.past = None;
        self.copied = false;
    }

    /// Whether its content begins as that of `other` does, as far as it goes.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(crate) fn begins_like(&self, other: &Self) -> io::Result<bool> {
        let mut head = vec![0; other.head.len()];
        let filled = self.fill(&mut head, 0)?;
        Ok(head[..filled] == other.head[..filled])
    }

    /// Whether `other` holds the same beginning now, whatever was read of it.
    ///
    /// # Errors
    /// Where one of them cannot be read.
    pub(crate) fn is_beside(&self, other: &Self) -> io::Result<bool> {
        let (mut head, mut other_head) = ([0; WINDOW], [0; WINDOW]);
        // One that is being made may be empty yet.
        let filled = self.fill(&mut head, 0)?;
        let both = filled.min(other.fill(&mut other_head, 0)?);
        Ok((both > 0 || filled == 0) && head[..both] == other_head[..both])
    }

    /// What to remember of it, once anything was confirmed.
    pub(crate) fn entry(&self, sinks: &[String]) -> Option<FileEntry> {
        let id = self.id?;
        let furthest = self.cursors.iter().map(|cursor| cursor.confirmed.offset.get()).max()?;
        let head = usize::try_from(furthest).map_or(self.head.len(), |bytes| bytes.min(self.head.len()));
        let confirmed = sinks.iter().cloned().zip(self.cursors.iter().map(|cursor| cursor.confirmed));
        (furthest > 0).then(|| FileEntry {
            key: self.key,
            epoch: self.epoch,
            id,
            path: self.path.clone(),
            size: self.size,
            head: Fingerprint::of(&self.head[..head]),
            confirmed: confirmed.collect(),
            seen: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        })
    }
}
