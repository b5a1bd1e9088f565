//! The lines alone: for a copy of the logs, or for who reads them as they were written.

use std::ops::Range;

use crate::record::chunk::Chunk;

/// Appends the lines, which have their line breaks: a chunk of copies keeps them.
pub(super) fn encode(chunk: &Chunk, numbers: &Range<usize>, out: &mut Vec<u8>) {
    for part in chunk.parts() {
        for (_, text) in chunk.lines(part, numbers) {
            out.extend_from_slice(text);
        }
    }
}
