//! How a source that has names for its states calls the one that is published: [`Revision`].

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
