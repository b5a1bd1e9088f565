//! What was seen of a content behind what was read of it: it has to be there when it is read on.

use std::io;

use super::window::{ReadAt, line_start};

/// So many bytes are kept.
const AHEAD: usize = 64;
/// The line in which the first window ends is looked through this far for its end.
const LINE_SEARCH: u64 = 4096;

/// The first bytes that are known by nothing else: those behind what was read, or, where that is within the first window, behind the line
/// in which the window ends. Many logs begin with the same lines, and these tell them apart.
#[derive(Debug, Clone)]
pub(super) struct Ahead {
    /// How far the content was read, and how long it was, when it was looked at.
    read: u64,
    size: u64,
    at: u64,
    bytes: Vec<u8>,
}

impl Ahead {
    /// Looks into a content with a head of this length.
    pub(super) fn look(file: &impl ReadAt, head: usize, read: u64, size: u64) -> Self {
        let at = if read < head as u64 { end_of_line(file, head as u64, size) } else { Some(read) };
        let (at, len) = at.map_or((size, 0), |at| (at, size.saturating_sub(at)));
        let mut bytes = vec![0; usize::try_from(len).map_or(AHEAD, |len| len.min(AHEAD))];
        let filled = file.fill(&mut bytes, at).unwrap_or_default();
        bytes.truncate(filled);
        Self { read, size, at, bytes }
    }

    /// What a checkpoint says of a content that had been read this far.
    pub(super) fn restored(bytes: Vec<u8>, at: Option<u64>, read: u64, size: u64) -> Self {
        Self { read, size, at: at.unwrap_or(read), bytes }
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether another look, at a content that was read this far and is this long, would find no more.
    pub(super) fn is_of(&self, head: usize, read: u64, size: u64) -> bool {
        let is_whole = self.bytes.len() == AHEAD
            || self.size == size
            || (self.bytes.is_empty() && self.size > head as u64 + LINE_SEARCH);
        self.read == read && is_whole
    }

    /// From where on a file holds other lines, where it does.
    pub(super) fn changed_from(&self, file: &impl ReadAt) -> io::Result<Option<u64>> {
        let mut is = [0; AHEAD];
        let filled = file.fill(&mut is[..self.bytes.len()], self.at)?;
        let alike = self.bytes.iter().zip(&is[..filled]).take_while(|(known, is)| known == is).count();
        Ok((alike < filled).then(|| self.at + line_start(&self.bytes[..alike])))
    }
}

/// Where the line ends that the byte before `from` belongs to.
fn end_of_line(file: &impl ReadAt, from: u64, size: u64) -> Option<u64> {
    let from = from.saturating_sub(1);
    let len = size.saturating_sub(from).min(LINE_SEARCH);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    let filled = file.fill(&mut bytes, from).unwrap_or_default();
    memchr::memchr(b'\n', &bytes[..filled]).map(|newline| from + newline as u64 + 1)
}
