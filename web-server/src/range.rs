//! Range requests, RFC 9110 section 14, for one range at a time.
//!
//! Several ranges at once are answered with the whole representation, as section 14.2 allows.

use http::header::{HeaderMap, IF_RANGE, RANGE};

use crate::conditional::{Comparison, equals};
use crate::representation::{ETag, Modified};

/// What part of a representation is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it: 200.
    Whole,
    /// Bytes `first` to `last`, both included, of more than `last`: 206.
    Bytes {
        /// Of the first byte sent.
        first: u64,
        /// Of the last byte sent.
        last: u64,
    },
    /// None of what was asked for exists: 416.
    Unsatisfiable,
}

/// Which part of a representation of `size` bytes a GET request wants.
pub fn requested(headers: &HeaderMap, etag: &ETag, modified: Modified, size: u64) -> Part {
    let mut values = headers.get_all(RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Part::Whole };
    if !still_the_same(headers, etag, modified) {
        return Part::Whole;
    }
    // A Range field that makes no sense is as if it were not there (section 14.2).
    value.to_str().ok().and_then(|value| parse(value, size)).unwrap_or(Part::Whole)
}

/// If-Range (section 13.1.5): a part is of use only to who has the rest of the same bytes.
fn still_the_same(headers: &HeaderMap, etag: &ETag, modified: Modified) -> bool {
    match headers.get(IF_RANGE) {
        None => true,
        Some(value) if value.as_bytes().contains(&b'"') => {
            equals(value.as_bytes().trim_ascii(), etag, Comparison::Strong)
        }
        // A date must be the very one that we sent.
        Some(value) => Modified::parse(value) == Some(modified),
    }
}

/// `None` for what is not exactly one well-formed range of bytes.
fn parse(value: &str, size: u64) -> Option<Part> {
    let (unit, set) = value.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    let part = match (first, last) {
        ("", suffix) => {
            let suffix = number(suffix)?;
            if suffix == 0 || size == 0 {
                Part::Unsatisfiable
            } else {
                Part::Bytes { first: size.saturating_sub(suffix), last: size - 1 }
            }
        }
        (first, last) => {
            let first = number(first)?;
            let last = if last.is_empty() { u64::MAX } else { number(last)? };
            if last < first {
                return None;
            }
            if first >= size { Part::Unsatisfiable } else { Part::Bytes { first, last: last.min(size - 1) } }
        }
    };
    Some(part)
}

/// Digits only; what is larger than we can count is beyond any file.
fn number(digits: &str) -> Option<u64> {
    let valid = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    valid.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(first: u64, last: u64) -> Part {
        Part::Bytes { first, last }
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
            "bytes=0-1,3-4",
        ] {
            assert_eq!(parse(value, 10), None, "{value}");
        }
    }
}
