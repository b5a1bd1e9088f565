//! Reads on: complete lines from where a sink stands, into its chunk.
//!
//! Nothing is kept of what was read: a line that is not finished stays in the file, and so does what a slow sink cannot
//! take yet. The file is the buffer, so memory does not grow with either.
//!
//! Every read looks at a little of what is before the position, too, in the same call or right after it, and compares that with
//! what was there when it was read; and the file's beginning with what is known of it. So a file that is truncated
//! or rewritten shows in the very read that would have gone wrong, without a race between looking and reading.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use memchr::{memchr, memrchr};
use rustix::buffer::spare_capacity;
use rustix::fs::{SeekFrom, seek};
use rustix::io::pread;

use super::content::{Content, ReadAt as _, window_before};
use super::framing::{self, Records};
use crate::identity::{FileKey, Instance, WINDOW};
use crate::loss::{LossLedger, LossReason, SkipReason};
use crate::position::{ReadOffset, SinkIndex};
use crate::record::chunk::{Chunk, ChunkMode};
use crate::record::filter::{Filter, Filtered};
use crate::record::parse::container::{self, Envelope};
use crate::record::parse::{BadLine, DataEnd, FieldNames, Format, Parsed, leading_nuls};

/// Read at once. Large enough that system calls do not show, small enough to stay in the cache.
const PORTION: usize = 128 * 1024;

/// A line that goes on for longer than this many portions is looked through in several turns, so that other files are read
/// in between.
const PORTIONS_A_TURN: usize = 16;

/// How long a file has to be quiet before a line whose last part is missing is taken without it: a container runtime writes the parts
/// of a line one right after the other, and none when the container ended within a line.
const PART_QUIET: Duration = Duration::from_secs(1);

/// How lines are cut from files, whichever file it is.
#[derive(Debug)]
pub(crate) struct ReadOptions {
    pub(crate) format: Format,
    /// The names that the user gives fields.
    pub(crate) names: FieldNames,
    /// Which lines are one record.
    pub(crate) multiline: Multiline,
    /// What the user wants left out.
    pub(crate) filter: Filter,
    /// The longest line that is shipped whole, in bytes.
    pub(crate) max_line: usize,
    /// For ids.
    pub(crate) instance: Instance,
}

impl ReadOptions {
    /// How the lines of a chunk are read: not at all where they are copied, and nothing of them is left out.
    fn format_for(&self, chunk: &Chunk) -> Format {
        let copied = chunk.purpose() == ChunkMode::Raw && self.filter == Filter::default();
        if copied { Format::Raw } else { self.format }
    }

    /// Whether lines are copied into a chunk many at once: each is a record, and none that fits into a portion is too long.
    fn copies_into(&self, chunk: &Chunk) -> bool {
        let alone = matches!(self.multiline, Multiline::Off) && self.filter == Filter::default();
        alone && chunk.purpose() == ChunkMode::Raw && self.max_line >= PORTION
    }
}

/// Which lines are one record.
#[derive(Debug, Clone)]
pub(crate) enum Multiline {
    /// Each is one.
    Off,
    /// A line that begins like this begins a record, and those that follow belong to it.
    StartsWith {
        /// How a record begins.
        start: regex_lite::Regex,
        /// How long a file has to be quiet before its last record is at its end.
        quiet: Duration,
    },
}

/// What to do with a last line that has no line break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnterminatedLine {
    /// Its writer will finish it: wait.
    Hold,
    /// No writer will: it is a line.
    Emit,
}

/// How a read went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There may be more.
    More,
    /// Nothing more for now.
    AtEnd,
    /// The content is not what it was. Before it is given up, a copy of it should be looked for.
    Replaced,
    /// The file is compressed.
    Compressed,
}

/// The sink that is read for, the chunk, and the options.
#[derive(Debug)]
pub(crate) struct ReadContext<'a> {
    pub(crate) sink: SinkIndex,
    pub(crate) unterminated: UnterminatedLine,
    pub(crate) chunk: &'a mut Chunk,
    pub(crate) options: &'a ReadOptions,
    pub(crate) ledger: &'a LossLedger,
    /// Read into here, whatever the file: one buffer for all of them.
    pub(crate) buffer: &'a mut Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Input<'a> {
    pub(super) file: &'a File,
    pub(super) key: &'a FileKey,
    pub(super) path: &'a Path,
    pub(super) content: &'a mut Content,
}

