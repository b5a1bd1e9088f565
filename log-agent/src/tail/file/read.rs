//! ReadState on: complete lines from where a sink stands, into its chunk.

use std::borrow::Cow;
use std::io;
use std::ops::Range;
use std::time::Duration;

use memchr::{memchr, memchr_iter, memrchr};

use super::reader::PORTION;
use super::records::DataEnd;
use super::{Multiline, Progress, ReadOptions, ReadState, Suspicion, TailedFile, UnterminatedLine};
use crate::identity::{FileId, Fingerprint, WINDOW};
use crate::loss::{LossLedger, LossReason};
use crate::position::{ReadOffset, Segment};
use crate::record::chunk::{Chunk, ChunkMode};
use crate::record::filter::Filtered;
use crate::record::parse::container::Envelope;
use crate::record::parse::{BadLine, Format, Parsed};

/// A line that goes on for longer than this many portions is looked through in several queue, so that probes are
/// answered in between.
const PORTIONS_A_TURN: usize = 64;

/// How compressed files begin: gzip, zstd, bzip2, xz.
const COMPRESSED: [&[u8]; 4] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh91AY&SY", b"\xfd7zXZ\0"];

/// How long a file has to be quiet before a line whose last part is missing is taken without it: a runtime writes the parts of a
/// line one right after the other, and none when the container ended within a line.
const PART_QUIET: Duration = Duration::from_secs(1);

