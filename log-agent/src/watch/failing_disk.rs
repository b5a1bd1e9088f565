//! For tests: directories that cannot be read, as on a disk that fails or in a system that has no descriptor left.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::io::Errno;

static FAILING: Mutex<BTreeMap<PathBuf, (Step, Errno)>> = Mutex::new(BTreeMap::new());

/// Where reading a directory fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// At its open.
    Open,
    /// Once it is open.
    Entries,
}

/// While it lives, the directory cannot be read.
pub(crate) struct Failing(PathBuf);

impl Failing {
    pub(crate) fn begin(directory: &Path, step: Step, error: Errno) -> Self {
        FAILING.lock().insert(directory.to_owned(), (step, error));
        Self(directory.to_owned())
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        FAILING.lock().remove(&self.0);
    }
}

/// Called at each step of reading a directory.
pub(super) fn at(step: Step, directory: &Path) -> io::Result<()> {
    match FAILING.lock().get(directory) {
        Some((failing, error)) if *failing == step => Err((*error).into()),
        _ => Ok(()),
    }
}
