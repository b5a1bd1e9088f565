//! How lines are cut from files, whichever file it is.

use std::time::Duration;

use crate::record::chunk::{Chunk, ChunkMode};
use crate::record::filter::Filter;
use crate::record::parse::{FieldNames, Format};

/// Read at once. Large enough that system calls do not show, small enough to stay in the cache.
pub(super) const PORTION: usize = 128 * 1024;

/// How lines are cut from files.
#[derive(Debug)]
pub(crate) struct ReadOptions {
    /// How a line is read.
    pub(crate) format: Format,
    /// The names that the user gives fields.
    pub(crate) names: FieldNames,
    /// Which lines are one record.
    pub(crate) multiline: Multiline,
    /// What the user wants left out.
    pub(crate) filter: Filter,
    /// The longest line that is shipped whole.
    pub(crate) max_line: usize,
    /// Read into here, whatever the file: one buffer for all of them.
    pub(crate) buffer: Vec<u8>,
}

impl ReadOptions {
    /// Whether lines are copied as they are, without a look into them: nothing is to be left out, and none that fits into a portion
    /// is too long.
    pub(super) fn leaves_lines_alone(&self) -> bool {
        self.filter == Filter::default() && self.max_line >= PORTION
    }

    /// Whether such lines are the chunk's, each for itself.
    pub(super) fn copies_into(&self, chunk: &Chunk) -> bool {
        let alone = matches!(self.multiline, Multiline::Off);
        alone && chunk.purpose() == ChunkMode::Raw && self.leaves_lines_alone()
    }
}

/// Which lines are one record.
#[derive(Debug, Clone)]
pub(crate) enum Multiline {
    /// Each is one.
    Off,
    /// A line that begins like this begins a record, and those that follow belong to it.
    StartsWith {
        /// How a record begins.
        start: regex_lite::Regex,
        /// How long a file has to be quiet before its last record is at its end.
        quiet: Duration,
    },
}

/// What to do with a last line that has no line break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnterminatedLine {
    /// Its writer will finish it: wait.
    Hold,
    /// Nobody will: it is a line.
    Emit,
}

/// How a read went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There may be more.
    More,
    /// Nothing more for now.
    AtEnd,
    /// The content is not what it was. Before it is given up, somebody should look for a copy of it: the next read draws
    /// the conclusion.
    Replaced,
}

/// When to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// When the agent is told to.
    Signalled,
    /// When everything is shipped.
    EndOfFiles,
}
