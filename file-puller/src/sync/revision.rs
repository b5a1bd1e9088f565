//! How a source that has names for its states calls the one that is published: [`Revision`].

use std::sync::Arc;

use parking_lot::Mutex;

/// A commit, or an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Revision {
    /// A commit of a git repository.
    Commit(String),
    /// The digest of an image's manifest.
    Digest(String),
}

impl Revision {
    /// What kind of name it is, and the name.
    pub(crate) fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Commit(commit) => ("commit", commit),
            Self::Digest(digest) => ("digest", digest),
        }
    }
}

/// The revision that is published: the engine writes it, its handle reads it.
#[derive(Debug, Clone, Default)]
pub(super) struct CurrentRevision(Arc<Mutex<Option<Revision>>>);

impl CurrentRevision {
    pub(super) fn set(&self, revision: Revision) {
        *self.0.lock() = Some(revision);
    }

    pub(super) fn get(&self) -> Option<Revision> {
        self.0.lock().clone()
    }
}
