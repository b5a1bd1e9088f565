//! A file of a release that is too large to be held in memory.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use lifecycle::Ignore as _;
use rustix::fs::{Advice, fadvise};

use crate::content::dir::{Directory, FileState, Lookup};

/// Files of one release that stay open once they were opened; of any others each request opens its own.
const KEPT_OPEN: usize = 256;

/// Where the file is, and the file itself once somebody wanted it.
#[derive(Debug)]
pub(crate) struct LargeFile {
    open_files: Arc<OpenFiles>,
    path: Arc<str>,
    /// As it was when the release was loaded.
    pub(crate) stamp: FileState,
    kept: OnceLock<Arc<File>>,
}

/// A release's directory, and how many of its files are kept open.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    directory: Arc<Directory>,
    open: AtomicUsize,
}

impl OpenFiles {
    /// Of this directory; nothing is open yet.
    pub(crate) fn new(directory: Arc<Directory>) -> Arc<Self> {
        Arc::new(Self { directory, open: AtomicUsize::new(0) })
    }

    /// The state of the regular file at a path. Blocks.
    pub(crate) fn state(&self, path: &str) -> io::Result<Option<FileState>> {
        Ok(match self.directory.inspect(path)? {
            Lookup::File(info) => Some(info.stamp),
            Lookup::Dir | Lookup::None => None,
        })
    }
}

impl LargeFile {
    /// Beneath the directory, in the state that it was found in.
    pub(crate) fn new(open_files: &Arc<OpenFiles>, path: Arc<str>, stamp: FileState) -> Self {
        Self { open_files: Arc::clone(open_files), path, stamp, kept: OnceLock::new() }
    }

    /// The file, if it is open already.
    pub(crate) fn opened(&self) -> Option<Arc<File>> {
        self.kept.get().map(Arc::clone)
    }

    /// Opens the file. Blocks.
    ///
    /// # Errors
    /// Where it is gone, or is no longer what the release's table says: a release never changes, so this one is damaged.
    pub(crate) fn open(&self) -> io::Result<Arc<File>> {
        let path = &self.path;
        let file = match self.open_files.directory.file(path)? {
            Lookup::File((file, found)) if found.same_file(&self.stamp) => Arc::new(file),
            Lookup::File(_) => {
                return Err(io::Error::other(format!("{path} was changed inside a published release")));
            }
            Lookup::Dir | Lookup::None => {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("{path} is gone from the release that is being served"),
                ));
            }
        };
        // Read ahead, so that sending it waits for the disk as little as possible. Not every file system takes advice.
        fadvise(&file, 0, None, Advice::Sequential).ignore();
        fadvise(&file, 0, None, Advice::WillNeed).ignore();
        if self.open_files.open.fetch_add(1, Ordering::Relaxed) < KEPT_OPEN {
            return Ok(Arc::clone(self.kept.get_or_init(|| file)));
        }
        self.open_files.open.fetch_sub(1, Ordering::Relaxed);
        Ok(file)
    }
}
