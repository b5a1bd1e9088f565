//! A content: what a file holds from its beginning, or its last truncation, to the next one. What was read of it and what was
//! confirmed, and how it is recognised, in its file, in a copy, and after a restart.
//!
//! A file that is truncated has another content from then on. The old one stays a value of its own: the copy that
//! `copytruncate` made takes it over, as it is, with its id, its positions and the chunks that are under way.
//!
//! Where the sinks stand is in `cursors`, what it is recognised by in `marks`.

mod ahead;
mod cursors;
mod marks;
mod window;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lifecycle::escape::escaped_path;

use super::lag::ArrivalTimes;
use crate::checkpoint::{FileEntry, PathText};
use crate::identity::{Epoch, FileId, FileKey, Fingerprint, Instance, WINDOW};
use crate::loss::{LossLedger, LossReason};
use crate::position::{ContentSeq, ReadOffset, Segment, SinkIndex};
use crate::record::chunk::{Chunk, Origin};
use ahead::Ahead;
use cursors::Cursors;
use marks::Marks;
pub(super) use marks::{Comparison, Match};
pub(crate) use window::ReadAt;
pub(super) use window::window_before;

/// What a checkpoint says of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Covered {
    /// How much of its head.
    head: usize,
    /// How far it was read for what was sent.
    sent: u64,
    /// How often an end of it had been taken back.
    shrinks: u32,
}

#[derive(Debug)]
pub(crate) struct Content {
    seq: ContentSeq,
    epoch: Epoch,
    /// Known as soon as the first line is.
    id: Option<FileId>,
    origin: Option<Arc<Origin>>,
    /// As of the last time that the file was compared with it: a size that is seen later may be that of another content.
    size: u64,
    grown: Instant,
    arrivals: ArrivalTimes,
    cursors: Cursors,
    marks: Marks,
    /// Where a copy ends that lacks the rest, and what is before that: confirmations of the rest count up to here.
    ends: Option<(u64, Fingerprint)>,
    /// What the checkpoint on the disk says of it.
    durable: Option<Covered>,
    shrinks: u32,
}

impl Content {
    /// One that was never seen, by a process with this number.
    pub(super) fn new(seq: ContentSeq, run: u64, sinks: usize) -> Self {
        Self {
            seq,
            epoch: Epoch::new(run, seq.0),
            id: None,
            origin: None,
            size: 0,
            grown: Instant::now(),
            arrivals: ArrivalTimes::default(),
            cursors: Cursors::new(sinks),
            marks: Marks::new(),
            ends: None,
            durable: None,
            shrinks: 0,
        }
    }

    /// One that a checkpoint knows, met by a process with this number.
    pub(super) fn restored(seq: ContentSeq, entry: &FileEntry, run: u64, sinks: &[String]) -> Self {
        let new = Self::new(seq, run, 0);
        Self {
            id: entry.id,
            size: entry.size,
            cursors: Cursors::restored(entry.confirmed_by(sinks)),
            marks: Marks::restored(entry),
            durable: entry.id.map(|_| Covered {
                head: entry.head.len,
                sent: entry.sent.map_or(0, |sent| sent.offset.get()),
                shrinks: 0,
            }),
            // Without an id in the checkpoint, the process that wrote it may have sent records under the id of this epoch all the same,
            // where its state directory failed, and the file may hold other lines by now.
            epoch: entry.id.map_or(new.epoch, |_| entry.epoch),
            ..new
        }
    }

    pub(super) fn seq(&self) -> ContentSeq {
        self.seq
    }

    /// How far it was read for the sink that is furthest, in this run or before.
    fn furthest(&self) -> u64 {
        self.marks.furthest(&self.cursors).offset.get()
    }

    /// Whether anything of it was read, in this run or before.
    pub(super) fn was_read(&self) -> bool {
        self.furthest() > 0
    }

    /// Moves it to a later place in the order of reading, where nothing of it was read yet.
    pub(super) fn renumber(&mut self, seq: ContentSeq) {
        if !self.was_read() {
            self.seq = seq;
        }
    }

    /// The id that its records carry, once there is one.
    pub(crate) fn id(&self) -> Option<FileId> {
        self.id
    }

