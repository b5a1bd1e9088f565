//! Records of several lines: a line that begins like one begins one, and those after it belong to it.

use memchr::memchr_iter;
use regex_lite::Regex;

use super::{ReadOptions, TailedFile};
use crate::identity::{FileId, WINDOW};
use crate::loss::LossLedger;
use crate::record::chunk::Chunk;

/// How the data ends that records are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataEnd {
    /// At the end of the file, and nobody writes any more: not even the end of a last line.
    Final,
    /// At the end of the file, for now.
    Eof,
    /// There is more to read.
    More,
}

/// Whether a line begins a record, by its first bytes.
fn begins(start: &Regex, line: &[u8]) -> bool {
    start.is_match(&String::from_utf8_lossy(&line[..line.len().min(WINDOW)]))
}

impl TailedFile {
    /// Takes the complete records at the start of `data`, each of one line or more, and says how many bytes they were.
    #[expect(clippy::too_many_arguments, reason = "a step of `read`, with what `read` was given")]
    pub(super) fn take_records(
        &mut self,
        sink: usize,
        data: &[u8],
        start: &Regex,
        end: DataEnd,
        options: &ReadOptions,
        chunk: &mut Chunk,
        ledger: &LossLedger,
    ) -> usize {
        let offset = self.cursors[sink].read.0;
        let (mut taken, mut line) = (0, 0);
        let mut take = |from: usize, to: usize, chunk: &mut Chunk| {
            if self.id.is_none() {
                self.id = Some(FileId::derive(&self.key, self.epoch, &data[from..to]));
            }
            let record = data[from..to].strip_suffix(b"\n").unwrap_or(&data[from..to]);
            self.push(sink, offset + from as u64, record, record.len() as u64, options, chunk, ledger);
        };
        for newline in memchr_iter(b'\n', data) {
            if chunk.is_full() {
                return taken;
            }
            if line > taken && begins(start, &data[line..newline]) {
                take(taken, line, chunk);
                taken = line;
            }
            line = newline + 1;
        }
        if end == DataEnd::Final && line < data.len() {
            // A last line that nobody will end.
            if line > taken && begins(start, &data[line..]) {
                take(taken, line, chunk);
                taken = line;
            }
            line = data.len();
        }
        // What is left may go on. Where it fills all that is read at once it is shipped in parts.
        if line > taken && (end == DataEnd::Final || (end == DataEnd::More && taken == 0)) {
            take(taken, line, chunk);
            taken = line;
        }
        taken
    }
}
