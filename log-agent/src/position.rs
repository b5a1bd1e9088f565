//! Where a sink stands in a file: what was read for it, and what it has confirmed. Two types, because to checkpoint the
//! first in the place of the second is how log agents lose lines.

use serde::{Deserialize, Serialize};

use crate::identity::Fingerprint;

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

/// A sink, by its place in the order of `--sink`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SinkIndex(pub(crate) u16);

impl SinkIndex {
    /// Those of so many sinks.
    pub(crate) fn all(count: usize) -> impl Iterator<Item = Self> {
        (0..u16::try_from(count).unwrap_or(u16::MAX)).map(Self)
    }

    /// As an index into what is kept by sink.
    pub(crate) fn get(self) -> usize {
        self.0.into()
    }
}

/// Contents of files in the order in which they were met, which is the order in which they are read. The number is of this
/// process alone; what outlives it is the [`crate::identity::FileId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ContentSeq(pub(crate) u64);

/// Part of a chunk: a contiguous range of one content, from the end of one line to the end of another.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) content: ContentSeq,
    /// Its first byte.
    pub(crate) start: ReadOffset,
    /// The byte after its last newline.
    pub(crate) end: ReadOffset,
    /// Of the bytes right before `end`.
    pub(crate) before_end: Fingerprint,
}

/// What one sink has confirmed of one content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Confirmed {
    /// All bytes before it.
    pub(crate) offset: AckedOffset,
    /// Of the bytes right before the offset: how a reopened file proves that it is still the one.
    pub(crate) before: Fingerprint,
}

impl Confirmed {
    pub(crate) fn nothing() -> Self {
        Self { offset: AckedOffset::default(), before: Fingerprint::of(b"") }
    }

    /// Bytes that the sink need not confirm: they were skipped on purpose, or entered as lost.
    pub(crate) fn skipped_to(offset: u64, before: Fingerprint) -> Self {
        Self { offset: AckedOffset(offset), before }
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
            content: ContentSeq(0),
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
