//! Descriptors are fewer than files can be: those with a name take turns, and those without keep theirs longest.

use std::collections::VecDeque;
use std::io;

use rustix::io::Errno;

use super::file::{FileSeq, Naming, TailedFile};
use super::files::FileTable;

/// Which files are open, those first that were opened first.
#[derive(Debug)]
pub(super) struct Descriptors {
    most: usize,
    open: VecDeque<FileSeq>,
}

impl Descriptors {
    /// For at most so many files at once.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), open: VecDeque::new() }
    }

    /// Whether an error says that there are none left.
    pub(super) fn are_short(error: &io::Error) -> bool {
        let short = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
        short.contains(&error.raw_os_error())
    }

    /// Opens one more, in the place of another one where there are too many.
    pub(super) fn open<T>(
        &mut self,
        files: &mut FileTable,
        mut open: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        if self.open.len() >= self.most {
            // Files that are followed no more have given theirs back.
            self.open.retain(|file| files.get(*file).is_some_and(TailedFile::is_open));
        }
        while self.open.len() >= self.most && self.release_one(files) {}
        match open() {
            Err(error) if Self::are_short(&error) && self.release_one(files) => open(),
            opened => opened,
        }
    }

    pub(super) fn opened(&mut self, file: FileSeq) {
        self.open.push_back(file);
    }

    /// Closes the file with a name that was opened first; false where there is none. A file without a name is not closed here: it
    /// could not be opened again.
    fn release_one(&mut self, files: &mut FileTable) -> bool {
        for _ in 0..self.open.len() {
            let Some(seq) = self.open.pop_front() else { break };
            match files.get_mut(seq) {
                Some(file) if file.is_open() && file.naming() == Naming::Named => {
                    file.close();
                    return true;
                }
                Some(file) if file.is_open() => self.open.push_back(seq),
                _ => {}
            }
        }
        false
    }
}
