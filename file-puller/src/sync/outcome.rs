//! What came of a sync, or of a look at what is published.

use tokio_util::sync::CancellationToken;

use crate::content::ReleaseId;

/// How a sync ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// `current` names another release than before.
    Published(Publication),
    /// It was in step already.
    Unchanged(ReleaseId),
}

impl Outcome {
    /// The release that `current` names now.
    pub(crate) fn release(&self) -> &ReleaseId {
        match self {
            Self::Published(publication) => &publication.release,
            Self::Unchanged(release) => release,
        }
    }
}

/// What was published, and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) release: ReleaseId,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    /// The files that had to be fetched; the others were on the volume.
    pub(crate) fetched_files: usize,
    /// The bytes of those.
    pub(crate) fetched_bytes: u64,
}

/// What came of waiting for the source to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// There is something to sync. The next sync begins with it.
    Changed,
    /// Nothing has changed as long as the source held the question, and it is this release that is in step.
    Unchanged(ReleaseId),
    /// The question was cut off on the way, and this is how.
    Cut(String),
    /// Something more urgent came.
    Interrupted,
    /// The source cannot be asked to wait.
    Unable,
}

/// What ends a look at the published release early.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    /// A sync is due. It waits for no reading, but for a repair: that talks to the source as well, and were it interrupted at each
    /// period, it would never end.
    pub(crate) reading: CancellationToken,
    /// A caller waits. Ends both.
    pub(crate) repair: CancellationToken,
}

impl Interrupt {
    pub(crate) fn new() -> Self {
        let repair = CancellationToken::new();
        Self { reading: repair.child_token(), repair }
    }
}

/// What a look at the published release found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every file is what was published, or nothing was published yet.
    Sound,
    /// So many files were not, and are again.
    Repaired(usize),
    /// Something more urgent came; the next look goes on from there.
    Interrupted,
    /// `current` does not lead to it any more: a sync has to put it together again.
    Lost,
}

/// How a source that has names for its states calls the one that is published: a commit, or an image.
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