    /// Gives it its id, where it has none, by its first line.
    pub(super) fn identify(&mut self, instance: Instance, key: &FileKey, first_line: &[u8]) {
        if self.id.is_none() {
            self.id = Some(FileId::derive(instance, key, self.epoch, first_line));
        }
    }

    /// As of the last comparison.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// How long it has not grown.
    pub(super) fn quiet(&self) -> Duration {
        self.grown.elapsed()
    }

    /// Where reading goes on for a sink.
    pub(super) fn read_offset(&self, sink: SinkIndex) -> u64 {
        self.cursors.read(sink).unwrap_or(self.size)
    }

    /// How far a line that is longer than a portion was searched for its end.
    pub(super) fn searched(&self, sink: SinkIndex) -> u64 {
        self.cursors.searched(sink)
    }

    pub(super) fn note_searched(&mut self, sink: SinkIndex, searched: u64) {
        self.cursors.note_searched(sink, searched);
    }

    /// The last line was searched to the end of the content, which is here, and has no end yet.
    pub(super) fn note_unended(&mut self, sink: SinkIndex, at: u64) {
        self.note_size(at);
        self.cursors.note_unended(sink, at);
    }

    /// The bytes right before the position of a sink.
    pub(super) fn before(&self, sink: SinkIndex) -> &[u8] {
        self.cursors.before(sink)
    }

    /// What is known of the beginning, from here on: every reader has to find it.
    pub(super) fn known_from(&self, start: u64) -> &[u8] {
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        self.marks.head().bytes().get(start..).unwrap_or_default()
    }

    /// Compares it with what a file of this size holds now.
    pub(super) fn compare(&self, file: &impl ReadAt, size: u64) -> io::Result<Comparison> {
        self.marks.compare(&self.cursors, self.size, file, size)
    }

    /// Notes the size of a file that was compared with it and holds the same; keeps the bytes of what is known by its
    /// fingerprint alone, and the beginning where that was not read yet.
    pub(super) fn observe(&mut self, file: &impl ReadAt, size: u64) -> io::Result<()> {
        self.cursors.observe(file)?;
        self.marks.observe(file, size)?;
        self.note_size(size);
        self.marks.look_ahead(&self.cursors, file, self.size);
        Ok(())
    }

    /// Notes the size of a file that holds the same, or more of it; false where it does not.
    pub(super) fn observe_growth(&mut self, file: &impl ReadAt, size: u64) -> io::Result<bool> {
        let is_same = self.compare(file, size)? == Comparison::Same;
        if is_same {
            self.observe(file, size)?;
        }
        Ok(is_same)
    }

    /// At least so many bytes are of this content.
    pub(super) fn note_size(&mut self, at_least: u64) {
        if at_least > self.size {
            self.grown = Instant::now();
            self.arrivals.note(self.size, self.grown);
            self.size = at_least;
        }
    }

    /// What a restart finds was there before it looked.
    pub(super) fn note_arrival(&mut self) {
        if self.size > 0 {
            self.arrivals.note(0, self.grown);
        }
    }

    /// What was seen behind `end`, and was not read, is gone.
    pub(super) fn shrink(&mut self, end: u64, path: &Path, ledger: &LossLedger) {
        self.lose_from(|sink| end.max(self.read_offset(sink)), LossReason::Truncated, path, ledger);
        self.cursors.shrink(end);
        self.marks.shrink(end);
        self.size = end;
        // What a checkpoint says of it may be more than is left.
        self.durable = None;
        self.shrinks += 1;
    }

    /// Moves a sink's position over what was taken; `seen` is what was before it and what was taken, contiguous.
    pub(super) fn advance(
        &mut self,
        sink: SinkIndex,
        path: &Path,
        seen: &[u8],
        taken: usize,
        chunk: &mut Chunk,
    ) {
        let start = self.read_offset(sink);
        self.extend_head(start, &seen[seen.len() - taken..]);
        let before = &seen[seen.len().saturating_sub(WINDOW)..];
        self.commit_segment(sink, path, before, ReadOffset(start + taken as u64), chunk);
    }