impl Input<'_> {
    /// Reads on for one sink into its chunk, up to a portion.
    pub(super) fn read(&mut self, to: &mut ReadContext<'_>) -> io::Result<Progress> {
        if to.options.copies_into(to.chunk) && self.copy_on(to) {
            return Ok(Progress::More);
        }
        let mut buffer = std::mem::take(to.buffer);
        let outcome = self.read_portion(to, &mut buffer);
        *to.buffer = buffer;
        outcome
    }

    fn read_portion(&mut self, to: &mut ReadContext<'_>, buffer: &mut Vec<u8>) -> io::Result<Progress> {
        let start = self.content.read_offset(to.sink);
        let overlap = self.content.before(to.sink).len();
        buffer.resize((overlap + PORTION).max(buffer.len()), 0);
        let filled = self.file.fill(&mut buffer[..overlap + PORTION], start - overlap as u64)?;
        let (before, data) = buffer[..filled].split_at(overlap.min(filled));
        if before != self.content.before(to.sink) || !data.starts_with(self.content.known_from(start)) {
            return Ok(Progress::Replaced);
        }
        let (at_end, end) = (filled < overlap + PORTION, start + data.len() as u64);
        if at_end && end < self.content.size() {
            // What had been seen behind it is gone.
            return Ok(Progress::Replaced);
        }
        if start == 0 && framing::is_compressed(data) {
            return Ok(Progress::Compressed);
        }
        self.content.note_size(end);
        let taken = self.take(to, data, at_end);
        let unread = data.len() - taken;
        if taken > 0 {
            self.content.advance(to.sink, self.path, &buffer[..overlap + taken], taken, to.chunk);
            let all = unread == 0 || to.unterminated == UnterminatedLine::Hold;
            if !(at_end && all) || to.chunk.is_full() {
                return Ok(Progress::More);
            }
        }
        if unread == 0 || (at_end && to.unterminated == UnterminatedLine::Hold) {
            self.content.note_unended(to.sink, end);
            return Ok(Progress::AtEnd);
        }
        self.take_long_line(to, end, buffer)
    }

    /// Takes what is whole at the start of `data`, and says how many bytes that was.
    fn take(&mut self, to: &mut ReadContext<'_>, data: &[u8], at_end: bool) -> usize {
        let start = self.content.read_offset(to.sink);
        if to.options.copies_into(to.chunk)
            && let Some(run) = framing::run(data)
        {
            self.content.identify(to.options.instance, self.key, &data[..run.first_line]);
            let mut text = to.chunk.lend_text();
            let from = text.len();
            text.extend_from_slice(&data[..run.len]);
            to.chunk.push_run(text, from, start..start + run.len as u64 - 1, run.lines);
            return run.len;
        }
        let ends = |quiet| {
            let whole = data.ends_with(b"\n") && self.content.quiet() >= quiet;
            if at_end && (to.unterminated == UnterminatedLine::Emit || whole) {
                DataEnd::Final
            } else if at_end {
                DataEnd::Eof
            } else {
                DataEnd::More
            }
        };
        let mut taken = 0;
        match &to.options.multiline {
            _ if to.options.format_for(to.chunk).is_of_containers() => {
                let end = ends(PART_QUIET);
                return self.take_container_lines(to, start, data, end);
            }
            Multiline::Off => {
                for end in framing::line_ends(data) {
                    if to.chunk.is_full() {
                        break;
                    }
                    self.push(to, start, data, taken..end + 1);
                    taken = end + 1;
                }
            }
            Multiline::StartsWith { start: begins, quiet } => {
                let end = ends(*quiet);
                for record in Records::new(data, begins, end) {
                    if to.chunk.is_full() {
                        break;
                    }
                    taken = record.end;
                    self.push(to, start, data, record);
                }
            }
        }
        taken
    }

    /// Takes the whole lines of a container runtime's file, each of one part or more.
    fn take_container_lines(
        &mut self,
        to: &mut ReadContext<'_>,
        start: u64,
        data: &[u8],
        end: DataEnd,
    ) -> usize {
        let (lines, taken) = container::lines(to.options.format, data, end);
        if let Some(first) = lines.first() {
            self.content.identify(to.options.instance, self.key, &data[first.place.clone()]);
        }
        for line in lines {
            let place = start + line.place.start as u64..start + line.place.end as u64;
            to.ledger.record_skipped(SkipReason::LeadingNuls, to.sink, line.nuls as u64);
            self.push_container_line(to, place, &line.text, line.envelope);
        }
        taken
    }

    fn push_container_line(
        &self,
        to: &mut ReadContext<'_>,
        place: Range<u64>,
        line: &[u8],
        envelope: Result<Envelope, BadLine>,
    ) {
        let text = framing::whole_characters(line, to.options.max_line);
        let cut = (line.len() - text.len()) as u64;
        if cut > 0 {
            // Where its last bytes are is known only of a line of one part; what is entered has their number.
            to.ledger.record_lost(LossReason::OverLong, to.sink, self.path, place.end - cut..place.end);
        }
        let text = if cut == 0 { text.strip_suffix(b"\r").unwrap_or(text) } else { text };
        let (parsed, text) = match envelope {
            Ok(_) => to.options.format.parse(text, &to.options.names),
            Err(bad) => (Parsed::Bad(bad), Cow::Borrowed(text)),
        };
        keep(to, place, parsed, text, cut, envelope.ok());
    }

    /// Pushes a record of the portion that begins at `start`.
    fn push(&mut self, to: &mut ReadContext<'_>, start: u64, data: &[u8], record: Range<usize>) {
        let at = start + record.start as u64;
        let record = &data[record];
        self.content.identify(to.options.instance, self.key, record);
        let line = record.strip_suffix(b"\n").unwrap_or(record);
        self.push_line(to, at, line, line.len() as u64);
    }

    /// Takes complete lines from the middle of a large file straight into the chunk, so that each byte is moved once on its way in
    /// and once on its way out; true where it did. Whatever is not as usual (the beginning, the end, a line without one, a NUL,
    /// content that is not what it was), it leaves to `read_portion`, as if it had not been.
    fn copy_on(&mut self, to: &mut ReadContext<'_>) -> bool {
        let (start, size) = (self.content.read_offset(to.sink), self.content.size());
        let usual = self.content.id().is_some() && self.content.before(to.sink).len() == WINDOW;
        if !usual || size.saturating_sub(start) < PORTION as u64 {
            return false;
        }
        let mut text = to.chunk.lend_text();
        let from = text.len();
        text.reserve_exact(PORTION);
        let room = text.capacity() - from;
        let filled = if room <= to.options.max_line && size - start >= room as u64 {
            pread(self.file, spare_capacity(&mut text), start).unwrap_or_default()
        } else {
            0
        };
        // After the lines: content that was replaced before they were read shows here.
        let mut before = [0; WINDOW];
        let known = filled == room
            && self.file.fill(&mut before, start - WINDOW as u64).is_ok_and(|filled| filled == WINDOW)
            && before == *self.content.before(to.sink);
        let run = if known { framing::run(&text[from..]) } else { None };
        if let Some(run) = run.filter(|run| run.len >= WINDOW) {
            text.truncate(from + run.len);
            before.copy_from_slice(&text[from + run.len - WINDOW..]);
            let end = start + run.len as u64;
            to.chunk.push_run(text, from, start..end - 1, run.lines);
            self.content.commit_segment(to.sink, self.path, &before, ReadOffset(end), to.chunk);
            self.content.note_size(start + filled as u64);
            return true;
        }
        text.truncate(from);
        to.chunk.return_text(text);
        false
    }

    /// Takes a line that does not end within a portion, or that no writer will end; the file was read up to `seen`. All that is
    /// kept while its end is searched is how far the search has come.
    fn take_long_line(
        &mut self,
        to: &mut ReadContext<'_>,
        seen: u64,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Progress> {
        let mut searched = self.content.searched(to.sink).max(seen);
        let (mut found, mut at_end) = (None, false);
        for _ in 0..PORTIONS_A_TURN {
            searched = self.next_data(searched)?;
            let filled = self.file.fill(&mut buffer[..PORTION], searched)?;
            if let Some(newline) = memchr(b'\n', &buffer[..filled]) {
                let end = searched + newline as u64;
                found = Some((end, end + 1));
                break;
            }
            searched += filled as u64;
            if filled == 0 {
                at_end = true;
                found = (to.unterminated == UnterminatedLine::Emit).then_some((searched, searched));
                break;
            }
        }
        let Some((end, next)) = found else {
            if at_end {
                self.content.note_unended(to.sink, searched);
                return Ok(Progress::AtEnd);
            }
            self.content.note_searched(to.sink, searched);
            self.content.note_size(searched);
            return Ok(Progress::More);
        };
        self.content.note_searched(to.sink, searched);
        self.content.note_size(searched);
        let line_start = self.content.read_offset(to.sink);
        let text_start = self.first_non_nul(line_start..end, buffer)?.unwrap_or(line_start);
        let length = end - text_start;
        let max_line = to.options.max_line;
        let kept = usize::try_from(length).map_or(max_line, |length| length.min(max_line));
        buffer.resize(buffer.len().max(kept), 0);
        if self.file.fill(&mut buffer[..kept], text_start)? < kept {
            return Ok(Progress::More);
        }
        self.content.identify(to.options.instance, self.key, &buffer[..kept]);
        let is_hole = text_start > line_start;
        let next = if is_hole {
            // A hole: what is behind it is read as any line.
            to.ledger.record_skipped(SkipReason::LeadingNuls, to.sink, text_start - line_start);
            text_start
        } else {
            self.push_line(to, line_start, &buffer[..kept], length);
            next
        };
        let mut head = [0; WINDOW];
        let filled = self.file.fill(&mut head, line_start)?;
        self.content.extend_head(
            line_start,
            &head[..filled.min(usize::try_from(next - line_start).unwrap_or(WINDOW))],
        );
        let before = window_before(self.file, next)?;
        self.content.commit_segment(to.sink, self.path, &before, ReadOffset(next), to.chunk);
        if is_hole {
            // The line's end is known.
            self.content.note_searched(to.sink, searched);
        }
        // A buffer as large as the longest line is not kept for the ordinary ones.
        buffer.truncate(WINDOW + PORTION);
        buffer.shrink_to(WINDOW + PORTION);
        Ok(Progress::More)
    }

    /// Where data begins that is not a hole: holes are NULs, of which there may be terabytes.
    fn next_data(&self, from: u64) -> io::Result<u64> {
        match seek(self.file, SeekFrom::Data(from)) {
            Ok(data) => Ok(data.max(from)),
            // Behind the last data: the end of the file, or a hole up to there.
            Err(rustix::io::Errno::NXIO) => Ok(self.file.metadata()?.len().max(from)),
            // A file system that does not tell.
            Err(_) => Ok(from),
        }
    }

    /// The first byte of a line that is not NUL. Behind many portions of nothing else, one that may be NUL: other files are read in
    /// between.
    fn first_non_nul(&self, line: Range<u64>, buffer: &mut [u8]) -> io::Result<Option<u64>> {
        let mut at = line.start;
        for _ in 0..PORTIONS_A_TURN {
            let mut byte = [0];
            if self.file.fill(&mut byte, at)? == 1 && byte != [0] {
                return Ok(Some(at));
            }
            at = self.next_data(at)?;
            let filled = self.file.fill(&mut buffer[..PORTION], at)?;
            if let Some(found) = buffer[..filled].iter().position(|byte| *byte != 0) {
                return Ok(Some(at + found as u64).filter(|at| *at < line.end));
            }
            if filled == 0 {
                return Ok(None);
            }
            at += filled as u64;
        }
        Ok(Some(at).filter(|at| *at < line.end))
    }

    /// Pushes a line, of which `line` is the beginning and `length` bytes are there.
    fn push_line(&self, to: &mut ReadContext<'_>, offset: u64, line: &[u8], length: u64) {
        let nuls = if length == line.len() as u64 { leading_nuls(line) } else { 0 };
        to.ledger.record_skipped(SkipReason::LeadingNuls, to.sink, nuls as u64);
        let (offset, line, length) = (offset + nuls as u64, &line[nuls..], length - nuls as u64);
        let text = framing::whole_characters(line, to.options.max_line);
        let cut = length - text.len() as u64;
        // The carriage return of a CRLF belongs to the line break, which a copy keeps.
        let text = if cut == 0 && to.chunk.purpose() == ChunkMode::Records {
            text.strip_suffix(b"\r").unwrap_or(text)
        } else {
            text
        };
        if cut > 0 {
            let lost = offset + text.len() as u64..offset + length;
            to.ledger.record_lost(LossReason::OverLong, to.sink, self.path, lost);
        }
        let (parsed, text) = to.options.format_for(to.chunk).parse(text, &to.options.names);
        keep(to, offset..offset + length, parsed, text, cut, None);
    }
}

/// What the filter keeps of a line goes into the chunk.
fn keep(
    to: &mut ReadContext<'_>,
    place: Range<u64>,
    parsed: Parsed,
    text: Cow<'_, [u8]>,
    cut: u64,
    envelope: Option<Envelope>,
) {
    if let Parsed::Bad(reason) = parsed {
        to.ledger.bad_line(reason.as_str());
    }
    match to.options.filter.apply(parsed, text, &to.options.names) {
        Filtered::Keep(parsed, text) => to.chunk.push_enveloped(place, &text, cut, parsed, envelope),
        Filtered::Drop => to.ledger.record_filtered(to.sink, place.end - place.start),
    }
}

/// Behind the last line break before `end`; `end` where there is none in the last portion.
pub(super) fn line_start_before(file: &File, end: u64) -> io::Result<u64> {
    let from = end.saturating_sub(PORTION as u64);
    let mut bytes = vec![0; usize::try_from(end - from).unwrap_or(PORTION)];
    let filled = file.fill(&mut bytes, from)?;
    Ok(match memrchr(b'\n', &bytes[..filled]) {
        Some(newline) => from + newline as u64 + 1,
        None if from == 0 => 0,
        None => end,
    })
}
