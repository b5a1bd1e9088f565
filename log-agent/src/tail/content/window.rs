//! Bytes of a content at a place, by which it is recognised there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::identity::{Fingerprint, WINDOW};

/// What bytes can be read from.
pub(crate) trait ReadAt {
    /// Reads until the buffer is full or the bytes end.
    fn fill(&self, buffer: &mut [u8], from: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn fill(&self, buffer: &mut [u8], from: u64) -> io::Result<usize> {
        #[cfg(test)]
        super::super::slow_disk::read();
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], from + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// Bytes of a content, at most [`WINDOW`]; or what a restart leaves of them.
#[derive(Debug, Clone)]
pub(super) enum Window {
    Bytes(Vec<u8>),
    Print(Fingerprint),
}

impl Window {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Print(print) => print.len.min(WINDOW),
        }
    }

    pub(super) fn print(&self) -> Fingerprint {
        match self {
            Self::Bytes(bytes) => Fingerprint::of(bytes),
            Self::Print(print) => *print,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Print(_) => &[],
        }
    }

    /// Whether they are right before this place.
    pub(super) fn is_before(&self, file: &impl ReadAt, end: u64) -> io::Result<bool> {
        let mut buffer = [0; WINDOW];
        let bytes = &mut buffer[..self.len()];
        let Some(from) = end.checked_sub(bytes.len() as u64) else { return Ok(false) };
        let filled = file.fill(bytes, from)?;
        Ok(match self {
            Self::Bytes(known) => filled == bytes.len() && known == bytes,
            Self::Print(print) => filled == bytes.len() && print.matches(bytes),
        })
    }
}

/// Where the last line of these begins.
pub(super) fn line_start(lines: &[u8]) -> u64 {
    lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1)
}

pub(in crate::tail) fn window_before(file: &impl ReadAt, end: u64) -> io::Result<Vec<u8>> {
    bytes_before(file, end, usize::try_from(end).map_or(WINDOW, |end| end.min(WINDOW)))
}

/// So many bytes before this place.
pub(super) fn bytes_before(file: &impl ReadAt, end: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let filled = file.fill(&mut bytes, end.saturating_sub(len as u64))?;
    bytes.truncate(filled);
    Ok(bytes)
}
