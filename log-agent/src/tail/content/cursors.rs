//! Where the sinks stand in a content: what was read for each, and what each has confirmed, which is never more.

use std::io;

use super::window::{ReadAt, Window, bytes_before, window_before};
use crate::identity::{Fingerprint, WINDOW};
use crate::position::{Confirmed, ReadOffset, Segment, SinkIndex};

#[derive(Debug)]
struct Cursor {
    read: ReadOffset,
    /// For a line too long for one portion: how far it has been searched for its end.
    searched: u64,
    /// Where the content ended when that line was found to have no end.
    unended_at: Option<u64>,
    /// The bytes right before `read`, as they were when they were read.
    before: Window,
    confirmed: Confirmed,
}

impl Cursor {
    /// After a restart, and after a confirmation that makes no sense: everything else is read again.
    fn at(confirmed: Confirmed) -> Self {
        let read = confirmed.offset.resume();
        Self { read, searched: read.0, unended_at: None, before: Window::Print(confirmed.before), confirmed }
    }

    /// Nothing before this offset is lost or sent.
    fn skip_to(&mut self, offset: u64, before: &[u8]) {
        self.read = ReadOffset(offset);
        self.searched = offset;
        self.unended_at = None;
        self.confirmed = Confirmed::skipped_to(offset, Fingerprint::of(before));
        self.before = Window::Bytes(before.to_vec());
    }
}

/// Those of all sinks.
#[derive(Debug)]
pub(super) struct Cursors(Vec<Cursor>);

impl Cursors {
    /// At the beginning.
    pub(super) fn new(sinks: usize) -> Self {
        let cursor = || Cursor {
            read: ReadOffset(0),
            searched: 0,
            unended_at: None,
            before: Window::Bytes(Vec::new()),
            confirmed: Confirmed::nothing(),
        };
        Self((0..sinks).map(|_| cursor()).collect())
    }

    /// Where a checkpoint says that they stand.
    pub(super) fn restored(confirmed: Vec<Confirmed>) -> Self {
        Self(confirmed.into_iter().map(Cursor::at).collect())
    }

    pub(super) fn sinks(&self) -> impl Iterator<Item = SinkIndex> + use<> {
        SinkIndex::all(self.0.len())
    }

    fn get(&self, sink: SinkIndex) -> Option<&Cursor> {
        self.0.get(sink.get())
    }

    /// How far was read for a sink.
    pub(super) fn read(&self, sink: SinkIndex) -> Option<u64> {
        self.get(sink).map(|cursor| cursor.read.0)
    }

    /// How far a line that is longer than a portion was searched for its end.
    pub(super) fn searched(&self, sink: SinkIndex) -> u64 {
        self.get(sink).map_or(0, |cursor| cursor.searched)
    }

    /// The search goes on here.
    pub(super) fn note_searched(&mut self, sink: SinkIndex, searched: u64) {
        if let Some(cursor) = self.0.get_mut(sink.get()) {
            cursor.searched = searched;
        }
    }

    /// The last line was searched to the end of the content, which is here, and has no end yet.
    pub(super) fn note_unended(&mut self, sink: SinkIndex, at: u64) {
        if let Some(cursor) = self.0.get_mut(sink.get()) {
            (cursor.searched, cursor.unended_at) = (at, Some(at));
        }
    }

    /// Bytes of the last line of a content of this size, where it is known to have no end.
    pub(super) fn unfinished(&self, sink: SinkIndex, size: u64) -> u64 {
        let cursor = self.get(sink).filter(|cursor| cursor.unended_at.is_some_and(|at| at >= size));
        cursor.map_or(0, |cursor| size.saturating_sub(cursor.read.0))
    }

    /// The bytes right before the position of a sink.
    pub(super) fn before(&self, sink: SinkIndex) -> &[u8] {
        self.get(sink).map_or(&[], |cursor| cursor.before.bytes())
    }

