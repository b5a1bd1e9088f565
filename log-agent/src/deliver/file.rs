//! `file:`: records appended to a file, one a line, confirmed when they are on the disk.
//!
//! The file may be rotated by anyone, by rename: it is looked up by its name for every chunk. A chunk is in it as a whole
//! or not at all: what a failed write left behind is taken back, and what a crash left behind is closed with a line break.
//!
//! The kernel keeps what is written in memory for the next reader. That is right for lines that come one by one, and
//! wrong for a backlog: a copy of gigabytes would push out what others have there, and count as this container's memory. So
//! what was written in bulk is let go once it is on the disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lifecycle::Ignore as _;
use lifecycle::blocking;
use rustix::fs::{Advice, fadvise};

use super::attempt::{DeliveryError, Payload};
use crate::directory;

/// A chunk of this size is part of a backlog.
const BULK: u64 = 128 * 1024;
/// As large as any kernel's page, or a multiple of it.
const PAGE: u64 = 64 * 1024;

/// A file that is written to.
#[derive(Debug)]
pub(super) struct FileSink {
    path: PathBuf,
    open: Option<Arc<File>>,
}

impl FileSink {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), open: None }
    }

    pub(super) async fn attempt(&mut self, payload: &Payload) -> Result<(), DeliveryError> {
        let (path, open, body) = (self.path.clone(), self.open.take(), payload.body.clone());
        // Off the event loop: a disk may take its time to sync.
        match blocking(move || append(&path, open, &body)).await {
            Ok(file) => {
                self.open = Some(file);
                Ok(())
            }
            Err(error) => {
                Err(DeliveryError::retry(format!("cannot write to {}: {error}", self.path.display())))
            }
        }
    }
}

fn append(path: &Path, open: Option<Arc<File>>, body: &Bytes) -> io::Result<Arc<File>> {
    let file = match open {
        Some(file) if is_at(&file, path) => file,
        _ => Arc::new(open_lines(path, 0o666)?),
    };
    let start = append_lines(&file, body)?;
    let_go(&file, start, start + body.len() as u64);
    Ok(file)
}

/// Appends lines, and returns where they begin when they are on the disk.
///
/// # Errors
/// As the disk gives them; nothing is appended then.
pub(super) fn append_lines(mut file: &File, lines: &[u8]) -> io::Result<u64> {
    let start = file.metadata()?.len();
    file.write_all(lines).and_then(|()| file.sync_data()).inspect_err(|_| {
        // All of it is written again, so what is there of it goes. Where even that fails, the line is closed at the next
        // opening, and a reader knows the second copies by their ids.
        file.set_len(start).ignore();
    })?;
    Ok(start)
}

/// Gives back the memory of what was written in bulk and is on the disk; but for the page that the next chunk begins in.
fn let_go(file: &File, start: u64, end: u64) {
    let (from, to) = (start / PAGE * PAGE, end / PAGE * PAGE);
    if end - start >= BULK
        && let Some(length) = NonZeroU64::new(to - from)
    {
        // It is advice: a file system that knows none keeps the memory.
        fadvise(file, from, Some(length), Advice::DontNeed).ignore();
    }
}

/// Opens a file for [`append_lines`], and closes a line that a crash left open.
pub(super) fn open_lines(path: &Path, mode: u32) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).append(true).read(true).mode(mode).open(path)?;
    let length = file.metadata()?.len();
    if length == 0 {
        // Perhaps it is new.
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        directory::sync(above.unwrap_or(Path::new(".")))?;
        return Ok(file);
    }
    let mut last = [0];
    file.read_exact_at(&mut last, length - 1)?;
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;

    use rustix::fs::statfs;
    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    use super::*;

    /// What statfs(2) says of a file system that has no disk to let go to.
    const TMPFS: rustix::fs::FsWord = 0x0102_1994;

    #[test]
    fn appended_across_rotation_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.ndjson");
        std::fs::write(&path, "torn").unwrap();
        let open = append(&path, None, &Bytes::from_static(b"a\n")).unwrap();
        std::fs::rename(&path, dir.path().join("out.1")).unwrap();
        append(&path, Some(open), &Bytes::from_static(b"b\n")).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("out.1")).unwrap(), "torn\na\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "b\n");
    }

    /// Whether the kernel has a byte of a file in memory; none where it does not tell.
    fn in_memory(file: &File, at: u64) -> Option<bool> {
        let mut byte = [0];
        match preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT) {
            Ok(_) => Some(true),
            Err(Errno::AGAIN) => Some(false),
            Err(_) => None,
        }
    }

    #[test]
    fn what_was_written_in_bulk_is_let_go_and_single_lines_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = append(&dir.path().join("out"), None, &Bytes::from_static(b"a line\n")).unwrap();
        if in_memory(&file, 0) != Some(true) || statfs(dir.path()).unwrap().f_type == TMPFS {
            return;
        }
        let file = append(&dir.path().join("out"), Some(file), &vec![b'\n'; 1 << 20].into()).unwrap();
        assert_eq!(in_memory(&file, 512 << 10), Some(false));
        assert_eq!(in_memory(&file, 1 << 20), Some(true), "where the next chunk begins");
    }
}
