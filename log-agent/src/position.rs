//! Where a sink stands in a file: what was read for it, and what it has confirmed. Two types, because to checkpoint the
//! first in the place of the second is how log agents lose lines.

use serde::{Deserialize, Serialize};

use crate::identity::{Epoch, Fingerprint};

/// Bytes before it have been read for a sink, which says nothing about whether the sink has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct ReadOffset(pub(crate) u64);

/// Bytes before it have been confirmed by the sink; only this may be written to a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct AckedOffset(u64);

impl AckedOffset {
    /// In bytes.
    pub(crate) fn get(self) -> u64 {
        self.0
    }

    /// Where to begin reading again.
    pub(crate) fn resume(self) -> ReadOffset {
        ReadOffset(self.0)
    }
}

/// Part of a chunk: a contiguous range of one file, from the end of one line to the end of another.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    /// Which file.
    pub(crate) source: FileSeq,
    /// Which content of it.
    pub(crate) epoch: Epoch,
    /// Its first byte.
    pub(crate) start: ReadOffset,
    /// The byte after its last newline.
    pub(crate) end: ReadOffset,
    /// Of the bytes right before `end`.
    pub(crate) before_end: Fingerprint,
}

/// Files in the order in which they were met, which is the order in which they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileSeq(pub(crate) u64);

/// What one sink has confirmed of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Confirmed {
    /// All bytes before it.
    pub(crate) offset: AckedOffset,
    /// Of the bytes right before the offset: how a reopened file proves that it is still the one.
    pub(crate) before: Fingerprint,
}

impl Confirmed {
    /// Nothing yet.
    pub(crate) fn nothing() -> Self {
        Self { offset: AckedOffset::default(), before: Fingerprint::of(b"") }
    }

    /// No more than the bytes before `end`, which has these right before it: for a file that ends there.
    #[must_use]
    pub(crate) fn at_most(self, end: u64, before: Fingerprint) -> Self {
        if self.offset.0 > end { Self { offset: AckedOffset(end), before } } else { self }
    }

    /// Moves on over a segment that the sink has confirmed.
    ///
    /// Returns false, and stays, where the segment does not begin at the confirmed offset: skipping the gap would mean
    /// losing it.
    #[must_use]
    pub(crate) fn advance(&mut self, segment: &Segment) -> bool {
        if segment.start.0 != self.offset.0 {
            return false;
        }
        *self = Self { offset: AckedOffset(segment.end.0), before: segment.before_end };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: u64, end: u64) -> Segment {
        Segment {
            source: FileSeq(0),
            epoch: Epoch::default(),
            start: ReadOffset(start),
            end: ReadOffset(end),
            before_end: Fingerprint::of(b"x"),
        }
    }

    #[test]
    fn only_a_contiguous_prefix_is_ever_confirmed() {
        let mut confirmed = Confirmed::nothing();
        assert!(confirmed.advance(&segment(0, 10)));
        assert!(!confirmed.advance(&segment(20, 30)), "a gap is never jumped");
        assert_eq!(confirmed.offset.get(), 10);
        assert!(confirmed.advance(&segment(10, 20)));
        assert_eq!(confirmed.offset.get(), 20);
    }
}
