//! An open log: where bytes go, and what has to be known to rotate it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

/// A file, or what stands in for one.
#[derive(Debug)]
pub(super) struct LogHandle {
    file: File,
    /// `None` for what has no size: a pipe, a terminal.
    pub(super) size: Option<u64>,
    pub(super) begun: SystemTime,
}

impl LogHandle {
    /// Stdout, whatever it is.
    pub(super) fn stdout() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self { file, size: None, begun: SystemTime::now() })
    }

    /// Opens or makes the file at a path.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        let metadata = file.metadata()?;
        // Not every file system knows when a file was made.
        let begun = metadata.created().unwrap_or_else(|_| SystemTime::now());
        if !metadata.is_file() {
            return Ok(Self { file, size: None, begun });
        }
        let mut size = metadata.len();
        if size > 0 {
            // A crash may have left half a line. Ours must not become its other half.
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                size += 1;
            }
        }
        Ok(Self { file, size: Some(size), begun })
    }

    /// Whether it has no name any more. A file that was renamed still has a reader; one that was removed has none.
    pub(super) fn is_removed(&self) -> io::Result<bool> {
        Ok(self.size.is_some() && self.file.metadata()?.nlink() == 0)
    }

    /// Writes bytes; on failure says how many of them the file took.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.file.write(&bytes[taken..]) {
                Ok(0) => return Err((taken, io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    taken += count;
                    self.size = self.size.map(|size| size + count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((taken, error)),
            }
        }
        Ok(())
    }
}