    /// Up to where a sink has confirmed it.
    pub(super) fn confirmed(&self, sink: SinkIndex) -> u64 {
        self.get(sink).map_or(0, |cursor| cursor.confirmed.offset.get())
    }

    /// What each sink has confirmed.
    pub(super) fn all_confirmed(&self) -> impl Iterator<Item = Confirmed> {
        self.0.iter().map(|cursor| cursor.confirmed)
    }

    /// Whether a sink has been given what it has not confirmed.
    pub(super) fn are_under_way(&self) -> bool {
        self.0.iter().any(|cursor| cursor.read.0 > cursor.confirmed.offset.get())
    }

    /// The position that is furthest, with what is before it.
    pub(super) fn furthest(&self) -> Confirmed {
        let furthest = self.0.iter().max_by_key(|cursor| cursor.read);
        furthest.map_or_else(Confirmed::nothing, |cursor| {
            Confirmed::skipped_to(cursor.read.0, cursor.before.print())
        })
    }

    /// Each position, with the bytes before it.
    pub(super) fn windows(&self) -> impl Iterator<Item = (u64, &Window)> {
        self.0.iter().map(|cursor| (cursor.read.0, &cursor.before))
    }

    /// Keeps the bytes of what is known by its fingerprint alone.
    pub(super) fn observe(&mut self, file: &impl ReadAt) -> io::Result<()> {
        for cursor in &mut self.0 {
            if let Window::Print(print) = cursor.before {
                cursor.before = Window::Bytes(bytes_before(file, cursor.read.0, print.len.min(WINDOW))?);
            }
        }
        Ok(())
    }

    /// Moves a sink to `end`, which has these bytes before it, and says where it was.
    pub(super) fn advance(&mut self, sink: SinkIndex, before: &[u8], end: ReadOffset) -> Option<ReadOffset> {
        let cursor = self.0.get_mut(sink.get())?;
        let start = std::mem::replace(&mut cursor.read, end);
        cursor.searched = end.0;
        cursor.unended_at = None;
        if let Window::Bytes(known) = &mut cursor.before {
            known.clear();
            known.extend_from_slice(before);
        } else {
            cursor.before = Window::Bytes(before.to_vec());
        }
        Some(start)
    }

    /// Notes what a sink has confirmed. False where that is not what it was given next: it is given everything since again.
    pub(super) fn confirm(&mut self, sink: SinkIndex, segment: &Segment) -> bool {
        let Some(cursor) = self.0.get_mut(sink.get()) else { return true };
        let is_next = cursor.confirmed.advance(segment);
        if !is_next {
            *cursor = Cursor::at(cursor.confirmed);
        }
        is_next
    }

    /// Sinks that stand before their offset by `to` go on there.
    pub(super) fn skip_to(&mut self, file: &impl ReadAt, to: impl Fn(SinkIndex) -> u64) -> io::Result<()> {
        for (sink, cursor) in self.sinks().zip(&mut self.0) {
            let offset = to(sink);
            if offset > cursor.read.0 {
                cursor.skip_to(offset, &window_before(file, offset)?);
            }
        }
        Ok(())
    }

    /// What was seen behind `end`, and was not read, is gone.
    pub(super) fn shrink(&mut self, end: u64) {
        for cursor in &mut self.0 {
            let end = end.max(cursor.read.0);
            cursor.searched = cursor.searched.min(end);
            cursor.unended_at = cursor.unended_at.map(|at| at.min(end));
        }
    }

    /// The content ends at `end`, with these bytes, whatever was read behind that.
    pub(super) fn cut(&mut self, end: u64, tail: &[u8]) {
        for cursor in &mut self.0 {
            if cursor.read.0 > end {
                cursor.read = ReadOffset(end);
                cursor.before = Window::Bytes(tail.to_vec());
                if cursor.confirmed.offset.get() > end {
                    cursor.confirmed = Confirmed::skipped_to(end, Fingerprint::of(tail));
                }
            }
            cursor.searched = cursor.read.0;
            cursor.unended_at = None;
        }
    }
}
