//! A content: what a file holds from its beginning, or its last truncation, to the next one. What was read of it and what was
//! confirmed, and how it is recognised, in its file, in a copy, and after a restart.
//!
//! A file that is truncated has another content from then on. The old one stays a value of its own: the copy that
//! `copytruncate` made takes it over, as it is, with its id, its positions and the chunks that are under way.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::lag::ArrivalTimes;
use crate::checkpoint::FileEntry;
use crate::identity::{Epoch, FileId, FileKey, Fingerprint, Instance, WINDOW};
use crate::loss::{LossLedger, LossReason};
use crate::position::{Confirmed, ContentSeq, ReadOffset, Segment, SinkIndex};
use crate::record::chunk::{Chunk, Origin};

/// So many bytes behind what was read are kept.
const AHEAD: usize = 64;
/// The line in which the first window ends is looked through this far for its end.
const LINE_SEARCH: u64 = 4096;

/// What bytes can be read from.
pub(crate) trait ReadAt {
    /// Reads until the buffer is full or the bytes end.
    fn fill(&self, buffer: &mut [u8], from: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn fill(&self, buffer: &mut [u8], from: u64) -> io::Result<usize> {
        #[cfg(test)]
        super::slow_disk::read();
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], from + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// Bytes of a content, at most [`WINDOW`]; or what a restart leaves of them.
#[derive(Debug, Clone)]
enum Window {
    Bytes(Vec<u8>),
    Print(Fingerprint),
}

impl Window {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Print(print) => print.len.min(WINDOW),
        }
    }

    fn print(&self) -> Fingerprint {
        match self {
            Self::Bytes(bytes) => Fingerprint::of(bytes),
            Self::Print(print) => *print,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Print(_) => &[],
        }
    }

    /// Whether these bytes, as many as there are, are its own.
    fn is(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Bytes(known) => known == bytes,
            Self::Print(print) => print.matches(bytes),
        }
    }
}

/// The first bytes that are known by nothing else: those behind what was read, or, where that is within the first window, behind the line
/// in which the window ends. Many logs begin with the same lines, and these tell them apart.
#[derive(Debug, Clone)]
struct Ahead {
    /// How far the content was read, and how long it was, when it was looked at.
    read: u64,
    size: u64,
    at: u64,
    bytes: Vec<u8>,
}

impl Ahead {
    /// Looks into a content with a head of this length.
    fn look(file: &impl ReadAt, head: usize, read: u64, size: u64) -> Self {
        let at = if read < head as u64 { end_of_line(file, head as u64, size) } else { Some(read) };
        let (at, len) = at.map_or((size, 0), |at| (at, size.saturating_sub(at)));
        let mut bytes = vec![0; usize::try_from(len).map_or(AHEAD, |len| len.min(AHEAD))];
        let filled = file.fill(&mut bytes, at).unwrap_or_default();
        bytes.truncate(filled);
        Self { read, size, at, bytes }
    }

    /// Whether another look, at a content that was read this far and is this long, would find no more.
    fn is_of(&self, head: usize, read: u64, size: u64) -> bool {
        let is_whole = self.bytes.len() == AHEAD
            || self.size == size
            || (self.bytes.is_empty() && self.size > head as u64 + LINE_SEARCH);
        self.read == read && is_whole
    }

    /// From where on a file holds other lines, where it does.
    fn changed_from(&self, file: &impl ReadAt) -> io::Result<Option<u64>> {
        let mut is = [0; AHEAD];
        let filled = file.fill(&mut is[..self.bytes.len()], self.at)?;
        let alike = self.bytes.iter().zip(&is[..filled]).take_while(|(known, is)| known == is).count();
        Ok((alike < filled).then(|| self.at + line_start(&self.bytes[..alike])))
    }
}

/// Where the line ends that the byte before `from` belongs to.
fn end_of_line(file: &impl ReadAt, from: u64, size: u64) -> Option<u64> {
    let from = from.saturating_sub(1);
    let len = size.saturating_sub(from).min(LINE_SEARCH);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    let filled = file.fill(&mut bytes, from).unwrap_or_default();
    memchr::memchr(b'\n', &bytes[..filled]).map(|newline| from + newline as u64 + 1)
}

