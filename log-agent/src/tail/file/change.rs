//! What befalls a file while it is followed: it shrinks, or has another content all of a sudden.

use std::io;

use super::{Cursor, Suspicion, TailedFile};
use crate::loss::{LossLedger, LossReason};

impl TailedFile {
    /// The file holds other content than what was read: what was seen and not read is gone, and reading begins anew.
    pub(super) fn truncated(&mut self, ledger: &LossLedger) -> io::Result<()> {
        // Else the copy has it, and is read on from where this file was.
        if !(self.copied && self.keep_past()) {
            for (sink, cursor) in self.cursors.iter().enumerate() {
                if self.size > cursor.read.0 {
                    ledger.record_lost(LossReason::Truncated, sink, &self.path, cursor.read.0..self.size);
                }
            }
        }
        self.start_over("truncated or written anew");
        (self.size, self.certain) = (0, 0);
        self.note_size(self.file.metadata()?.len());
        Ok(())
    }

    /// What is before the position is still there, but what had been seen behind it is not: an unfinished line was
    /// taken back, or what a slow sink had not been given yet.
    pub(super) fn note_shrinking(&mut self, end: u64, ledger: &LossLedger) {
        if end >= self.size {
            return;
        }
        // What nobody was given yet is in a copy that waits, whole, and is read there.
        if !(self.copied && self.id.is_none()) {
            for (sink, cursor) in self.cursors.iter().enumerate() {
                ledger.record_lost(
                    LossReason::Truncated,
                    sink,
                    &self.path,
                    end.max(cursor.read.0)..self.size,
                );
            }
        }
        self.size = end;
    }

    pub(super) fn start_over(&mut self, how: &str) {
        tracing::warn!(file = %self.path.display(), how, "the file's content was replaced: reading it from its beginning");
        self.epoch = self.epoch.next();
        self.id = None;
        self.origin = None;
        self.head.clear();
        self.arrivals.clear();
        self.suspicion = Suspicion::None;
        self.cursors.iter_mut().for_each(|cursor| *cursor = Cursor::at_start());
    }
}
