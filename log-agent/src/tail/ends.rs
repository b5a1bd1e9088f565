//! When the end of a file is believed: where it was rotated away or removed, its writer may still hold it, and finish a last line. So
//! such a file has to be quiet first.

use std::collections::HashMap;
use std::time::Duration;

use super::file::{Naming, ReadState, TailedFile};
use super::read::UnterminatedLine;
use super::rotation::LogFamily;
use crate::position::ContentSeq;

#[derive(Debug)]
pub(super) struct FileEnds {
    rotate_wait: Duration,
    /// The last record of any file may be waiting for another line.
    joins_lines: bool,
    /// The youngest content of each log that is read: a file with an older one was rotated away.
    newest: HashMap<LogFamily, ContentSeq>,
}

impl FileEnds {
    /// Of files that have to be quiet for this long.
    pub(super) fn new(rotate_wait: Duration, joins_lines: bool) -> Self {
        Self { rotate_wait, joins_lines, newest: HashMap::new() }
    }

    /// Notes which contents are the youngest now.
    pub(super) fn note<'a>(&mut self, files: impl Iterator<Item = &'a TailedFile>) {
        self.newest.clear();
        for file in files.filter(|file| file.state() == ReadState::Active) {
            let seq = file.content().seq();
            let newest = self.newest.entry(file.family().clone()).or_insert(seq);
            *newest = seq.max(*newest);
        }
    }

    /// Whether a file has not grown for so long that nothing more is expected.
    pub(super) fn is_quiet(&self, file: &TailedFile) -> bool {
        file.quiet() >= self.rotate_wait
    }

    /// Whether a file's end is not known yet though its time is over: it was rotated away with an unfinished line, or has no name,
    /// or may be a copy; or the end of its last record is not. Such files are looked at more often, for the little while until they
    /// are quiet.
    pub(super) fn awaits_quiet(&self, file: &TailedFile) -> bool {
        file.state() == ReadState::PendingCopy
            || file.naming() == Naming::Unnamed
            || ((self.joins_lines || self.is_superseded(file)) && !file.is_read())
    }

    /// What an unfinished last line of this file is.
    pub(super) fn unterminated(&self, file: &TailedFile) -> UnterminatedLine {
        let over = file.naming() == Naming::Unnamed || self.is_superseded(file);
        if over && self.is_quiet(file) { UnterminatedLine::Emit } else { UnterminatedLine::Hold }
    }

    /// Whether nothing of this file is waited for any more: it has no name, and every sink has all of it.
    pub(super) fn is_over(&self, file: &TailedFile) -> bool {
        file.naming() == Naming::Unnamed
            && file.is_drained()
            && self.is_quiet(file)
            && file.state() != ReadState::PendingCopy
    }

    fn is_superseded(&self, file: &TailedFile) -> bool {
        self.newest.get(file.family()).is_some_and(|newest| *newest > file.content().seq())
    }
}
