//! A content that is gone from its file and was copied before: the copy goes on from where the sinks were in it.
//!
//! Where a sink was is two positions, what it was given and what it has confirmed, and between them are the chunks under way. The
//! copy takes over both, so nothing that is under way is read again; and as those chunks still name the original and its old
//! epoch, the copy knows by these, and has their confirmations. Should the agent end before they come, the copy is read again
//! from what was confirmed.

use std::io;

use super::{Cursor, ReadState, TailedFile};
use crate::identity::{Epoch, FileId, Fingerprint, WINDOW};
use crate::loss::{LossLedger, LossReason};
use crate::position::{FileSeq, ReadOffset, Segment};

/// A content that was truncated while a copy of it was waiting.
#[derive(Debug)]
pub(super) struct Past {
    epoch: Epoch,
    id: FileId,
    head: Vec<u8>,
    size: u64,
    certain: u64,
    cursors: Vec<Cursor>,
}

/// Which content a copy goes on from, and what of it the copy has.
#[derive(Debug)]
pub(super) struct CopyOrigin {
    source: FileSeq,
    epoch: Epoch,
    end: u64,
    before_end: Fingerprint,
}

/// What counts as the copy of a content that was truncated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    /// All that was read is in it.
    Full,
    /// It may end earlier: what was written after it was made, and before the truncation, was in the original alone.
    Prefix,
}

impl Past {
    /// Where a sink was, for a segment of this content.
    pub(super) fn cursor(&mut self, sink: usize, segment: &Segment) -> Option<&mut Cursor> {
        self.cursors.get_mut(sink).filter(|_| segment.epoch == self.epoch)
    }
}

impl TailedFile {
    /// Draws the conclusion that the next read would draw if there were one: for a sink that takes nothing for long, nobody reads.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(crate) fn notice_truncation(&mut self, ledger: &LossLedger) -> io::Result<()> {
        let size = self.file.metadata()?.len();
        if self.is_replaced()? {
            return self.truncated(ledger);
        }
        self.certain = size;
        Ok(())
    }

    /// Whether the content is not what was read any more.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(crate) fn is_replaced(&self) -> io::Result<bool> {
        for cursor in &self.cursors {
            let mut before = vec![0; cursor.before.len()];
            let filled = self.fill(&mut before, cursor.read.0 - cursor.before.len() as u64)?;
            if before[..filled] != *cursor.before {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether there is nothing in it now.
    pub(crate) fn is_empty(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.len() == 0)
    }

    /// Keeps what was known of the content that is about to be forgotten; true where anything was.
    pub(super) fn keep_past(&mut self) -> bool {
        let Some(id) = self.id else { return false };
        let cursors = self.cursors.iter_mut().map(|cursor| std::mem::replace(cursor, Cursor::at_start()));
        let cursors = cursors.collect();
        let head = std::mem::take(&mut self.head);
        self.past =
            Some(Past { epoch: self.epoch, id, head, size: self.size, certain: self.certain, cursors });
        true
    }

    /// Goes on where the sinks were in what `original` was, if this is a copy of that; true where it is.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(crate) fn take_over(
        &mut self,
        original: &mut Self,
        likeness: Match,
        ledger: &LossLedger,
    ) -> io::Result<bool> {
        let Some(past) = &original.past else { return Ok(false) };
        let size = self.file.metadata()?.len();
        let read = |cursor: &Cursor| cursor.read.0;
        if size == 0 {
            return Ok(false);
        }
        if likeness == Match::Full && past.cursors.iter().any(|cursor| read(cursor) > size) {
            return Ok(false);
        }
        let (head, head_is) = self.shared(&past.head, 0, size)?;
        let mut alike = head == head_is;
        for cursor in &past.cursors {
            let (before, is) =
                self.shared(&cursor.before, read(cursor) - cursor.before.len() as u64, size)?;
            alike &= before == is;
        }
        if !alike {
            return Ok(false);
        }
        let mut tail = vec![0; usize::try_from(size).map_or(WINDOW, |size| size.min(WINDOW))];
        let from = size - tail.len() as u64;
        self.fill(&mut tail, from)?;
        let Some(past) = original.past.take() else { return Ok(false) };
        let former = CopyOrigin {
            source: original.seq,
            epoch: past.epoch,
            end: size,
            before_end: Fingerprint::of(&tail),
        };
        for (sink, cursor) in past.cursors.iter().enumerate() {
            if past.certain > read(cursor).max(size) {
                // Neither read nor copied.
                ledger.record_lost(
                    LossReason::Truncated,
                    sink,
                    &original.path,
                    read(cursor).max(size)..past.certain,
                );
            }
        }
        self.id = Some(past.id);
        self.epoch = past.epoch;
        self.head = past.head;
        self.head.truncate(usize::try_from(size).unwrap_or(WINDOW));
        self.cursors = past.cursors;
        for cursor in self.cursors.iter_mut().filter(|cursor| cursor.read.0 > size) {
            cursor.read = ReadOffset(size);
            cursor.searched = size;
            cursor.before.clone_from(&tail);
            cursor.confirmed = cursor.confirmed.at_most(size, former.before_end);
        }
        self.former = Some(former);
        self.reading = ReadState::Active;
        self.note_size(size);
        Ok(true)
    }

    /// No copy waits any more, and none has gone on: what was not read is gone.
    pub(crate) fn lose_past(&mut self, ledger: &LossLedger) {
        if let Some(past) = &self.past {
            for (sink, cursor) in past.cursors.iter().enumerate() {
                if past.size > cursor.read.0 {
                    ledger.record_lost(LossReason::Truncated, sink, &self.path, cursor.read.0..past.size);
                }
            }
        }
        self.forget_past();
    }

    /// Of bytes that were read elsewhere from this offset on, those that a file of this size has room for; and what it has there.
    fn shared<'a>(&self, bytes: &'a [u8], from: u64, size: u64) -> io::Result<(&'a [u8], Vec<u8>)> {
        let room = usize::try_from(size.saturating_sub(from)).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(room)];
        let mut is = vec![0; bytes.len()];
        let filled = self.fill(&mut is, from)?;
        is.truncate(filled);
        Ok((bytes, is))
    }

    /// Notes what a sink has confirmed of the content that this one goes on from; true where it is that.
    pub(crate) fn confirm_former(&mut self, sink: usize, segment: &Segment) -> bool {
        let Some(former) = &self.former else { return false };
        if former.source != segment.source || former.epoch != segment.epoch {
            return false;
        }
        if segment.start.0 < former.end {
            let mut segment = segment.clone();
            if segment.end.0 > former.end {
                (segment.end, segment.before_end) = (ReadOffset(former.end), former.before_end);
            }
            self.confirm(sink, &segment);
        }
        true
    }
}