/// Where one sink stands.
#[derive(Debug)]
struct Cursor {
    read: ReadOffset,
    /// For a line too long for one portion: how far it has been searched for its end.
    searched: u64,
    /// The bytes right before `read`, as they were when they were read.
    before: Window,
    confirmed: Confirmed,
}

impl Cursor {
    fn at_start() -> Self {
        Self {
            read: ReadOffset(0),
            searched: 0,
            before: Window::Bytes(Vec::new()),
            confirmed: Confirmed::nothing(),
        }
    }
}

/// What a file holds, compared with a content that it held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// The same.
    Same,
    /// The same up to here; what had been seen behind it, and was not read, is gone.
    Shrunk(u64),
    /// Another content.
    Replaced,
}

/// What counts as the copy of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// All that was seen is in it, up to the end.
    Whole,
    /// All that was read is in it.
    Full,
    /// It may end earlier: what was written after it was made, and before the truncation, was in the original alone.
    Prefix,
}

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

/// See the module.
#[derive(Debug)]
pub(crate) struct Content {
    seq: ContentSeq,
    epoch: Epoch,
    /// Known as soon as the first line is.
    id: Option<FileId>,
    origin: Option<Arc<Origin>>,
    /// The first bytes.
    head: Window,
    /// As of the last time that the file was compared with it: a size that is seen later may be that of another content.
    size: u64,
    grown: Instant,
    arrivals: ArrivalTimes,
    cursors: Vec<Cursor>,
    /// After a restart: how far it had been read before for what was sent, and what is before that.
    sent: Option<Confirmed>,
    /// Where a copy ends that lacks the rest, and what is before that: confirmations of the rest count up to here.
    ends: Option<(u64, Fingerprint)>,
    /// After a restart, until it was compared: places that have these bytes before them.
    proofs: Vec<Confirmed>,
    /// Of the bytes before its end, where that was behind what was read, and where it was.
    tail: Option<(u64, Fingerprint)>,
    /// And bytes behind what was read.
    next: Option<Ahead>,
    /// What the checkpoint on the disk says of it.
    durable: Option<Covered>,
    shrinks: u32,
}

impl Content {
    /// One that was never seen.
    pub(super) fn new(seq: ContentSeq, epoch: Epoch, sinks: usize) -> Self {
        Self {
            seq,
            epoch,
            id: None,
            origin: None,
            head: Window::Bytes(Vec::new()),
            size: 0,
            grown: Instant::now(),
            arrivals: ArrivalTimes::default(),
            cursors: (0..sinks).map(|_| Cursor::at_start()).collect(),
            sent: None,
            ends: None,
            proofs: Vec::new(),
            tail: None,
            next: None,
            durable: None,
            shrinks: 0,
        }
    }

    /// One that a checkpoint knows.
    pub(super) fn restored(seq: ContentSeq, entry: &FileEntry, sinks: &[String]) -> Self {
        let cursor = |confirmed: Confirmed| Cursor {
            read: confirmed.offset.resume(),
            searched: confirmed.offset.get(),
            before: Window::Print(confirmed.before),
            confirmed,
        };
        Self {
            id: entry.id,
            head: Window::Print(entry.head),
            size: entry.size,
            cursors: entry.confirmed_by(sinks).into_iter().map(cursor).collect(),
            sent: entry.sent,
            proofs: entry.sent_since.clone(),
            tail: entry.tail.map(|tail| (entry.size, tail)),
            next: entry.next.clone().map(|bytes| {
                let read = entry.sent.map_or(0, |sent| sent.offset.get());
                Ahead { read, size: entry.size, at: entry.next_at.unwrap_or(read), bytes }
            }),
            durable: entry.id.map(|_| Covered {
                head: entry.head.len,
                sent: entry.sent.map_or(0, |sent| sent.offset.get()),
                shrinks: 0,
            }),
            ..Self::new(seq, entry.epoch, 0)
        }
    }