    /// The lines that were pushed into the chunk since the last segment are what was read up to `end`, which has these bytes
    /// before it.
    pub(super) fn commit_segment(
        &mut self,
        sink: SinkIndex,
        path: &Path,
        before: &[u8],
        end: ReadOffset,
        chunk: &mut Chunk,
    ) {
        let Some(origin) = self.origin(path) else { return };
        let Some(start) = self.cursors.advance(sink, before, end) else { return };
        let before_end = Fingerprint::of(before);
        chunk.close(&origin, Segment { content: self.seq, start, end, before_end });
    }

    fn origin(&mut self, path: &Path) -> Option<Arc<Origin>> {
        let path = path.to_string_lossy();
        if self.origin.as_ref().is_none_or(|origin| *origin.path != *path) {
            let id = self.id?;
            self.origin = Some(Arc::new(Origin { id, path: path.as_ref().into() }));
        }
        self.origin.clone()
    }

    /// Keeps the first bytes of the content, of which `bytes` begin at `start`.
    pub(super) fn extend_head(&mut self, start: u64, bytes: &[u8]) {
        self.marks.extend_head(start, bytes);
    }

    /// Sinks that stand before their offset by `to` go on there, as far as that goes: what is before it is neither sent nor lost.
    pub(super) fn skip_to(&mut self, file: &impl ReadAt, to: impl Fn(SinkIndex) -> u64) -> io::Result<()> {
        let size = self.size;
        self.cursors.skip_to(file, |sink| to(sink).min(size))?;
        self.arrivals.forget_before(self.least_confirmed(), self.size);
        Ok(())
    }

    /// Notes what a sink has confirmed.
    pub(super) fn confirm(&mut self, sink: SinkIndex, segment: &Segment, path: &Path) {
        let mut segment = segment.clone();
        if let Some((end, before_end)) = self.ends
            && segment.end.0 > end
        {
            if segment.start.0 >= end {
                return;
            }
            (segment.end, segment.before_end) = (ReadOffset(end), before_end);
        }
        if !self.cursors.confirm(sink, &segment) {
            // Cannot happen while one chunk is under way per sink. Should it, the lines are sent again rather than lost.
            tracing::error!(file = %escaped_path(path), ?segment, "confirmed out of order: reading again");
        }
        self.arrivals.forget_before(self.least_confirmed(), self.size);
    }

    /// Up to where every sink has confirmed it.
    pub(crate) fn least_confirmed(&self) -> u64 {
        let confirmed = self.cursors.all_confirmed().map(|confirmed| confirmed.offset.get());
        confirmed.min().unwrap_or_default()
    }

    /// Up to where a sink has confirmed it.
    pub(crate) fn confirmed(&self, sink: SinkIndex) -> u64 {
        self.cursors.confirmed(sink)
    }

    /// Bytes that a sink has not confirmed.
    pub(crate) fn unconfirmed(&self, sink: SinkIndex) -> u64 {
        self.size.saturating_sub(self.confirmed(sink))
    }

    /// Bytes that sinks have not confirmed, for all sinks together.
    pub(super) fn unconfirmed_by_all(&self) -> u64 {
        self.cursors.sinks().map(|sink| self.unconfirmed(sink)).sum()
    }

    /// Of those of one sink, the bytes of a last line that is known to have no end: all that is left where everything before is confirmed.
    pub(crate) fn unfinished(&self, sink: SinkIndex) -> u64 {
        self.cursors.unfinished(sink, self.size)
    }

    /// When the first unconfirmed byte was seen; nothing where only a last line without an end waits, which no agent could ship.
    pub(crate) fn waiting_since(&self, sink: SinkIndex) -> Option<Instant> {
        let waits = self.unconfirmed(sink) > self.unfinished(sink);
        if waits { self.arrivals.first_seen(self.confirmed(sink)) } else { None }
    }

    /// Whether a sink has been given all there is.
    pub(crate) fn is_read(&self, sink: SinkIndex) -> bool {
        self.read_offset(sink) >= self.size
    }

    /// Whether every sink has been given all there is.
    pub(super) fn is_read_by_all(&self) -> bool {
        self.cursors.sinks().all(|sink| self.is_read(sink))
    }

    /// Whether every sink has everything.
    pub(super) fn is_drained(&self) -> bool {
        self.cursors.sinks().all(|sink| self.unconfirmed(sink) == 0)
    }

    /// Whether a sink has been given what it has not confirmed.
    pub(super) fn is_under_way(&self) -> bool {
        self.cursors.are_under_way()
    }

