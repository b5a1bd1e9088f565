//! Range requests, RFC 9110 section 14.
//!
//! The work that a request can cause is bounded: ranges that overlap, or too many of them, are answered with the whole
//! representation, as section 14.2 allows.

use http::header::{HeaderMap, IF_RANGE, RANGE};

use crate::content::representation::{ETag, Modified};
use crate::http::conditional::{Comparison, equals};

/// No client that wants the bytes sends more ranges than this in one request.
const RANGES_MAX: usize = 16;

/// What part of a representation is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it: 200.
    Whole,
    /// One range: 206.
    One(Range),
    /// Several that do not overlap, in the order in which they were asked for: 206 with a part for each.
    Several(Vec<Range>),
    /// None of what was asked for exists: 416.
    Unsatisfiable,
}

/// Bytes that exist, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// Of the first byte.
    pub(crate) first: u64,
    /// Of the last byte, included.
    pub(crate) last: u64,
}

impl Range {
    /// How many bytes.
    pub(crate) fn length(self) -> u64 {
        self.last - self.first + 1
    }

    /// As Content-Range has it, of a representation of `size` bytes.
    pub(crate) fn content_range(self, size: u64) -> String {
        format!("bytes {}-{}/{size}", self.first, self.last)
    }

    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Which part of a representation of `size` bytes a GET request wants.
pub(crate) fn requested(headers: &HeaderMap, etag: &ETag, modified: Option<Modified>, size: u64) -> Part {
    let mut values = headers.get_all(RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Part::Whole };
    if !still_the_same(headers, etag, modified) {
        return Part::Whole;
    }
    // A Range field that makes no sense is as if it were not there (section 14.2).
    value.to_str().ok().and_then(|value| parse(value, size)).unwrap_or(Part::Whole)
}

/// If-Range (section 13.1.5): a part is of use only to who has the rest of the same bytes.
fn still_the_same(headers: &HeaderMap, etag: &ETag, modified: Option<Modified>) -> bool {
    match headers.get(IF_RANGE) {
        None => true,
        Some(value) if value.as_bytes().contains(&b'"') => {
            equals(value.as_bytes().trim_ascii(), etag, Comparison::Strong)
        }
        // A date must be the very one that we sent.
        Some(value) => modified.is_some_and(|modified| Modified::parse(value) == Some(modified)),
    }
}

/// `None` for what is not a well-formed set of byte ranges.
fn parse(value: &str, size: u64) -> Option<Part> {
    let (unit, set) = value.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    // Empty elements of a list count for nothing (RFC 9110 section 5.6.1).
    let specs: Vec<&str> =
        set.split(',').map(str::trim).filter(|spec| !spec.is_empty()).take(RANGES_MAX + 1).collect();
    if specs.is_empty() || specs.len() > RANGES_MAX {
        return None;
    }
    let mut ranges: Vec<Range> = Vec::new();
    for spec in specs {
        let Range { first, last } = bounds(spec, size)?;
        // Well-formed, and perhaps there are no such bytes.
        if first < size {
            let range = Range { first, last: last.min(size - 1) };
            if ranges.iter().any(|known| known.overlaps(range)) {
                return None;
            }
            ranges.push(range);
        }
    }
    Some(match ranges.as_slice() {
        [] => Part::Unsatisfiable,
        [range] => Part::One(*range),
        _ => Part::Several(ranges),
    })
}

/// One element of the set, whatever the representation has of it. `None` for what is not well-formed.
fn bounds(spec: &str, size: u64) -> Option<Range> {
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        // The last so many bytes.
        return Some(Range { first: size.saturating_sub(number(last)?), last: u64::MAX });
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    (first <= last).then_some(Range { first, last })
}

/// Digits only; what is larger than we can count is beyond any file.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(first: u64, last: u64) -> Part {
        Part::One(Range { first, last })
    }

    #[test]
    fn one_range() {
        assert_eq!(parse("bytes=0-4", 10), Some(bytes(0, 4)));
        assert_eq!(parse("BYTES=9-", 10), Some(bytes(9, 9)));
        assert_eq!(parse("bytes=5-99", 10), Some(bytes(5, 9)));
        assert_eq!(parse("bytes=-3", 10), Some(bytes(7, 9)));
        assert_eq!(parse("bytes=-99", 10), Some(bytes(0, 9)));
        assert_eq!(parse("bytes=0-99999999999999999999999", 10), Some(bytes(0, 9)));
    }

    #[test]
    fn several_ranges() {
        let several = |ranges: &[(u64, u64)]| {
            Some(Part::Several(
                ranges.iter().map(|(first, last)| Range { first: *first, last: *last }).collect(),
            ))
        };
        assert_eq!(parse("bytes=0-1, 4-5 ,, -1", 10), several(&[(0, 1), (4, 5), (9, 9)]));
        assert_eq!(parse("bytes=8-9,0-1", 10), several(&[(8, 9), (0, 1)]));
        assert_eq!(parse("bytes=0-1,20-30", 10), Some(bytes(0, 1)));
        assert_eq!(parse("bytes=20-30,40-", 10), Some(Part::Unsatisfiable));
        assert_eq!(parse("bytes=0-4,4-5", 10), None);
        assert_eq!(parse(&format!("bytes={}", "0-0,".repeat(17)), 10), None);
    }

    #[test]
    fn what_does_not_exist() {
        for value in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(parse(value, 10), Some(Part::Unsatisfiable), "{value}");
        }
        assert_eq!(parse("bytes=0-", 0), Some(Part::Unsatisfiable));
        assert_eq!(parse("bytes=-1", 0), Some(Part::Unsatisfiable));
    }

    #[test]
    fn what_makes_no_sense_is_as_if_it_were_not_there() {
        for value in [
            "bytes=4-2",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes 0-4",
            "lines=0-4",
            "0-4",
            "bytes=0-1,x",
            "bytes=,",
        ] {
            assert_eq!(parse(value, 10), None, "{value}");
        }
    }
}
