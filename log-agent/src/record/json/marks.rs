//! Where a string may end: the bytes that no string holds as they are, found for 64 bytes of a text at once.
//!
//! A search that begins anew in each string has to wait until the string before it has ended. Here the marks of a block are known
//! before they are asked for, and the next one is a few instructions away.

use wide::u8x16;

/// Bytes in a block: as many as a word has bits.
const BLOCK: usize = 64;

/// The marks in one block of a text: its quotes, backslashes and control characters.
#[derive(Clone, Copy)]
pub(super) struct Marks {
    /// Where the block begins in the text.
    start: usize,
    /// One bit for each of its bytes, the first byte's the lowest.
    bits: u64,
}

impl Marks {
    /// Of no block yet.
    pub(super) const NONE: Self = Self { start: usize::MAX, bits: 0 };

    /// The first mark of the text that is not before `at`.
    #[inline(always)]
    pub(super) fn next(&mut self, text: &[u8], mut at: usize) -> Option<usize> {
        loop {
            let start = at - at % BLOCK;
            if start != self.start {
                *self = Self { start, bits: bits_from(text, start)? };
            }
            let left = self.bits >> (at % BLOCK);
            if left != 0 {
                return Some(at + left.trailing_zeros() as usize);
            }
            at = start + BLOCK;
        }
    }
}

/// Of the block that begins at `start`; nothing where the text has ended.
#[inline(always)]
fn bits_from(text: &[u8], start: usize) -> Option<u64> {
    match text.get(start..)?.first_chunk() {
        Some(block) => Some(bits(block)),
        None => bits_of_last(text, start),
    }
}

/// Of the last block, which is shorter than the others.
#[inline(never)]
fn bits_of_last(text: &[u8], start: usize) -> Option<u64> {
    let rest = text.len().checked_sub(start).filter(|rest| *rest > 0)?;
    if let Some(block) = text.last_chunk() {
        return Some(bits(block) >> (BLOCK - rest));
    }
    let mut block = [b' '; BLOCK];
    block[..rest].copy_from_slice(&text[start..]);
    Some(bits(&block))
}

#[inline(always)]
fn bits(block: &[u8; BLOCK]) -> u64 {
    let [quote, backslash, last_control] = [b'"', b'\\', b' ' - 1].map(u8x16::splat);
    let mut bits = 0;
    for (at, part) in block.as_chunks().0.iter().enumerate() {
        let part = u8x16::new(*part);
        let marks = part.simd_eq(quote) | part.simd_eq(backslash) | part.min(last_control).simd_eq(part);
        bits |= u64::from(marks.to_bitmask()) << (at * 16);
    }
    bits
}
