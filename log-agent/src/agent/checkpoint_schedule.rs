//! When a checkpoint is made: at most `--checkpoint-period` after something has changed, never when nothing has, and at once where
//! records wait for it.
//!
//! Records of a content that no checkpoint on the disk knows are held until one does: after a crash right behind their delivery
//! they would come again under other ids, or other records under theirs. A state directory that fails, or does not answer, is no
//! reason to hold them for longer: they are sent under ids that are this process's alone.

use std::time::{Duration, Instant};

use crate::checkpoint::FileEntry;
use crate::tail::Snapshot;

/// A disk that does not answer for this long is taken to have failed.
const SLOW_AFTER: Duration = Duration::from_secs(2);
/// While a checkpoint takes longer than this, nothing else is written to the state directory: that might not come back.
const SLOW: Duration = Duration::from_millis(500);

/// How the state directory does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    /// As it should.
    Answers,
    /// It may have stalled.
    Slow,
    /// The last checkpoint could not be written.
    Failed,
}

#[derive(Debug)]
pub(crate) struct Checkpoints {
    period: Duration,
    due: Option<Instant>,
    /// What is known to the checkpoint that is being written.
    writing: Option<(Instant, Snapshot)>,
    /// Since when records wait.
    holding: Option<Instant>,
    /// The last one could not be written.
    failed: bool,
    /// How many files there were, how long they were, and how much was given up of others, at the last look.
    extent: (usize, u64, u64),
}

impl Checkpoints {
    /// At most one in this time, unless records wait; and one at once, by which the next start knows that there was this one.
    pub(crate) fn new(period: Duration) -> Self {
        let due = Some(Instant::now());
        Self { period, due, writing: None, holding: None, failed: false, extent: (0, 0, 0) }
    }

    /// Something has changed that a restart should know.
    pub(super) fn changed(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + self.period);
    }

    /// Files have come, gone, grown or been given up where this is another extent than the last one.
    pub(super) fn note_files(&mut self, extent: (usize, u64, u64)) {
        if extent != self.extent {
            self.extent = extent;
            self.changed();
        }
    }

    /// Whether records that no checkpoint knows have to wait for one, which is then made at once.
    pub(super) fn hold(&mut self) -> bool {
        if self.failed {
            return false;
        }
        let now = Instant::now();
        let since = *self.holding.get_or_insert(now);
        self.due = Some(self.due.map_or(now, |due| due.min(now)));
        if now.duration_since(since) < SLOW_AFTER {
            return true;
        }
        self.failed = true;
        tracing::warn!(
            "the state directory does not answer: records are sent all the same, and may come again with other ids"
        );
        false
    }

    /// How the state directory does.
    pub(super) fn disk(&self) -> Disk {
        match &self.writing {
            _ if self.failed => Disk::Failed,
            Some((since, _)) if since.elapsed() >= SLOW => Disk::Slow,
            _ => Disk::Answers,
        }
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        match (&self.writing, self.holding) {
            (None, _) => self.due,
            (Some(_), Some(since)) if !self.failed => Some(since + SLOW_AFTER),
            (Some(_), _) => None,
        }
    }

    /// The entries to write now, where one is due.
    pub(super) fn begin(
        &mut self,
        entries: impl FnOnce() -> (Vec<FileEntry>, Snapshot),
    ) -> Option<Vec<FileEntry>> {
        if self.writing.is_some() || self.due.is_none_or(|due| due > Instant::now()) {
            return None;
        }
        self.due = None;
        let (entries, snapshot) = entries();
        self.writing = Some((Instant::now(), snapshot));
        Some(entries)
    }

    /// One was written, or could not be; returns what is on the disk now.
    pub(super) fn ended(&mut self, written: bool) -> Option<Snapshot> {
        let snapshot = self.writing.take().map(|(_, snapshot)| snapshot);
        self.failed = !written;
        self.holding = None;
        if written {
            return snapshot;
        }
        // Tried again at the usual pace.
        self.due = Some(Instant::now() + self.period);
        None
    }
}
