//! Descriptors are fewer than files can be: those with a name take turns, and those without keep theirs longest.

use std::collections::VecDeque;
use std::io;

use rustix::io::Errno;

use super::file::{FileSeq, Naming};
use super::files::FileTable;

/// Which files are open, those first that were opened first.
#[derive(Debug)]
pub(super) struct Descriptors {
    most: usize,
    open: VecDeque<FileSeq>,
    /// Why the system gave fewer than there may be.
    shortage: Option<String>,
}

impl Descriptors {
    /// For at most so many files at once.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), open: VecDeque::new(), shortage: None }
    }

    /// Whether an error says that there are none left.
    pub(super) fn are_short(error: &io::Error) -> bool {
        let short = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
        short.contains(&error.raw_os_error())
    }

    /// Notes that even after one was given back there was none.
    pub(super) fn note_shortage(&mut self, error: &io::Error) {
        self.shortage = Some(format!("no descriptor left for files: {error}"));
    }

    /// Why the system gave fewer than there may be, since the last time that this was asked.
    pub(super) fn shortage(&mut self) -> Option<String> {
        self.shortage.take()
    }

    /// A file was opened.
    pub(super) fn opened(&mut self, file: FileSeq) {
        self.open.push_back(file);
    }

    /// Makes room for one more.
    pub(super) fn make_room(&mut self, files: &mut FileTable) {
        while self.open.len() >= self.most && self.release_one(files) {}
    }

    /// Closes the file with a name that was opened first; false where there is none. A file without a name is not closed here: it
    /// could not be opened again.
    pub(super) fn release_one(&mut self, files: &mut FileTable) -> bool {
        for _ in 0..self.open.len() {
            let Some(seq) = self.open.pop_front() else { break };
            match files.get_mut(seq) {
                Some(file) if file.is_open() && file.naming() == Naming::Named => {
                    file.close();
                    return true;
                }
                Some(file) if file.is_open() => self.open.push_back(seq),
                // Its descriptor was given back already.
                _ => {}
            }
        }
        false
    }
}
