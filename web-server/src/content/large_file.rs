//! A file of a release that is not held in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use lifecycle::Ignore as _;
use parking_lot::Mutex;
use rustix::fs::{Advice, fadvise};

use super::dir::{Directory, FileState, Lookup};

/// Files of one release that are kept open, so that they can be sent when their publisher has removed the release. Any others
/// are opened for each request.
const KEPT_OPEN: usize = 1024;

/// Where the file is.
#[derive(Debug)]
pub(crate) struct LargeFile {
    open_files: Arc<OpenFiles>,
    path: Box<str>,
    /// As it was when the release was loaded.
    pub(crate) state: FileState,
}

/// A release's directory, and those of its files that are open.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    directory: Arc<Directory>,
    kept: Mutex<HashMap<Box<str>, Kept>>,
}

#[derive(Debug, Clone)]
struct Kept {
    file: Arc<File>,
    /// Whether the kernel was told to read the file ahead.
    advised: bool,
}

impl OpenFiles {
    /// Of this directory; nothing is open yet.
    pub(crate) fn new(directory: Arc<Directory>) -> Arc<Self> {
        Arc::new(Self { directory, kept: Mutex::default() })
    }

    /// Whether more files may be kept open.
    pub(super) fn have_room(&self) -> bool {
        self.kept.lock().len() < KEPT_OPEN
    }

    /// Keeps a file open before it is asked for.
    pub(super) fn keep(&self, path: &str, file: File) {
        self.kept.lock().insert(path.into(), Kept { file: Arc::new(file), advised: false });
    }

    /// The same directory, and of the files those that are still of use.
    pub(super) fn only(&self, of_use: impl Fn(&str) -> bool) -> Arc<Self> {
        let kept = self
            .kept
            .lock()
            .iter()
            .filter(|(path, _)| of_use(path))
            .map(|(path, kept)| (path.clone(), kept.clone()))
            .collect();
        Arc::new(Self { directory: Arc::clone(&self.directory), kept: Mutex::new(kept) })
    }

    /// The state of the regular file at a path. Blocks.
    pub(crate) fn state(&self, path: &str) -> io::Result<Option<FileState>> {
        Ok(match self.directory.inspect(path)? {
            Lookup::File(info) => Some(info.state),
            Lookup::Dir | Lookup::None => None,
        })
    }
}

impl LargeFile {
    /// Beneath the directory, in the state that it was found in.
    pub(crate) fn new(open_files: &Arc<OpenFiles>, path: &str, state: FileState) -> Self {
        Self { open_files: Arc::clone(open_files), path: path.into(), state }
    }

    /// The file, if it can be sent without asking the disk first.
    pub(crate) fn opened(&self) -> Option<Arc<File>> {
        let kept = self.open_files.kept.lock();
        let kept = kept.get(&self.path).filter(|kept| kept.advised)?;
        // That a file which is open was overwritten in place is only seen now.
        FileState::of_file(&kept.file).ok()?.same_file(&self.state).then(|| Arc::clone(&kept.file))
    }

    /// Opens the file. Blocks.
    ///
    /// # Errors
    /// Where it is gone, or is no longer what the release's table says: a release never changes, so this one is damaged.
    pub(crate) fn open(&self) -> io::Result<Arc<File>> {
        let kept = self.open_files.kept.lock().get(&self.path).map(|kept| Arc::clone(&kept.file));
        let file = match kept {
            Some(file) if FileState::of_file(&file)?.same_file(&self.state) => file,
            Some(_) | None => self.look_up()?,
        };
        // Read ahead, so that sending it waits for the disk as little as possible. Not every file system takes advice.
        fadvise(&file, 0, None, Advice::Sequential).ignore();
        fadvise(&file, 0, None, Advice::WillNeed).ignore();
        let mut open = self.open_files.kept.lock();
        if open.len() < KEPT_OPEN || open.contains_key(&self.path) {
            open.insert(self.path.clone(), Kept { file: Arc::clone(&file), advised: true });
        }
        Ok(file)
    }

    fn look_up(&self) -> io::Result<Arc<File>> {
        let path = &self.path;
        match self.open_files.directory.file(path)? {
            Lookup::File((file, found)) if found.same_file(&self.state) => Ok(Arc::new(file)),
            Lookup::File(_) => {
                Err(io::Error::other(format!("{path} was changed inside a published release")))
            }
            Lookup::Dir | Lookup::None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{path} is gone from the release that is being served"),
            )),
        }
    }
}