    /// Its bytes are gone: what was not read is lost, and nothing but what is under way is left of it.
    pub(super) fn lose_unread(&mut self, reason: LossReason, path: &Path, ledger: &LossLedger) {
        self.lose_from(|sink| self.read_offset(sink), reason, path, ledger);
        self.size = self.size.min(self.cursors.furthest().offset.get());
    }

    /// Its bytes are gone, and nothing that is under way will be waited for: what was not confirmed is lost. Returns how many bytes that
    /// is, for all sinks together.
    pub(super) fn lose_unconfirmed(&self, reason: LossReason, path: &Path, ledger: &LossLedger) -> u64 {
        self.lose_from(|sink| self.confirmed(sink), reason, path, ledger);
        self.unconfirmed_by_all()
    }

    fn lose_from(
        &self,
        from: impl Fn(SinkIndex) -> u64,
        reason: LossReason,
        path: &Path,
        ledger: &LossLedger,
    ) {
        for sink in self.cursors.sinks() {
            ledger.record_lost(reason, sink, path, from(sink)..self.size);
        }
    }

    /// Whether a file of this size holds a copy of it.
    pub(super) fn is_copied_in(&self, copy: &impl ReadAt, size: u64, how: Match) -> io::Result<bool> {
        self.marks.is_copied_in(&self.cursors, self.size, copy, size, how)
    }

    /// Whether a file begins as it does, as far as both go.
    pub(super) fn begins_like(&self, file: &impl ReadAt) -> io::Result<bool> {
        self.marks.begins_like(file)
    }

    /// It lies in a copy of this size from now on, which may lack its end.
    pub(super) fn move_to_copy(
        &mut self,
        copy: &impl ReadAt,
        size: u64,
        original: &Path,
        ledger: &LossLedger,
    ) -> io::Result<()> {
        let tail = window_before(copy, size)?;
        let not_copied = |sink| self.read_offset(sink).max(size);
        self.lose_from(not_copied, LossReason::Truncated, original, ledger);
        self.cursors.cut(size, &tail);
        self.marks.cut(size);
        self.ends = Some((size, Fingerprint::of(&tail)));
        self.size = self.size.min(size);
        self.observe(copy, size)
    }

    /// Whether a restart would know it again, so that a segment that ends here may be sent: its records keep their ids, and no
    /// other content gets them.
    pub(super) fn is_durable(&self, end: ReadOffset) -> bool {
        let needed = usize::try_from(end.0).map_or(WINDOW, |end| end.min(WINDOW));
        self.durable.is_some_and(|durable| durable.head >= needed)
    }

    /// Its id, where the checkpoint on the disk does not say that what is before this place may have been sent.
    pub(super) fn uncovered(&self, end: ReadOffset) -> Option<FileId> {
        if self.durable.is_some_and(|durable| durable.sent >= end.0) { None } else { self.id }
    }

    /// Whether a restart would know it again, and that what is before this place may have been sent.
    pub(super) fn is_covered(&self, end: ReadOffset) -> bool {
        self.is_durable(end) && self.uncovered(end).is_none()
    }

    /// What an entry that is made now says of it; nothing before it has its id.
    pub(super) fn covered(&self) -> Option<Covered> {
        let (head, sent) = (self.marks.head().len(), self.furthest());
        self.id.map(|_| Covered { head, sent, shrinks: self.shrinks })
    }

    /// An entry that says this is on the disk.
    pub(super) fn note_durable(&mut self, covered: Covered) {
        if covered.shrinks == self.shrinks {
            self.durable = Some(covered);
        }
    }

    /// Looks ahead for an entry of the checkpoint, where the file holds it still.
    pub(super) fn prepare_entry(&mut self, file: &impl ReadAt) {
        if !self.marks.has_looked_ahead(&self.cursors, self.size)
            && self.compare(file, self.size).is_ok_and(|is| is == Comparison::Same)
        {
            self.marks.look_ahead(&self.cursors, file, self.size);
        }
    }

