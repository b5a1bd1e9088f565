//! What is delivered and confirmed as one: lines of one or more files, each file's a contiguous range.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use crate::identity::FileId;
use crate::position::Segment;
use crate::record::parse::Parsed;
use crate::record::parse::container::Envelope;

/// More lines than this are not gathered, however short they are: a record's envelope takes memory too.
const MAX_LINES: usize = 4096;

/// Nor are more bytes read at once where most lines are left out: probes are answered in between.
const MAX_COVERED: u64 = 8 * 1024 * 1024;

/// What lines are gathered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChunkMode {
    /// Each becomes a record: it is read, and has lost its line break.
    Records,
    /// They are copied as they are, line breaks included, without parsing.
    Raw,
}

/// Where lines come from, as their records say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The file's name in record ids.
    pub(crate) id: FileId,
    /// Its path when the lines were read.
    pub(crate) path: Arc<str>,
}

/// One line, not yet a record; in a chunk of copies perhaps a run of them.
#[derive(Debug)]
pub(crate) struct Line {
    /// Where it lies in its file, without its line break; the beginning, with the file's id, is the record's id.
    pub(crate) place: Range<u64>,
    /// Bytes of the line that were left out because it is longer than `--max-line`.
    pub(crate) cut: u64,
    /// What it says.
    pub(crate) parsed: Parsed,
    /// What a container runtime says of it.
    pub(crate) envelope: Option<Envelope>,
    text: Range<usize>,
}

impl Line {
    /// Bytes of it that are carried, as [`Chunk::bytes`] counts them.
    pub(crate) fn bytes(&self) -> u64 {
        self.text.len() as u64
    }
}

/// A segment's lines.
#[derive(Debug)]
pub(crate) struct Part {
    /// Where they come from.
    pub(crate) origin: Arc<Origin>,
    /// The range that is confirmed with them.
    pub(crate) segment: Segment,
    lines: Range<usize>,
}

/// Lines under way to one sink. Its memory is used again for the next.
#[derive(Debug)]
pub(crate) struct Chunk {
    text: Vec<u8>,
    lines: Vec<Line>,
    parts: Vec<Part>,
    /// Bytes of the files that its segments cover, lines that were left out included.
    covered: u64,
    records: u64,
    observed: SystemTime,
    limit: usize,
    purpose: ChunkMode,
}

impl Chunk {
    /// An empty one that is full at about `limit` bytes.
    pub(crate) fn new(limit: usize, purpose: ChunkMode) -> Self {
        Self {
            text: Vec::new(),
            lines: Vec::new(),
            parts: Vec::new(),
            covered: 0,
            records: 0,
            observed: SystemTime::now(),
            limit,
            purpose,
        }
    }