impl TailedFile {
    /// Reads on for one sink into its chunk, up to a portion.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(crate) fn read(
        &mut self,
        sink: usize,
        last_line: UnterminatedLine,
        options: &mut ReadOptions,
        chunk: &mut Chunk,
        ledger: &LossLedger,
    ) -> io::Result<Progress> {
        if self.reading != ReadState::Active {
            return Ok(Progress::AtEnd);
        }
        let copies = options.copies_into(chunk);
        if copies && self.copy_on(sink, options, chunk) {
            return Ok(Progress::More);
        }
        let Some(cursor) = self.cursors.get(sink) else { return Ok(Progress::AtEnd) };
        let (overlap, start) = (cursor.before.len(), cursor.read.0);
        let mut buffer = std::mem::take(&mut options.buffer);
        buffer.resize((overlap + PORTION).max(buffer.len()), 0);
        let outcome =
            self.fill(&mut buffer[..overlap + PORTION], start - overlap as u64).and_then(|filled| {
                let (before, on) = buffer[..filled].split_at(overlap.min(filled));
                if before != self.cursors[sink].before || !on.starts_with(self.known_from(start)) {
                    if self.suspicion == Suspicion::None {
                        self.suspicion = Suspicion::Replaced;
                        return Ok(Progress::Replaced);
                    }
                    self.suspicion = Suspicion::None;
                    self.truncated(ledger)?;
                    return Ok(Progress::More);
                }
                self.suspicion = Suspicion::None;
                self.note_size(start + (filled - overlap) as u64);
                let at_end = filled < overlap + PORTION;
                if at_end {
                    self.note_shrinking(start + (filled - overlap) as u64, ledger);
                }
                if start == 0 && self.is_compressed(&buffer[..filled]) {
                    return Ok(Progress::AtEnd);
                }
                let data = &buffer[overlap..filled];
                let ends = |quiet| {
                    let whole = data.ends_with(b"\n") && self.quiet() >= quiet;
                    if at_end && (last_line == UnterminatedLine::Emit || whole) {
                        DataEnd::Final
                    } else if at_end {
                        DataEnd::Eof
                    } else {
                        DataEnd::More
                    }
                };
                let taken = match &options.multiline {
                    _ if copies => self.take_run(sink, data, chunk),
                    _ if options.format.is_of_containers() => {
                        let end = ends(PART_QUIET);
                        self.take_container_lines(sink, data, end, options, chunk, ledger)
                    }
                    Multiline::Off => self.take_lines(sink, data, options, chunk, ledger),
                    Multiline::StartsWith { start, quiet } => {
                        let end = ends(*quiet);
                        self.take_records(sink, data, start, end, options, chunk, ledger)
                    }
                };
                if taken > 0 {
                    self.advance(sink, &buffer[..overlap + taken], taken as u64, chunk);
                    let all = overlap + taken == filled || last_line == UnterminatedLine::Hold;
                    if !(at_end && all) || chunk.is_full() {
                        return Ok(Progress::More);
                    }
                }
                let rest = filled - overlap - taken;
                if rest == 0 || (at_end && last_line == UnterminatedLine::Hold) {
                    self.cursors[sink].searched = start + (taken + rest) as u64;
                    return Ok(Progress::AtEnd);
                }
                self.take_long_line(sink, rest, last_line, options, &mut buffer, chunk, ledger)
            });
        options.buffer = buffer;
        outcome
    }

    /// What other sinks were given of the file's beginning, from here on: it has to be what this one is given.
    fn known_from(&self, start: u64) -> &[u8] {
        usize::try_from(start).ok().and_then(|start| self.head.get(start..)).unwrap_or_default()
    }

    fn is_compressed(&mut self, head: &[u8]) -> bool {
        let compressed = COMPRESSED.iter().any(|magic| head.starts_with(magic));
        if compressed {
            self.reading = ReadState::Skipped;
            tracing::info!(file = %self.path.display(), "compressed, so not read: exclude it, or let rotation compress later");
        }
        compressed
    }

    /// Takes the complete lines at the start of `data` as they are, and says how many bytes they were.
    fn take_run(&mut self, sink: usize, data: &[u8], chunk: &mut Chunk) -> usize {
        let Some(last) = memrchr(b'\n', data) else { return 0 };
        if self.id.is_none() {
            let first = memchr(b'\n', data).unwrap_or(last);
            self.id = Some(FileId::derive(&self.key, self.epoch, &data[..=first]));
        }
        let (start, lines) = (self.cursors[sink].read.0, &data[..=last]);
        let mut text = chunk.lend_text();
        let from = text.len();
        text.extend_from_slice(lines);
        chunk.push_run(text, from, start..start + last as u64, memchr_iter(b'\n', lines).count());
        lines.len()
    }

    /// Takes the complete lines at the start of `data`, and says how many bytes they were.
    fn take_lines(
        &mut self,
        sink: usize,
        data: &[u8],
        options: &ReadOptions,
        chunk: &mut Chunk,
        ledger: &LossLedger,
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
            self.push(sink, start + taken as u64, line, line.len() as u64, options, chunk, ledger);
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
        last_line: UnterminatedLine,
        options: &ReadOptions,
        buffer: &mut Vec<u8>,
        chunk: &mut Chunk,
        ledger: &LossLedger,
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
                found = (last_line == UnterminatedLine::Emit).then_some((searched, searched));
                break;
            }
        }
        self.cursors[sink].searched = searched;
        self.note_size(searched);
        let Some((end, next)) = found else {
            return Ok(if searched < self.size { Progress::More } else { Progress::AtEnd });
        };
        let length = end - start;
        let kept = usize::try_from(length).map_or(options.max_line, |length| length.min(options.max_line));
        buffer.resize(buffer.len().max(kept), 0);
        if self.fill(&mut buffer[..kept], start)? < kept {
            return Ok(Progress::More);
        }
        if self.id.is_none() {
            self.id = Some(FileId::derive(&self.key, self.epoch, &buffer[..kept]));
        }
        self.push(sink, start, &buffer[..kept], length, options, chunk, ledger);
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
    pub(super) fn push(
        &self,
        sink: usize,
        offset: u64,
        line: &[u8],
        length: u64,
        options: &ReadOptions,
        chunk: &mut Chunk,
        ledger: &LossLedger,
    ) {
        let text = whole_characters(line, options.max_line);
        let cut = length - text.len() as u64;
        // The carriage return of a CRLF belongs to the line break, which a copy keeps.
        let text = if cut == 0 && chunk.purpose() == ChunkMode::Records {
            text.strip_suffix(b"\r").unwrap_or(text)
        } else {
            text
        };
        if cut > 0 {
            ledger.record_lost(
                LossReason::OverLong,
                sink,
                &self.path,
                offset + text.len() as u64..offset + length,
            );
        }
        let format = match chunk.purpose() {
            ChunkMode::Raw if options.leaves_lines_alone() => Format::Raw,
            _ => options.format,
        };
        let (parsed, text) = format.parse(text, &options.names);
        keep(sink, offset..offset + length, parsed, text, cut, None, options, chunk, ledger);
    }

    #[expect(clippy::too_many_arguments, reason = "a step of `read`, with what `read` was given")]
    pub(super) fn push_container_line(
        &self,
        sink: usize,
        place: Range<u64>,
        line: &[u8],
        envelope: Result<Envelope, BadLine>,
        options: &ReadOptions,
        chunk: &mut Chunk,
        ledger: &LossLedger,
    ) {
        let text = whole_characters(line, options.max_line);
        let cut = (line.len() - text.len()) as u64;
        if cut > 0 {
            // Where its last bytes are is known only of a line of one part; what is entered has their number.
            ledger.record_lost(LossReason::OverLong, sink, &self.path, place.end - cut..place.end);
        }
        let text = if cut == 0 { text.strip_suffix(b"\r").unwrap_or(text) } else { text };
        let (parsed, text) = match envelope {
            Ok(_) => options.format.parse(text, &options.names),
            Err(bad) => (Parsed::Bad(bad), Cow::Borrowed(text)),
        };
        keep(sink, place, parsed, text, cut, envelope.ok(), options, chunk, ledger);
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

    pub(super) fn settle(&mut self, sink: usize, before: &[u8], end: ReadOffset, chunk: &mut Chunk) {
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
}

/// What the filter keeps of a line goes into the chunk.
#[expect(clippy::too_many_arguments, reason = "a step of `read`, with what `read` was given")]
fn keep(
    sink: usize,
    place: Range<u64>,
    parsed: Parsed,
    text: Cow<'_, [u8]>,
    cut: u64,
    envelope: Option<Envelope>,
    options: &ReadOptions,
    chunk: &mut Chunk,
    ledger: &LossLedger,
) {
    if let Parsed::Bad(reason) = parsed {
        ledger.bad_line(reason.as_str());
    }
    match options.filter.apply(parsed, text, &options.names) {
        Filtered::Keep(parsed, text) => chunk.push_enveloped(place, &text, cut, parsed, envelope),
        Filtered::Drop => ledger.record_filtered(sink, place.end - place.start),
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
