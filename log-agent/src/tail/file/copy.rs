//! Copying on: what is by far the most of a plain copy, read straight into the chunk that carries it, so that each byte is
//! moved once on its way in and once on its way out.

use memchr::{memchr_iter, memrchr};
use rustix::buffer::spare_capacity;
use rustix::io::pread;

use super::reader::PORTION;
use super::{ReadOptions, Suspicion, TailedFile};
use crate::identity::WINDOW;
use crate::position::ReadOffset;
use crate::record::chunk::Chunk;

impl TailedFile {
    /// Takes complete lines from the middle of a large file; true where it did. Whatever is not as usual (the beginning, the
    /// end, a line without one, content that is not what it was), it leaves to `read`, as if it had not been.
    pub(super) fn copy_on(&mut self, sink: usize, options: &ReadOptions, chunk: &mut Chunk) -> bool {
        let Some(cursor) = self.cursors.get(sink) else { return false };
        let start = cursor.read.0;
        let usual = self.id.is_some() && self.suspicion == Suspicion::None && cursor.before.len() == WINDOW;
        if !usual || self.size.saturating_sub(start) < PORTION as u64 {
            return false;
        }
        let mut text = chunk.lend_text();
        let from = text.len();
        text.reserve_exact(PORTION);
        let room = text.capacity() - from;
        let filled = if room <= options.max_line && self.size - start >= room as u64 {
            pread(&self.file, spare_capacity(&mut text), start).unwrap_or_default()
        } else {
            0
        };
        // After the lines: content that was replaced before they were read shows here.
        let mut before = [0; WINDOW];
        let known = filled == room
            && self.fill(&mut before, start - WINDOW as u64).is_ok_and(|filled| filled == WINDOW)
            && before == *self.cursors[sink].before;
        let taken = if known { memrchr(b'\n', &text[from..]).map_or(0, |last| last + 1) } else { 0 };
        text.truncate(from + taken);
        let (end, lines) = (start + taken as u64, memchr_iter(b'\n', &text[from..]).count());
        if taken >= WINDOW {
            before.copy_from_slice(&text[from + taken - WINDOW..]);
            chunk.push_run(text, from, start..end - 1, lines);
            self.settle(sink, &before, ReadOffset(end), chunk);
            self.note_size(start + filled as u64);
            return true;
        }
        text.truncate(from);
        chunk.return_text(text);
        false
    }
}