    /// Empty again, with the memory it has.
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.lines.clear();
        self.parts.clear();
        self.covered = 0;
        self.records = 0;
    }

    pub(crate) fn purpose(&self) -> ChunkMode {
        self.purpose
    }

    /// Whether there is nothing to deliver and nothing to confirm.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether it should be delivered before more is gathered.
    pub(crate) fn is_full(&self) -> bool {
        self.text.len() >= self.limit || self.lines.len() >= MAX_LINES || self.covered >= MAX_COVERED
    }

    /// Adds a line that no container runtime wrote.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn push(&mut self, place: Range<u64>, text: &[u8], cut: u64, parsed: Parsed) {
        self.push_enveloped(place, text, cut, parsed, None);
    }

    /// Adds a line, of which a container runtime may have said something; [`Chunk::close`] says which segment it belongs to.
    pub(crate) fn push_enveloped(
        &mut self,
        place: Range<u64>,
        text: &[u8],
        cut: u64,
        parsed: Parsed,
        envelope: Option<Envelope>,
    ) {
        let start = self.text.len();
        self.text.extend_from_slice(text);
        if self.purpose == ChunkMode::Raw {
            self.text.push(b'\n');
        }
        self.note(Line { place, cut, parsed, envelope, text: start..self.text.len() }, 1);
    }

    /// Takes back text that was lent and has grown: what is new of it is a run of this many lines.
    pub(crate) fn push_run(&mut self, text: Vec<u8>, from: usize, place: Range<u64>, count: usize) {
        let run = from..text.len();
        self.text = text;
        self.note(Line { place, cut: 0, parsed: Parsed::Text, envelope: None, text: run }, count);
    }

    fn note(&mut self, line: Line, records: usize) {
        if self.lines.is_empty() {
            self.observed = SystemTime::now();
        }
        self.lines.push(line);
        self.records += records as u64;
    }

    /// Ends a segment: the lines since the last one belong to it. There may be none, where they were left out on purpose.
    pub(crate) fn close(&mut self, origin: &Arc<Origin>, segment: Segment) {
        let end = self.lines.len();
        self.covered += segment.end.0.saturating_sub(segment.start.0);
        if let Some(last) = self.parts.last_mut()
            && last.segment.content == segment.content
            && last.segment.end == segment.start
            && Arc::ptr_eq(&last.origin, origin)
        {
            last.segment.end = segment.end;
            last.segment.before_end = segment.before_end;
            last.lines.end = end;
            return;
        }
        let start = self.parts.last().map_or(0, |part| part.lines.end);
        self.parts.push(Part { origin: Arc::clone(origin), segment, lines: start..end });
    }

    /// Gives the records of some parts other ids, before any of them is sent.
    pub(crate) fn rename(&mut self, mut id: impl FnMut(&Part) -> Option<FileId>) {
        for part in &mut self.parts {
            if let Some(id) = id(part) {
                part.origin = Arc::new(Origin { id, path: Arc::clone(&part.origin.path) });
            }
        }
    }

    /// The segments, in the order in which they were read.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The lines with these numbers that belong to a part, with their text.
    pub(crate) fn lines(&self, part: &Part, numbers: &Range<usize>) -> impl Iterator<Item = (&Line, &[u8])> {
        let (start, end) = (part.lines.start.max(numbers.start), part.lines.end.min(numbers.end));
        self.lines[start.min(end)..end].iter().map(|line| (line, &self.text[line.text.clone()]))
    }

    /// A line, and the file that it is from.
    pub(crate) fn line(&self, number: usize) -> Option<(&Origin, &Line)> {
        let part = self.parts.iter().find(|part| part.lines.contains(&number))?;
        Some((&part.origin, self.lines.get(number)?))
    }

    /// How many lines, or runs of them.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// How many lines of the files.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Lends the text of all lines, so that copies are read into it, and written from it.
    #[must_use]
    pub(crate) fn lend_text(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.text)
    }

    /// Takes back what was lent as it was; or, of a chunk that is done with and whose ranges alone still count, any memory.
    pub(crate) fn return_text(&mut self, text: Vec<u8>) {
        self.text = text;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.lines.last().map_or(0, |last| last.text.end)
    }

    /// Of lines that were read before: when.
    pub(crate) fn set_observed(&mut self, observed: SystemTime) {
        self.observed = observed;
    }

    /// When the first of its lines was read.
    pub(crate) fn observed(&self) -> SystemTime {
        self.observed
    }

    /// The same for the same lines of the same ranges of the same files, so that a receiver can tell what it already has.
    pub(crate) fn key(&self, numbers: &Range<usize>) -> String {
        let mut hash = Sha256::new();
        for Part { origin, segment, .. } in &self.parts {
            hash.update(format!("{} {} {}\n", origin.id, segment.start.0, segment.end.0));
        }
        if *numbers != (0..self.len()) {
            hash.update(format!("{} {}\n", numbers.start, numbers.end));
        }
        let half = hash.finalize().iter().take(16).fold(0, |sum, byte| sum << 8 | u128::from(*byte));
        format!("{half:032x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Fingerprint;
    use crate::position::{ContentSeq, ReadOffset};

    fn segment(start: u64, end: u64) -> Segment {
        Segment {
            content: ContentSeq(1),
            start: ReadOffset(start),
            end: ReadOffset(end),
            before_end: Fingerprint::of(b""),
        }
    }

    fn origin() -> Arc<Origin> {
        let id = serde_json::from_str("\"0123456789abcdef\"").unwrap();
        Arc::new(Origin { id, path: "/logs/a".into() })
    }

    #[test]
    fn neighbouring_segments_become_one() {
        let (mut chunk, origin) = (Chunk::new(100, ChunkMode::Records), origin());
        chunk.push(0..1, b"a", 0, Parsed::Text);
        chunk.close(&origin, segment(0, 2));
        chunk.push(2..3, b"b", 0, Parsed::Text);
        chunk.close(&origin, segment(2, 4));
        assert_eq!(chunk.parts().len(), 1);
        let texts: Vec<_> = chunk.lines(&chunk.parts()[0], &(0..2)).map(|(_, text)| text).collect();
        assert_eq!(texts, [b"a", b"b"]);
        chunk.push(9..10, b"c", 0, Parsed::Text);
        chunk.close(&origin, segment(9, 11));
        assert_eq!(chunk.parts().len(), 2, "what is not contiguous is confirmed by itself");
    }

    #[test]
    fn copies_keep_their_line_breaks_and_are_counted() {
        let mut chunk = Chunk::new(100, ChunkMode::Raw);
        let mut text = chunk.lend_text();
        text.extend_from_slice(b"a\r\n\n");
        chunk.push_run(text, 0, 0..4, 2);
        chunk.push(4..5, b"b", 0, Parsed::Text);
        assert_eq!((chunk.records(), chunk.len(), chunk.bytes()), (3, 2, 6));
        assert_eq!(chunk.lend_text(), b"a\r\n\nb\n");
        assert_eq!(chunk.bytes(), 6, "whoever has the text");
    }

    #[test]
    fn the_key_is_that_of_the_ranges() {
        let key = |end| {
            let mut chunk = Chunk::new(100, ChunkMode::Records);
            chunk.push(0..1, b"a", 0, Parsed::Text);
            chunk.close(&origin(), segment(0, end));
            chunk.key(&(0..1))
        };
        assert_eq!(key(2), key(2));
        assert_ne!(key(2), key(3));
    }

    #[test]
    fn full_by_bytes_or_by_lines() {
        let mut chunk = Chunk::new(10, ChunkMode::Records);
        chunk.push(0..1, b"0123456789", 0, Parsed::Text);
        assert!(chunk.is_full());
        let mut chunk = Chunk::new(10, ChunkMode::Records);
        (0..MAX_LINES as u64).for_each(|at| chunk.push(at..at, b"", 0, Parsed::Text));
        assert!(chunk.is_full());
        chunk.clear();
        assert!(!chunk.is_full() && chunk.is_empty());
    }
}