    pub(super) fn seq(&self) -> ContentSeq {
        self.seq
    }

    /// Whether anything of it was read, in this run or before.
    pub(super) fn was_read(&self) -> bool {
        self.furthest().offset.get() > 0
    }

    /// Moves it to a later place in the order of reading, where nothing of it was read yet.
    pub(super) fn renumber(&mut self, seq: ContentSeq) {
        if !self.was_read() {
            self.seq = seq;
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
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
        self.cursors.get(sink.get()).map_or(self.size, |cursor| cursor.read.0)
    }

    /// How far a line that is longer than a portion was searched for its end.
    pub(super) fn searched(&self, sink: SinkIndex) -> u64 {
        self.cursors.get(sink.get()).map_or(0, |cursor| cursor.searched)
    }

    pub(super) fn note_searched(&mut self, sink: SinkIndex, searched: u64) {
        if let Some(cursor) = self.cursors.get_mut(sink.get()) {
            cursor.searched = searched;
        }
    }

    /// The bytes right before the position of a sink.
    pub(super) fn before(&self, sink: SinkIndex) -> &[u8] {
        self.cursors.get(sink.get()).map_or(&[], |cursor| cursor.before.bytes())
    }

    /// What is known of the beginning, from here on: every reader has to find it.
    pub(super) fn known_from(&self, start: u64) -> &[u8] {
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        self.head.bytes().get(start..).unwrap_or_default()
    }

    /// How far it was read for the sink that is furthest, in this run or before.
    fn furthest(&self) -> Confirmed {
        let read =
            self.cursors.iter().max_by_key(|cursor| cursor.read).map_or_else(Confirmed::nothing, |cursor| {
                Confirmed::skipped_to(cursor.read.0, cursor.before.print())
            });
        self.sent.filter(|sent| sent.offset > read.offset).unwrap_or(read)
    }

    /// Compares it with what a file of this size holds now.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn compare(&self, file: &impl ReadAt, size: u64) -> io::Result<Comparison> {
        let mut buffer = [0; WINDOW];
        let mut is_at = |window: &Window, end: u64| -> io::Result<bool> {
            let part = &mut buffer[..window.len()];
            let Some(from) = end.checked_sub(part.len() as u64) else { return Ok(false) };
            let filled = file.fill(part, from)?;
            Ok(filled == part.len() && window.is(part))
        };
        let mut read = 0;
        for cursor in &self.cursors {
            read = read.max(cursor.read.0);
            if !is_at(&cursor.before, cursor.read.0)? {
                return Ok(Comparison::Replaced);
            }
        }
        if let Some(sent) = self.sent.filter(|sent| sent.offset.get() > read) {
            read = sent.offset.get();
            if !is_at(&Window::Print(sent.before), read)? {
                return Ok(Comparison::Replaced);
            }
        }
        for proof in &self.proofs {
            if !is_at(&Window::Print(proof.before), proof.offset.get())? {
                return Ok(Comparison::Replaced);
            }
        }
        let tail = match self.tail {
            Some((end, tail)) if size >= end => is_at(&Window::Print(tail), end)?,
            _ => true,
        };
        let changed = match &self.next {
            Some(next) if next.at >= read => next.changed_from(file)?,
            _ => None,
        };
        let Window::Bytes(head) = &self.head else {
            let is_other = size < self.size || changed.is_some();
            if !is_at(&self.head, self.head.len() as u64)? || (read == 0 && is_other) {
                return Ok(Comparison::Replaced);
            }
            return Ok(match changed {
                Some(end) => Comparison::Shrunk(end),
                None if size < self.size => Comparison::Shrunk(size),
                None if tail => Comparison::Same,
                None => Comparison::Shrunk(read),
            });
        };
        let filled = file.fill(&mut buffer[..head.len()], 0)?;
        let alike = head.iter().zip(&buffer[..filled]).take_while(|(known, is)| known == is).count();
        let known = usize::try_from(read).map_or(head.len(), |read| read.min(head.len()));
        // Where nothing was read, nothing was sent: what is there now is another content as soon as anything is missing.
        if alike < known
            || (read == 0 && (alike < head.len() || size < self.size || !tail || changed.is_some()))
        {
            return Ok(Comparison::Replaced);
        }
        Ok(if alike < head.len() {
            // The line that is another one is gone as a whole.
            Comparison::Shrunk(if alike == filled { size } else { line_start(&head[..alike]).max(read) })
        } else if let Some(end) = changed {
            Comparison::Shrunk(end)
        } else if size < self.size {
            Comparison::Shrunk(size)
        } else if !tail {
            Comparison::Shrunk(read)
        } else {
            Comparison::Same
        })
    }

