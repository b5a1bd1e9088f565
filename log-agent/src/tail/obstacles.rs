//! What cannot be looked at, names or files: it is said once, and is tried again at every scan.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use lifecycle::escape::escaped_path;

use super::descriptors::Descriptors;
use super::file::{Naming, TailedFile};
use super::files::FileTable;
use crate::watch::Names;

#[derive(Debug, Default)]
pub(super) struct Obstacles {
    /// Why the last look at the names saw less than all.
    scan_failure: Option<String>,
    /// Why files could not be opened since the last look at the names, where all descriptors are taken.
    shortage: Option<String>,
    /// Files that could not be read, for as long as it is so.
    files: HashSet<PathBuf>,
}

impl Obstacles {
    /// Why the last look at the names saw less than all.
    pub(super) fn scan_failure(&self) -> Option<&str> {
        self.scan_failure.as_deref()
    }

    /// Which file could not be read, if any.
    pub(super) fn unread(&self) -> Option<String> {
        self.files.iter().min().map(|path| format!("{} could not be read", escaped_path(path)))
    }

    /// The outcome of a look at the names, while these files are followed.
    pub(super) fn note_scan(&mut self, names: &Names, files: &FileTable) {
        let unread = names.failures.first();
        let unread =
            unread.map(|(directory, error)| format!("cannot read {}: {error}", escaped_path(directory)));
        // A directory that is away with files in it that are followed.
        let away = || {
            let is_above =
                |file: &TailedFile| names.missing.iter().find(|missing| file.path().starts_with(missing));
            let directory = files.iter().filter(|file| file.naming() == Naming::Named).find_map(is_above)?;
            Some(format!("{} is away", escaped_path(directory)))
        };
        let shortage = self.shortage.take();
        let failure = unread.or_else(away).or(shortage);
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
        if Descriptors::are_short(error) {
            self.shortage = Some(format!("no descriptor left for files: {error}"));
        }
        // Gone between the scan and now: the next scan knows.
        if error.kind() != io::ErrorKind::NotFound && self.files.insert(path.to_owned()) {
            tracing::warn!(file = %escaped_path(path), %error, "cannot read it: trying again at every scan");
        }
    }

    /// A file can be read, to its end.
    pub(super) fn note_readable(&mut self, path: &Path) {
        if !self.files.is_empty() {
            self.files.remove(path);
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
