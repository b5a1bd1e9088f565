//! Cuts bytes into lines, records of several lines, and runs of lines. Pure: no file, no position, no state.

use std::ops::Range;

use memchr::{memchr, memchr_iter, memrchr};
use regex_lite::Regex;

use crate::identity::WINDOW;
use crate::record::parse::{DataEnd, leading_nuls};

/// How compressed files begin: gzip, zstd, bzip2, xz, lz4, zip, compress.
const COMPRESSED: [&[u8]; 7] = [
    b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd",
    b"BZh",
    b"\xfd7zXZ\0",
    b"\x04\x22\x4d\x18",
    b"PK\x03\x04",
    b"\x1f\x9d",
];

/// Whether a file that begins like this is compressed.
pub(super) fn is_compressed(head: &[u8]) -> bool {
    let bzip2 = head.get(4..10).is_none_or(|block| block == b"1AY&SY");
    COMPRESSED.iter().any(|magic| head.starts_with(magic) && (*magic != b"BZh" || bzip2))
}

/// Where each complete line ends: its line break.
pub(super) fn line_ends(data: &[u8]) -> LineEnds<'_> {
    LineEnds { data, at: 0 }
}

/// Looked at in one step.
const BLOCK: usize = 32;

/// See [`line_ends`]. Lines are a few blocks long each: to begin a search by `memchr` for every one took longer than the search.
#[derive(Debug)]
pub(super) struct LineEnds<'a> {
    data: &'a [u8],
    /// Where the line begins whose end is next.
    at: usize,
}

impl Iterator for LineEnds<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let mut from = self.at;
        while let Some(block) = self.data.get(from..).and_then(<[u8]>::first_chunk::<BLOCK>) {
            // Without a branch, so that the compiler compares all of them at once.
            if block.iter().fold(0, |found, byte| found | u8::from(*byte == b'\n')) > 0 {
                break;
            }
            from += BLOCK;
        }
        let end = from + self.data.get(from..)?.iter().position(|byte| *byte == b'\n')?;
        self.at = end + 1;
        Some(end)
    }
}

/// Complete lines that are copied as they are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Up to behind the last line break.
    pub(super) len: usize,
    pub(super) lines: usize,
    /// Up to behind the first line break.
    pub(super) first_line: usize,
}

/// The run at the start of `data`; none where it is to be cut into lines, because there is no line, or a NUL somewhere.
pub(super) fn run(data: &[u8]) -> Option<Run> {
    let len = memrchr(b'\n', data)? + 1;
    let lines = &data[..len];
    if memchr(0, lines).is_some() {
        return None;
    }
    let first_line = memchr(b'\n', lines).map_or(len, |at| at + 1);
    Some(Run { len, lines: memchr_iter(b'\n', lines).count(), first_line })
}

/// The complete records at the start of some data, each of one line or more: a line that matches begins one.
#[derive(Debug)]
pub(super) struct Records<'a> {
    data: &'a [u8],
    start: &'a Regex,
    end: DataEnd,
    ends: LineEnds<'a>,
    /// Up to here they were given out.
    taken: usize,
    /// The line that is looked at next.
    line: usize,
}

impl<'a> Records<'a> {
    pub(super) fn new(data: &'a [u8], start: &'a Regex, end: DataEnd) -> Self {
        Self { data, start, end, ends: line_ends(data), taken: 0, line: 0 }
    }

    /// Where the line after the one that is looked at begins, where that one is whole.
    fn next_line(&mut self) -> Option<usize> {
        let is_last = self.end == DataEnd::Final && self.line < self.data.len();
        self.ends.next().map(|end| end + 1).or(is_last.then_some(self.data.len()))
    }

    fn begins(&self, line: &[u8]) -> bool {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = &line[leading_nuls(line)..];
        self.start.is_match(&String::from_utf8_lossy(&line[..line.len().min(WINDOW)]))
    }

    /// What is between the record before and the line that is looked at.
    fn take(&mut self) -> Range<usize> {
        std::mem::replace(&mut self.taken, self.line)..self.line
    }
}

impl Iterator for Records<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        while let Some(next) = self.next_line() {
            let new = self.line > self.taken && self.begins(&self.data[self.line..next]);
            let record = new.then(|| self.take());
            self.line = next;
            if record.is_some() {
                return record;
            }
        }
        // What is left may go on. Where it fills all that is read at once it is shipped in parts.
        let whole = self.end == DataEnd::Final || (self.end == DataEnd::More && self.taken == 0);
        (self.line > self.taken && whole).then(|| self.take())
    }
}

/// At most `limit` bytes of a line, without half a character at the end.
pub(super) fn whole_characters(line: &[u8], limit: usize) -> &[u8] {
    if line.len() <= limit {
        return line;
    }
    let mut end = limit;
    while end > 0 && limit - end < 3 && line[end] & 0b1100_0000 == 0b1000_0000 {
        end -= 1;
    }
    &line[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(data: &str, end: DataEnd) -> Vec<&str> {
        let start = Regex::new("^[^ ]").unwrap();
        Records::new(data.as_bytes(), &start, end).map(|record| &data[record]).collect()
    }

    #[test]
    fn a_record_ends_where_the_next_begins_or_where_the_file_is_over() {
        let data = "a\n b\nc\n d\n";
        assert_eq!(records(data, DataEnd::Eof), ["a\n b\n"], "the last one may go on");
        assert_eq!(records(data, DataEnd::Final), ["a\n b\n", "c\n d\n"]);
        assert_eq!(
            records("a\n b\nc", DataEnd::Eof),
            ["a\n b\n"][..0],
            "a line without an end begins nothing yet"
        );
        assert_eq!(records("a\n b\nc", DataEnd::Final), ["a\n b\n", "c"]);
        assert_eq!(records("a\n b\n c", DataEnd::Final), ["a\n b\n c"]);
        assert_eq!(records("", DataEnd::Final), [""; 0]);
    }

    #[test]
    fn a_record_that_fills_a_portion_is_given_out_in_parts() {
        assert_eq!(records("a\n b\n c", DataEnd::More), ["a\n b\n"]);
        assert_eq!(records("a\n b\nc\n d", DataEnd::More), ["a\n b\n"]);
        assert_eq!(records("no line break", DataEnd::More), [""; 0]);
    }

    #[test]
    fn a_run_ends_with_a_line_and_has_no_nul() {
        assert_eq!(run(b"a\nbc\nd"), Some(Run { len: 5, lines: 2, first_line: 2 }));
        assert_eq!(run(b"a"), None);
        assert_eq!(run(b"a\n\0b\n"), None);
        assert_eq!(run(b"a\n\0b"), Some(Run { len: 2, lines: 1, first_line: 2 }));
    }

    #[test]
    fn compressed_files_are_known_by_their_first_bytes() {
        for magic in COMPRESSED {
            assert!(is_compressed(magic));
        }
        assert!(is_compressed(b"BZh91AY&SYxxx") && !is_compressed(b"BZhello world, this is text"));
        assert!(!is_compressed(b"") && !is_compressed(b"PKW") && !is_compressed(b"{\"a\":1}"));
    }

    #[test]
    fn a_cut_is_between_characters() {
        assert_eq!(whole_characters("añb".as_bytes(), 2), b"a");
        assert_eq!(whole_characters("añb".as_bytes(), 3), "añ".as_bytes());
        assert_eq!(whole_characters(b"ab", 5), b"ab");
    }
}
