//! What cannot be looked at, names or files: it is said once, and is tried again at every scan.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use lifecycle::escape::escaped;

use crate::watch::Names;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Obstacles {
    /// Why the last look at the names saw less than all.
    scan_failure: Option<String>,
    /// Files that could not be opened.
    files: HashSet<PathBuf>,
}

impl Obstacles {
    /// Why the last look at the names saw less than all.
    pub(super) fn scan_failure(&self) -> Option<&str> {
        self.scan_failure.as_deref()
    }

    /// The outcome of a look at the names.
    pub(super) fn note_scan(&mut self, failure: Option<String>) {
        match (&failure, &self.scan_failure) {
            (Some(reason), before) if before.as_ref() != Some(reason) => tracing::warn!(
                reason,
                "cannot look at all names: what is followed stays followed, and what is new is not seen"
            ),
            (None, Some(_)) => tracing::info!("all names can be looked at again"),
            _ => {}
        }
        self.scan_failure = failure;
    }

    /// A file cannot be read.
    pub(super) fn note_file(&mut self, path: &Path, error: &io::Error) {
        // Gone between the scan and now: the next scan knows.
        if error.kind() != io::ErrorKind::NotFound && self.files.insert(path.to_owned()) {
            let path = path.to_string_lossy();
            tracing::warn!(file = %escaped(&path), %error, "cannot read it: trying again at every scan");
        }
    }

    /// Names that are gone are no obstacles.
    pub(super) fn keep(&mut self, names: &Names) {
        if !self.files.is_empty() {
            let found: HashSet<&Path> = names.files.iter().map(|found| found.place.path.as_path()).collect();
            self.files.retain(|path| found.contains(path.as_path()));
        }
    }
}
