//! One open file: read for each sink from where that sink stands, and watched for everything that can happen to a log.
//!
//! Nothing is kept of what was read: a line that is not finished stays in the file, and so does what a slow sink cannot
//! take yet. The file is the buffer, so memory does not grow with either.
//!
//! Every read begins a little before the position and compares that overlap with what was there when it was read. So a
//! file that is truncated or written anew shows in the very read that would have gone wrong, without a race between
//! looking and reading.
//!
//! The handle is kept until every sink has everything, whatever became of the name: renamed, out of the globs, removed.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use memchr::{memchr, memchr_iter};

use crate::checkpoint::FileEntry;
use crate::chunk::{Chunk, Origin};
use crate::identity::{Epoch, FileId, FileKey, Fingerprint, WINDOW};
use crate::ledger::{Ledger, Reason};
use crate::parse::{Format, Parsed};
use crate::position::{Confirmed, ReadOffset, Segment, SourceSeq};
use crate::turns::Family;

/// Read at once. Large enough that system calls do not show, small enough to stay in the cache.
const PORTION: usize = 128 * 1024;
/// A line that goes on for longer than this many portions is looked through in several turns, so that probes are
/// answered in between.
const PORTIONS_A_TURN: usize = 64;

/// How lines are cut from files.
#[derive(Debug)]
pub struct Reader {
    /// How a line is read.
    pub format: Format,
    /// The longest line that is shipped whole.
    pub max_line: usize,
    /// Read into here, whatever the file: one buffer for all of them.
    pub buffer: Vec<u8>,
}

/// What to do with a last line that has no line break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastLine {
    /// Its writer will finish it: wait.
    Wait,
    /// Nobody will: it is a line.
    Take,
}

/// How a read went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There may be more.
    More,
    /// Nothing more for now.
    AtEnd,
}

/// Whether a name that is followed still leads to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It does.
    Attached,
    /// It was renamed out of the globs or removed: read to its end, then closed.
    Detached,
}

/// Whether a file is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// It is.
    Lines,
    /// Not yet: it may be the copy that `copytruncate` makes of this file before truncating it. What was read of the one
    /// is then not read again from the other.
    PerhapsCopyOf(SourceSeq),
    /// Never: rotation has compressed what had been lines.
    Compressed,
}

/// How compressed files begin: gzip, zstd, bzip2, xz.
const COMPRESSED: [&[u8]; 4] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh91AY&SY", b"\xfd7zXZ\0"];

