//! Rotation by rename: `access.log` becomes `access.log.1`, that one `access.log.2`, and so on; a reader of the file has it open
//! and reads on.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// When a file is full, and how many full ones are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rotation {
    /// In bytes.
    pub(crate) max_size: u64,
    /// From the file's first line on; `None` for as long as it takes.
    pub(crate) max_age: Option<Duration>,
    /// Besides the one being written.
    pub(crate) keep: u32,
}

impl Rotation {
    /// Whether a file that was begun at `begun` has had its time. A clock that was set back makes no file old.
    pub(super) fn is_over(&self, begun: SystemTime) -> bool {
        self.max_age.is_some_and(|most| begun.elapsed().is_ok_and(|age| age >= most))
    }

    /// Gives the file at `path` the first number, and each numbered one the next; the last goes.
    pub(super) fn make_room(&self, path: &Path) -> io::Result<()> {
        if self.keep == 0 {
            return absent_is_fine(std::fs::remove_file(path));
        }
        for number in (1..self.keep).rev() {
            absent_is_fine(std::fs::rename(numbered(path, number), numbered(path, number + 1)))?;
        }
        absent_is_fine(std::fs::rename(path, numbered(path, 1)))
    }
}

pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// There may be fewer old files than are kept, and another program may have rotated.
fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