    /// Notes the size of a file that was compared with it and holds the same; keeps the bytes of what is known by its
    /// fingerprint alone, and the beginning where that was not read yet.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn observe(&mut self, file: &impl ReadAt, size: u64) -> io::Result<()> {
        self.proofs.clear();
        for cursor in &mut self.cursors {
            if let Window::Print(print) = cursor.before {
                cursor.before = Window::Bytes(bytes_before(file, cursor.read.0, print.len.min(WINDOW))?);
            }
        }
        let wanted = usize::try_from(size).map_or(WINDOW, |size| size.min(WINDOW));
        if matches!(self.head, Window::Print(_)) || self.head.len() < wanted {
            let mut head = vec![0; wanted.max(self.head.len())];
            let filled = file.fill(&mut head, 0)?;
            head.truncate(filled);
            self.head = Window::Bytes(head);
        }
        self.note_size(size);
        self.look_ahead(file);
        Ok(())
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
        for (sink, cursor) in SinkIndex::all(self.cursors.len()).zip(&mut self.cursors) {
            ledger.record_lost(LossReason::Truncated, sink, path, end.max(cursor.read.0)..self.size);
            cursor.searched = cursor.searched.min(end.max(cursor.read.0));
        }
        self.size = end;
        // What a checkpoint says of it may be more than is left.
        (self.durable, self.tail, self.next) = (None, None, None);
        self.shrinks += 1;
        if let Window::Bytes(head) = &mut self.head {
            head.truncate(usize::try_from(end).unwrap_or(WINDOW));
        }
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
        let Some(cursor) = self.cursors.get_mut(sink.get()) else { return };
        let before_end = Fingerprint::of(before);
        chunk.close(&origin, Segment { content: self.seq, start: cursor.read, end, before_end });
        cursor.read = end;
        cursor.searched = end.0;
        if let Window::Bytes(known) = &mut cursor.before {
            known.clear();
            known.extend_from_slice(before);
        } else {
            cursor.before = Window::Bytes(before.to_vec());
        }
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
        let Window::Bytes(head) = &mut self.head else { return };
        if head.len() < WINDOW
            && let Some(skip) = (head.len() as u64).checked_sub(start)
            && let Some(new) = usize::try_from(skip).ok().and_then(|skip| bytes.get(skip..))
        {
            let room = WINDOW - head.len();
            head.extend_from_slice(&new[..new.len().min(room)]);
        }
    }

    /// Begins behind what is there now: at the last line break before this offset, and nothing before it is lost or sent.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn skip_to(&mut self, file: &impl ReadAt, offset: u64) -> io::Result<()> {
        let before =
            bytes_before(file, offset, usize::try_from(offset).map_or(WINDOW, |len| len.min(WINDOW)))?;
        for cursor in &mut self.cursors {
            cursor.read = ReadOffset(offset);
            cursor.searched = offset;
            cursor.confirmed = Confirmed::skipped_to(offset, Fingerprint::of(&before));
            cursor.before = Window::Bytes(before.clone());
        }
        self.arrivals.clear();
        Ok(())
    }

    /// What was entered as lost before is not sent after all: sinks that stand before `offset` go on there.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn skip_given_up(&mut self, file: &impl ReadAt, offset: u64) -> io::Result<()> {
        let offset = offset.min(self.size);
        let before =
            bytes_before(file, offset, usize::try_from(offset).map_or(WINDOW, |len| len.min(WINDOW)))?;
        for cursor in self.cursors.iter_mut().filter(|cursor| cursor.read.0 < offset) {
            cursor.read = ReadOffset(offset);
            cursor.searched = offset;
            cursor.confirmed = Confirmed::skipped_to(offset, Fingerprint::of(&before));
            cursor.before = Window::Bytes(before.clone());
        }
        Ok(())
    }

    /// Sinks go on where they are in `original`, as far as that goes here.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn skip_confirmed_of(&mut self, original: &Self, file: &impl ReadAt) -> io::Result<()> {
        for (cursor, of_original) in self.cursors.iter_mut().zip(&original.cursors) {
            let offset = of_original.confirmed.offset.get().min(self.size);
            if offset > cursor.read.0 {
                let window = usize::try_from(offset).map_or(WINDOW, |len| len.min(WINDOW));
                let before = bytes_before(file, offset, window)?;
                cursor.read = ReadOffset(offset);
                cursor.searched = offset;
                cursor.confirmed = Confirmed::skipped_to(offset, Fingerprint::of(&before));
                cursor.before = Window::Bytes(before);
            }
        }
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
        if let Some(cursor) = self.cursors.get_mut(sink.get())
            && !cursor.confirmed.advance(&segment)
        {
            // Cannot happen while one chunk is under way per sink. Should it, the lines are sent again rather than lost.
            tracing::error!(file = %path.display(), ?segment, "confirmed out of order: reading again");
            cursor.read = cursor.confirmed.offset.resume();
            cursor.searched = cursor.read.0;
            cursor.before = Window::Print(cursor.confirmed.before);
        }
        self.arrivals.forget_before(self.least_confirmed(), self.size);
    }

    /// Up to where every sink has confirmed it.
    pub(crate) fn least_confirmed(&self) -> u64 {
        self.cursors.iter().map(|cursor| cursor.confirmed.offset.get()).min().unwrap_or_default()
    }

    /// Up to where a sink has confirmed it.
    pub(crate) fn confirmed(&self, sink: SinkIndex) -> u64 {
        self.cursors.get(sink.get()).map_or(0, |cursor| cursor.confirmed.offset.get())
    }

    /// Bytes that a sink has not confirmed.
    pub(crate) fn unconfirmed(&self, sink: SinkIndex) -> u64 {
        self.size.saturating_sub(self.confirmed(sink))
    }

    /// Of those, the bytes of a last line without an end: all that is left where everything before is confirmed.
    pub(crate) fn unfinished(&self, sink: SinkIndex) -> u64 {
        self.cursors.get(sink.get()).map_or(0, |cursor| {
            if cursor.searched >= self.size { self.size.saturating_sub(cursor.read.0) } else { 0 }
        })
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
        SinkIndex::all(self.cursors.len()).all(|sink| self.is_read(sink))
    }

    /// Whether every sink has everything.
    pub(super) fn is_drained(&self) -> bool {
        SinkIndex::all(self.cursors.len()).all(|sink| self.unconfirmed(sink) == 0)
    }

    /// Whether a sink has been given what it has not confirmed.
    pub(super) fn is_under_way(&self) -> bool {
        self.cursors.iter().any(|cursor| cursor.read.0 > cursor.confirmed.offset.get())
    }

    /// Its bytes are gone: what was not read is lost, and nothing but what is under way is left of it.
    pub(super) fn lose_unread(&mut self, reason: LossReason, path: &Path, ledger: &LossLedger) {
        let mut furthest = 0;
        for (sink, cursor) in SinkIndex::all(self.cursors.len()).zip(&self.cursors) {
            ledger.record_lost(reason, sink, path, cursor.read.0..self.size);
            furthest = furthest.max(cursor.read.0);
        }
        self.size = self.size.min(furthest);
    }

    /// Its bytes are gone, and nothing that is under way will be waited for: what was not confirmed is lost.
    pub(super) fn lose_unconfirmed(&self, reason: LossReason, path: &Path, ledger: &LossLedger) {
        for sink in SinkIndex::all(self.cursors.len()) {
            ledger.record_lost(reason, sink, path, self.confirmed(sink)..self.size);
        }
    }

    /// Whether a file of this size holds a copy of it.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn is_copied_in(&self, copy: &impl ReadAt, size: u64, how: Match) -> io::Result<bool> {
        let furthest = self.furthest();
        // What was sent before a restart, and is known by its fingerprint alone, has to be there whole: else other lines may be there.
        let whole = how != Match::Prefix || self.sent.is_some_and(|sent| sent.offset.get() > size);
        let is_short = how == Match::Whole && self.size > size;
        if size == 0 || is_short || (whole && furthest.offset.get() > size) {
            return Ok(false);
        }
        // As much of a window as the copy has room for. A fingerprint is of the whole of it, or says nothing.
        let mut proofs = 0;
        let mut shares = |window: &Window, end: u64| -> io::Result<bool> {
            let from = end.saturating_sub(window.len() as u64);
            let room = usize::try_from(size.saturating_sub(from)).unwrap_or(usize::MAX);
            let mut is = vec![0; window.len().min(room)];
            let filled = copy.fill(&mut is, from)?;
            is.truncate(filled);
            let alike = match window {
                Window::Bytes(bytes) => bytes.starts_with(&is),
                Window::Print(print) if is.len() == print.len => print.matches(&is),
                Window::Print(_) => return Ok(how == Match::Prefix),
            };
            proofs += usize::from(alike && !is.is_empty());
            Ok(alike)
        };
        // All that a restart knows of the beginning has to be there: less would be proof of nothing.
        if matches!(self.head, Window::Print(print) if (print.len as u64) > size) {
            return Ok(false);
        }
        let mut alike = shares(&self.head, self.head.len() as u64)?;
        for cursor in &self.cursors {
            alike &= shares(&cursor.before, cursor.read.0)?;
        }
        if let Some(sent) = self.sent {
            alike &= shares(&Window::Print(sent.before), sent.offset.get())?;
        }
        // What was seen and not read may be behind the end of the copy.
        if let Some(next) = self.next.as_ref().filter(|next| next.at < size) {
            alike &= shares(&Window::Bytes(next.bytes.clone()), next.at + next.bytes.len() as u64)?;
        }
        let seen = self.tail.map(|(size, tail)| Confirmed::skipped_to(size, tail));
        for seen in self.proofs.iter().copied().chain(seen).filter(|seen| seen.offset.get() <= size) {
            alike &= shares(&Window::Print(seen.before), seen.offset.get())?;
        }
        Ok(alike && proofs > 0)
    }

    /// Whether a file begins as it does, as far as both go.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn begins_like(&self, file: &impl ReadAt) -> io::Result<bool> {
        let mut head = vec![0; self.head.len()];
        let filled = file.fill(&mut head, 0)?;
        Ok(match &self.head {
            Window::Bytes(known) => known.starts_with(&head[..filled]) && (filled > 0 || !known.is_empty()),
            Window::Print(print) => filled == 0 || print.matches(&head[..filled]),
        })
    }

    /// It lies in a copy of this size from now on, which may lack its end.
    ///
    /// # Errors
    /// Where the copy cannot be read.
    pub(super) fn move_to_copy(
        &mut self,
        copy: &impl ReadAt,
        size: u64,
        original: &Path,
        ledger: &LossLedger,
    ) -> io::Result<()> {
        let tail = bytes_before(copy, size, usize::try_from(size).map_or(WINDOW, |size| size.min(WINDOW)))?;
        let print = Fingerprint::of(&tail);
        for (sink, cursor) in SinkIndex::all(self.cursors.len()).zip(&mut self.cursors) {
            // Neither read nor copied.
            ledger.record_lost(LossReason::Truncated, sink, original, cursor.read.0.max(size)..self.size);
            if cursor.read.0 > size {
                cursor.read = ReadOffset(size);
                cursor.searched = size;
                cursor.before = Window::Bytes(tail.clone());
                cursor.confirmed = cursor.confirmed.at_most(size, print);
            }
            cursor.searched = cursor.read.0;
        }
        if let Window::Bytes(head) = &mut self.head {
            head.truncate(usize::try_from(size).unwrap_or(WINDOW));
        }
        if self.sent.is_some_and(|sent| sent.offset.get() > size) {
            self.sent = None;
        }
        self.ends = Some((size, print));
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

    /// What an entry that is made now says of it; nothing before it has its id.
    pub(super) fn covered(&self) -> Option<Covered> {
        let sent = self.furthest().offset.get();
        self.id.map(|_| Covered { head: self.head.len(), sent, shrinks: self.shrinks })
    }

    /// Of the bytes before its end, where they were looked at.
    fn tail(&self) -> Option<Fingerprint> {
        self.tail.filter(|(size, _)| *size == self.size).map(|(_, tail)| tail)
    }

    /// An entry that says this is on the disk.
    pub(super) fn note_durable(&mut self, covered: Covered) {
        if covered.shrinks == self.shrinks {
            self.durable = Some(covered);
        }
    }

    /// Looks at the bytes before its end and at those behind what was read, where that is not the end: they have to be there when it is
    /// read on. Right before, the file was compared with it.
    fn look_ahead(&mut self, file: &impl ReadAt) {
        if self.has_looked_ahead() {
            return;
        }
        let window = usize::try_from(self.size).map_or(WINDOW, |size| size.min(WINDOW));
        let bytes = bytes_before(file, self.size, window).ok().filter(|bytes| bytes.len() == window);
        self.tail = bytes.map(|bytes| (self.size, Fingerprint::of(&bytes)));
        let read = self.furthest().offset.get();
        self.next = Some(Ahead::look(file, self.head.len(), read, self.size));
    }

    fn has_looked_ahead(&self) -> bool {
        let read = self.furthest().offset.get();
        let next = self.next.as_ref().is_some_and(|next| next.is_of(self.head.len(), read, self.size));
        read >= self.size || (next && self.tail().is_some())
    }

    /// Looks ahead for an entry of the checkpoint, where the file holds it still.
    pub(super) fn prepare_entry(&mut self, file: &impl ReadAt) {
        if !self.has_looked_ahead() && self.compare(file, self.size).is_ok_and(|is| is == Comparison::Same) {
            self.look_ahead(file);
        }
    }

    /// What to remember of it.
    pub(super) fn entry(&self, key: FileKey, path: &Path, log: &Path, sinks: &[String]) -> FileEntry {
        let confirmed = sinks.iter().cloned().zip(self.cursors.iter().map(|cursor| cursor.confirmed));
        let sent = self.furthest().offset.get();
        let next = self.tail().and(self.next.as_ref());
        let next = next.filter(|next| next.at >= sent && !next.bytes.is_empty());
        FileEntry {
            key,
            epoch: self.epoch,
            id: self.id,
            path: path.to_owned(),
            log: (log != path).then(|| log.to_owned()),
            size: self.size,
            head: self.head.print(),
            tail: self.tail(),
            next: next.map(|next| next.bytes.clone()),
            next_at: next.map(|next| next.at).filter(|at| *at != sent),
            sent_since: Vec::new(),
            sent: Some(self.furthest()).filter(|sent| sent.offset.get() > 0),
            confirmed: confirmed.collect(),
            seen: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            given_up: 0,
            gone: false,
        }
    }
}

/// Where the last line of these begins.
fn line_start(lines: &[u8]) -> u64 {
    lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1)
}

fn bytes_before(file: &impl ReadAt, end: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let filled = file.fill(&mut bytes, end.saturating_sub(len as u64))?;
    bytes.truncate(filled);
    Ok(bytes)
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
        let mut content = Content::new(ContentSeq(1), Epoch::default(), 1);
        let file = bytes.as_bytes().to_vec();
        content.observe(&file, file.len() as u64).unwrap();
        let before = bytes_before(&file, read, usize::try_from(read).unwrap()).unwrap();
        content.cursors[0].read = ReadOffset(read);
        content.cursors[0].before = Window::Bytes(before);
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
        assert_eq!(compare(&read, "one\ntwo\nother\n"), Comparison::Shrunk(8), "and written anew");
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
        let after = Content::restored(ContentSeq(2), &entry, &sinks);
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