/// One file, in all that matters about it.
#[derive(Debug)]
pub struct Source {
    /// Its place in the order of reading.
    pub seq: SourceSeq,
    /// The log that it belongs to, by the name under which it was first seen.
    pub family: Family,
    /// What the file system says it is.
    pub key: FileKey,
    /// Its name now, or its last one.
    pub path: PathBuf,
    /// Whether that name still leads to it.
    pub life: Life,
    /// Whether it is read.
    pub reading: Reading,
    /// What was known of its content before it was truncated while a copy of it was waiting to be told.
    past: Option<FileEntry>,
    /// Whether a copy is waiting.
    copied: Copied,
    file: File,
    epoch: Epoch,
    /// Known as soon as the first line is.
    id: Option<FileId>,
    origin: Option<Arc<Origin>>,
    /// The first bytes as they were read, at most [`WINDOW`]: for the fingerprint.
    head: Vec<u8>,
    size: u64,
    grown: Instant,
    cursors: Vec<Cursor>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Copied {
    No,
    /// With the names of the sinks, for the entry that the copy will go on from.
    Perhaps(Vec<String>),
}

/// Where one sink stands.
#[derive(Debug)]
struct Cursor {
    read: ReadOffset,
    /// For a line too long for one portion: how far it has been searched for its end.
    searched: u64,
    /// The bytes right before `read`, as they were when they were read.
    before: Vec<u8>,
    confirmed: Confirmed,
}

impl Cursor {
    fn at_start() -> Self {
        Self { read: ReadOffset(0), searched: 0, before: Vec::new(), confirmed: Confirmed::nothing() }
    }
}

impl Source {
    /// Takes up a file that was never seen, at its beginning.
    ///
    /// # Errors
    /// Where its metadata cannot be read.
    pub fn begin(seq: SourceSeq, family: Family, path: &Path, file: File, sinks: usize) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            seq,
            family,
            key: FileKey::of(&metadata),
            path: path.to_owned(),
            life: Life::Attached,
            reading: Reading::Lines,
            past: None,
            copied: Copied::No,
            file,
            epoch: Epoch::default(),
            id: None,
            origin: None,
            head: Vec::new(),
            size: metadata.len(),
            grown: Instant::now(),
            cursors: (0..sinks).map(|_| Cursor::at_start()).collect(),
        })
    }

    /// Goes on where a checkpoint says the sinks stand, if this is still the content that it speaks of; else begins
    /// anew, and enters what is known to be lost.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn resume(&mut self, entry: &FileEntry, sinks: &[String], ledger: &Ledger) -> io::Result<()> {
        self.epoch = entry.epoch;
        if self.adopt(entry, sinks)? {
            return Ok(());
        }
        // The bytes that were confirmed to nobody and had been there when the checkpoint was written.
        for (sink, confirmed) in entry.confirmed_by(sinks).iter().enumerate() {
            if entry.size > confirmed.offset.get() {
                ledger.lose(Reason::Truncated, sink, &self.path, confirmed.offset.get()..entry.size);
            }
        }
        self.start_over("while the agent was away");
        Ok(())
    }

    /// Goes on where an entry says, if the content before is what it says; true where it is.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn adopt(&mut self, entry: &FileEntry, sinks: &[String]) -> io::Result<bool> {
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
    pub fn expect_truncation(&mut self, sinks: &[String]) {
        self.copied = Copied::Perhaps(sinks.to_vec());
    }

    /// What was known of the content that a waiting copy has, once this file was truncated.
    pub fn past(&self) -> Option<&FileEntry> {
        self.past.as_ref()
    }

    /// No copy waits any more.
    pub fn forget_past(&mut self) {
        self.past = None;
        self.copied = Copied::No;
    }

    /// Whether its content begins as that of `other` does, as far as it goes.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn begins_like(&self, other: &Self) -> io::Result<bool> {
        let mut head = vec![0; other.head.len()];
        let filled = self.fill(&mut head, 0)?;
        Ok(head[..filled] == other.head[..filled])
    }

    /// Reads on for one sink into its chunk, up to a portion.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn read(
        &mut self,
        sink: usize,
        last_line: LastLine,
        reader: &mut Reader,
        chunk: &mut Chunk,
        ledger: &Ledger,
    ) -> io::Result<Progress> {
        if self.reading != Reading::Lines {
            return Ok(Progress::AtEnd);
        }
        let Some(cursor) = self.cursors.get(sink) else { return Ok(Progress::AtEnd) };
        let (overlap, start) = (cursor.before.len(), cursor.read.0);
        let mut buffer = std::mem::take(&mut reader.buffer);
        buffer.resize((overlap + PORTION).max(buffer.len()), 0);
        let outcome =
            self.fill(&mut buffer[..overlap + PORTION], start - overlap as u64).and_then(|filled| {
                if filled < overlap || buffer[..overlap] != self.cursors[sink].before {
                    self.truncated(ledger)?;
                    return Ok(Progress::More);
                }
                self.note_size(start + (filled - overlap) as u64);
                let at_end = filled < overlap + PORTION;
                if at_end {
                    self.note_shrinking(start + (filled - overlap) as u64, ledger);
                }
                if start == 0 && self.is_compressed(&buffer[..filled]) {
                    return Ok(Progress::AtEnd);
                }
                let taken = self.take_lines(sink, &buffer[overlap..filled], reader, chunk, ledger);
                if taken > 0 {
                    self.advance(sink, &buffer[..overlap + taken], taken as u64, chunk);
                    let all = overlap + taken == filled || last_line == LastLine::Wait;
                    if !(at_end && all) || chunk.is_full() {
                        return Ok(Progress::More);
                    }
                }
                let rest = filled - overlap - taken;
                if rest == 0 || (at_end && last_line == LastLine::Wait) {
                    self.cursors[sink].searched = start + (taken + rest) as u64;
                    return Ok(Progress::AtEnd);
                }
                self.take_long_line(sink, rest, last_line, reader, &mut buffer, chunk, ledger)
            });
        reader.buffer = buffer;
        outcome
    }

    fn is_compressed(&mut self, head: &[u8]) -> bool {
        let compressed = COMPRESSED.iter().any(|magic| head.starts_with(magic));
        if compressed {
            self.reading = Reading::Compressed;
            tracing::info!(file = %self.path.display(), "compressed, so not read: exclude it, or let rotation compress later");
        }
        compressed
    }

    /// Takes the complete lines at the start of `data`, and says how many bytes they were.
    fn take_lines(
        &mut self,
        sink: usize,
        data: &[u8],
        reader: &Reader,
        chunk: &mut Chunk,
        ledger: &Ledger,
    ) -> usize {
        let start = self.cursors[sink].read.0;
        let mut taken = 0;
        for newline in memchr_iter(b'\n', data) {
            if chunk.is_full() {
                break;
            }
            if taken == 0 && self.id.is_none() {
                self.id = Some(FileId::derive(&self.key, self.epoch, &data[..=newline]));
            }
            let line = &data[taken..newline];
            self.push(sink, start + taken as u64, line, line.len() as u64, reader, chunk, ledger);
            taken = newline + 1;
        }
        taken
    }

    /// Takes a line that does not end within a portion, or that nobody will end: all that is kept while its end is
    /// searched is how far the search has come.
    #[expect(clippy::too_many_arguments, reason = "a step of `read`, with what `read` was given")]
    fn take_long_line(
        &mut self,
        sink: usize,
        rest: usize,
        last_line: LastLine,
        reader: &Reader,
        buffer: &mut Vec<u8>,
        chunk: &mut Chunk,
        ledger: &Ledger,
    ) -> io::Result<Progress> {
        let start = self.cursors[sink].read.0;
        let mut searched = self.cursors[sink].searched.max(start + rest as u64);
        let mut found = None;
        for _ in 0..PORTIONS_A_TURN {
            let filled = self.fill(&mut buffer[..PORTION], searched)?;
            if let Some(newline) = memchr(b'\n', &buffer[..filled]) {
                let end = searched + newline as u64;
                found = Some((end, end + 1));
                break;
            }
            searched += filled as u64;
            if filled == 0 {
                found = (last_line == LastLine::Take).then_some((searched, searched));
                break;
            }
        }
        self.cursors[sink].searched = searched;
        self.note_size(searched);
        let Some((end, next)) = found else {
            return Ok(if searched < self.size { Progress::More } else { Progress::AtEnd });
        };
        let length = end - start;
        let kept = usize::try_from(length).map_or(reader.max_line, |length| length.min(reader.max_line));
        buffer.resize(buffer.len().max(kept), 0);
        if self.fill(&mut buffer[..kept], start)? < kept {
            return Ok(Progress::More);
        }
        if self.id.is_none() {
            self.id = Some(FileId::derive(&self.key, self.epoch, &buffer[..kept]));
        }
        self.push(sink, start, &buffer[..kept], length, reader, chunk, ledger);
        let window = usize::try_from(next).map_or(WINDOW, |next| next.min(WINDOW));
        let mut head = buffer[..kept.min(WINDOW)].to_vec();
        let filled = self.fill(&mut buffer[..window], next - window as u64)?;
        self.extend_head(start, &mut head);
        self.settle(sink, &buffer[..filled.min(window)], ReadOffset(next), chunk);
        // A buffer as large as the longest line is not kept for the ordinary ones.
        buffer.truncate(WINDOW + PORTION);
        buffer.shrink_to(WINDOW + PORTION);
        Ok(Progress::More)
    }

    #[expect(clippy::too_many_arguments, reason = "a step of `read`, with what `read` was given")]
    fn push(
        &self,
        sink: usize,
        offset: u64,
        line: &[u8],
        length: u64,
        reader: &Reader,
        chunk: &mut Chunk,
        ledger: &Ledger,
    ) {
        let text = whole_characters(line, reader.max_line);
        let cut = length - text.len() as u64;
        // The carriage return of a CRLF belongs to the line break.
        let text = if cut == 0 { text.strip_suffix(b"\r").unwrap_or(text) } else { text };
        if cut > 0 {
            ledger.lose(Reason::OverLong, sink, &self.path, offset + text.len() as u64..offset + length);
        }
        let (parsed, text) = reader.format.parse(text);
        if let Parsed::Bad(reason) = parsed {
            ledger.bad_line(reason);
        }
        chunk.push(offset..offset + length, &text, cut, parsed);
    }

    /// Moves a sink's position over what was taken; `seen` is the overlap and what was taken, contiguous.
    fn advance(&mut self, sink: usize, seen: &[u8], taken: u64, chunk: &mut Chunk) {
        let start = self.cursors[sink].read.0;
        let mut head = seen[seen.len() - usize::try_from(taken).unwrap_or(seen.len())..].to_vec();
        head.truncate(WINDOW);
        self.extend_head(start, &mut head);
        let before = &seen[seen.len().saturating_sub(WINDOW)..];
        self.settle(sink, before, ReadOffset(start + taken), chunk);
    }

    fn settle(&mut self, sink: usize, before: &[u8], end: ReadOffset, chunk: &mut Chunk) {
        let Some(origin) = self.origin() else { return };
        let cursor = &mut self.cursors[sink];
        let segment = Segment {
            source: self.seq,
            epoch: self.epoch,
            start: cursor.read,
            end,
            before_end: Fingerprint::of(before),
        };
        chunk.close(&origin, segment);
        cursor.read = end;
        cursor.searched = end.0;
        cursor.before.clear();
        cursor.before.extend_from_slice(before);
    }

    /// Keeps the first bytes of the file, of which `bytes` begin at `start`.
    fn extend_head(&mut self, start: u64, bytes: &mut Vec<u8>) {
        let have = self.head.len();
        if have < WINDOW
            && let Some(skip) = (have as u64).checked_sub(start).and_then(|skip| usize::try_from(skip).ok())
            && skip < bytes.len()
        {
            self.head.extend(bytes.drain(skip..).take(WINDOW - have));
        }
    }

    fn origin(&mut self) -> Option<Arc<Origin>> {
        let path = self.path.to_string_lossy();
        if self.origin.as_ref().is_none_or(|origin| *origin.path != *path) {
            let id = self.id?;
            self.origin = Some(Arc::new(Origin { id, path: path.as_ref().into() }));
        }
        self.origin.clone()
    }

    /// The file holds other content than what was read: what was seen and not read is gone, and reading begins anew.
    fn truncated(&mut self, ledger: &Ledger) -> io::Result<()> {
        if let Copied::Perhaps(sinks) = &self.copied {
            // The copy has it all, and is read on from where this file was.
            self.past = self.entry(sinks);
        } else {
            for (sink, cursor) in self.cursors.iter().enumerate() {
                if self.size > cursor.read.0 {
                    ledger.lose(Reason::Truncated, sink, &self.path, cursor.read.0..self.size);
                }
            }
        }
        self.start_over("truncated or written anew");
        self.size = self.file.metadata()?.len();
        Ok(())
    }

    /// What is before the position is still there, but what had been seen behind it is not: an unfinished line was
    /// taken back, or what a slow sink had not been given yet.
    fn note_shrinking(&mut self, end: u64, ledger: &Ledger) {
        if end >= self.size {
            return;
        }
        for (sink, cursor) in self.cursors.iter().enumerate() {
            ledger.lose(Reason::Truncated, sink, &self.path, end.max(cursor.read.0)..self.size);
        }
        self.size = end;
    }

    fn start_over(&mut self, how: &str) {
        tracing::warn!(file = %self.path.display(), how, "the file's content was replaced: reading it from its beginning");
        self.epoch = self.epoch.next();
        self.id = None;
        self.origin = None;
        self.head.clear();
        self.cursors.iter_mut().for_each(|cursor| *cursor = Cursor::at_start());
    }

    /// Reads until the buffer is full or the file ends.
    fn fill(&self, buffer: &mut [u8], from: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], from + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn note_size(&mut self, at_least: u64) {
        if at_least > self.size {
            self.size = at_least;
            self.grown = Instant::now();
        }
    }

    /// Asks the file system for the size now; true where there may be something to read or to notice.
    ///
    /// # Errors
    /// Where it cannot be asked.
    pub fn look(&mut self) -> io::Result<bool> {
        let size = self.file.metadata()?.len();
        let changed = size != self.size;
        self.note_size(size);
        Ok(changed || self.cursors.iter().any(|cursor| cursor.read.0 != size))
    }

    /// Notes what a sink has confirmed. A segment of a content that is gone is ignored.
    pub fn confirm(&mut self, sink: usize, segment: &Segment) {
        if segment.epoch != self.epoch {
            return;
        }
        if let Some(cursor) = self.cursors.get_mut(sink)
            && !cursor.confirmed.advance(segment)
        {
            // Cannot happen while one chunk is under way per sink. Should it, the lines are sent again rather than lost.
            tracing::error!(file = %self.path.display(), ?segment, "confirmed out of order: reading again");
            cursor.read = cursor.confirmed.offset.resume();
            cursor.before.clear();
        }
    }

    /// Bytes that a sink has not confirmed, as far as the size is known.
    pub fn unconfirmed(&self, sink: usize) -> u64 {
        if self.reading == Reading::Compressed {
            return 0;
        }
        let confirmed = self.cursors.get(sink).map_or(0, |cursor| cursor.confirmed.offset.get());
        self.size.saturating_sub(confirmed)
    }

    /// Of those, the bytes of a last line without an end: all that is left where everything before is confirmed.
    pub fn unfinished(&self, sink: usize) -> u64 {
        self.cursors.get(sink).map_or(0, |cursor| {
            let searched_to_the_end = cursor.searched >= self.size;
            if searched_to_the_end { self.size.saturating_sub(cursor.read.0) } else { 0 }
        })
    }

    /// Whether a sink has been given all there is.
    pub fn is_read(&self, sink: usize) -> bool {
        self.reading == Reading::Compressed
            || self.cursors.get(sink).is_none_or(|cursor| cursor.read.0 >= self.size)
    }

    /// Whether every sink has everything.
    pub fn is_drained(&self) -> bool {
        (0..self.cursors.len()).all(|sink| self.unconfirmed(sink) == 0)
    }

    /// How long it has not grown.
    pub fn quiet(&self) -> Duration {
        self.grown.elapsed()
    }

    /// Its size when it was last looked at.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The id that its records carry, once there is one.
    pub fn id(&self) -> Option<FileId> {
        self.id
    }

    /// Whether it has no name left at all.
    pub fn is_unlinked(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// Up to where every sink has confirmed it.
    pub fn least_confirmed(&self) -> u64 {
        self.cursors.iter().map(|cursor| cursor.confirmed.offset.get()).min().unwrap_or_default()
    }

    /// What a sink has confirmed.
    pub fn confirmed(&self, sink: usize) -> Option<Confirmed> {
        self.cursors.get(sink).map(|cursor| cursor.confirmed)
    }

    /// What to remember of it, once anything was confirmed.
    pub fn entry(&self, sinks: &[String]) -> Option<FileEntry> {
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

/// At most `limit` bytes of a line, without half a character at the end.
fn whole_characters(line: &[u8], limit: usize) -> &[u8] {
    if line.len() <= limit {
        return line;
    }
    let mut end = limit;
    while end > 0 && limit - end < 3 && line[end] & 0b1100_0000 == 0b1000_0000 {
        end -= 1;
    }
    &line[..end]
}
