//! How lines are cut from files, whichever file it is.

use std::time::Duration;

use crate::chunk::{Chunk, Purpose};
use crate::parse::Format;
use crate::shape::Shape;

/// Read at once. Large enough that system calls do not show, small enough to stay in the cache.
pub(super) const PORTION: usize = 128 * 1024;

/// How lines are cut from files.
#[derive(Debug)]
pub struct Reader {
    /// How a line is read.
    pub format: Format,
    /// Which lines are one record.
    pub joining: Joining,
    /// What the user wants left out.
    pub shape: Shape,
    /// The longest line that is shipped whole.
    pub max_line: usize,
    /// Read into here, whatever the file: one buffer for all of them.
    pub buffer: Vec<u8>,
}

impl Reader {
    /// Whether lines are copied as they are, without a look into them: nothing is to be left out, and none that fits into a portion
    /// is too long.
    pub(super) fn leaves_lines_alone(&self) -> bool {
        self.shape == Shape::default() && self.max_line >= PORTION
    }

    /// Whether such lines are the chunk's, each for itself.
    pub(super) fn copies_into(&self, chunk: &Chunk) -> bool {
        let alone = matches!(self.joining, Joining::None);
        alone && chunk.purpose() == Purpose::Copies && self.leaves_lines_alone()
    }
}

/// Which lines are one record.
#[derive(Debug, Clone)]
pub enum Joining {
    /// Each is one.
    None,
    /// A line that begins like this begins a record, and those that follow belong to it.
    ByStart {
        /// How a record begins.
        start: regex_lite::Regex,
        /// How long a file has to be quiet before its last record is at its end.
        quiet: Duration,
    },
}

/// What to do with a last line that has no line break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastLine {
    /// Its writer will finish it: wait.
    Wait,
    /// Nobody will: it is a line.
    Take,
}

/// How a read went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There may be more.
    More,
    /// Nothing more for now.
    AtEnd,
    /// The content is not what it was. Before it is given up, somebody should look for a copy of it: the next read draws
    /// the conclusion.
    Replaced,
}