    /// What to remember of it.
    pub(super) fn entry(&self, key: FileKey, path: &Path, log: &Path, sinks: &[String]) -> FileEntry {
        let confirmed = sinks.iter().cloned().zip(self.cursors.all_confirmed());
        let sent = self.marks.furthest(&self.cursors);
        let (tail, at) = (self.marks.tail(self.size), sent.offset.get());
        let next = self.marks.next().filter(|next| next.at() >= at && !next.bytes().is_empty());
        let next = next.filter(|_| tail.is_some());
        FileEntry {
            key,
            epoch: self.epoch,
            id: self.id,
            path: path.to_owned(),
            log: (log != path).then(|| PathText(log.to_owned())),
            size: self.size,
            head: self.marks.head().print(),
            tail,
            next: next.map(|next| next.bytes().to_vec()),
            next_at: next.map(Ahead::at).filter(|next| *next != at),
            sent_since: Vec::new(),
            sent: Some(sent).filter(|sent| sent.offset.get() > 0),
            confirmed: confirmed.collect(),
            seen: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            given_up: 0,
            gone: false,
            pending_copy: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl ReadAt for Vec<u8> {
        fn fill(&self, buffer: &mut [u8], from: u64) -> io::Result<usize> {
            let rest = self.get(usize::try_from(from).unwrap()..).unwrap_or_default();
            let filled = rest.len().min(buffer.len());
            buffer[..filled].copy_from_slice(&rest[..filled]);
            Ok(filled)
        }
    }

    /// A content of these bytes, of which the first `read` were read.
    fn content(bytes: &str, read: u64) -> Content {
        let mut content = Content::new(ContentSeq(1), 0, 1);
        let file = bytes.as_bytes().to_vec();
        content.observe(&file, file.len() as u64).unwrap();
        let before = window_before(&file, read).unwrap();
        content.cursors.advance(SinkIndex(0), &before, ReadOffset(read));
        content
    }

    fn compare(content: &Content, now: &str) -> Comparison {
        content.compare(&now.as_bytes().to_vec(), now.len() as u64).unwrap()
    }

    #[test]
    fn what_was_read_and_what_was_seen_are_compared_with_what_is_there() {
        let read = content("one\ntwo\nthree\n", 8);
        assert_eq!(compare(&read, "one\ntwo\nthree\nfour\n"), Comparison::Same);
        assert_eq!(compare(&read, "one\ntwo\nth"), Comparison::Shrunk(10), "an end is taken back");
        assert_eq!(compare(&read, "one\ntwo\nother\n"), Comparison::Shrunk(8), "and written again");
        assert_eq!(compare(&read, "one\ntwi\nthree\n"), Comparison::Replaced);
        assert_eq!(compare(&read, "one\n"), Comparison::Replaced);
        let unread = content("one\n", 0);
        assert_eq!(compare(&unread, "one\ntwo\n"), Comparison::Same);
        assert_eq!(
            compare(&unread, ""),
            Comparison::Replaced,
            "nothing was sent, so nothing ties it to its id"
        );
        assert_eq!(compare(&unread, "other and longer\n"), Comparison::Replaced);
    }

    #[test]
    fn after_a_restart_fingerprints_decide() {
        let sinks = ["sink".to_owned()];
        let key = FileKey::of(&std::fs::metadata("/").unwrap());
        let path = Path::new("/logs/a");
        let before = content("header\none\n", 7);
        let entry = before.entry(key, path, path, &sinks);
        let after = Content::restored(ContentSeq(2), &entry, 1, &sinks);
        assert_eq!(after.read_offset(SinkIndex(0)), 0, "nothing was confirmed");
        assert_eq!(compare(&after, "header\none\ntwo\n"), Comparison::Same);
        assert_eq!(
            compare(&after, "header\ntwo\nthree\n"),
            Comparison::Replaced,
            "what was read is known, too"
        );
    }

    #[test]
    fn a_copy_has_all_that_was_read_or_where_it_is_short_a_beginning() {
        let original = content("one\ntwo\nthree\n", 8);
        let is = |copy: &str, how| {
            original.is_copied_in(&copy.as_bytes().to_vec(), copy.len() as u64, how).unwrap()
        };
        assert!(is("one\ntwo\nthree\nfour\n", Match::Full));
        assert!(is("one\ntwo\n", Match::Prefix) && !is("one\n", Match::Full));
        assert!(is("one\n", Match::Prefix));
        assert!(!is("two\n", Match::Prefix) && !is("", Match::Prefix));
    }
}
