//! Why a sync did not end well, sorted by who has to do something about it.
//!
//! Each module has an error of its own; here they meet, and get what the outside needs of them: an exit code for `--once`,
//! a status for `POST /sync`, a label for the metrics, and the wait that the source asked for.

use std::time::Duration;

use http::StatusCode;
use lifecycle::escape::escaped;
use lifecycle::exit::{Exit, Failure};

use super::gate::GateError;
use super::http_gate::HttpGateError;
use super::outcome::Outcome;
use crate::content::manifest::ManifestError;
use crate::fetch::{ArchiveError, DownloadError, PlaceError};
use crate::git::{GitError, RemoteError};
use crate::metrics::SyncResult;
use crate::oci::RegistryError;
use crate::source::url::OutsideBase;
use crate::source::{Answer, ClientError, CredentialError, SignatureError, SourceError, SourceUrl};
use crate::store::{Mismatch, VolumeError};

/// Why a sync failed. The last good release stays published whatever it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyncError {
    /// The content manager did not answer, or not with content.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is no secret to show to it, or no certificate.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Its manifest is not signed by a trusted key.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It answered with a manifest that breaks a rule.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Its manifest points at files that are not its own.
    #[error(transparent)]
    OutsideBase(#[from] OutsideBase),
    /// It answered with an archive that breaks a rule.
    #[error("archive refused: {}", escaped(.0))]
    Archive(String),
    /// It has a commit that breaks a rule.
    #[error("repository refused: {}", escaped(.0))]
    Repository(String),
    /// Something was neither sent nor on the volume.
    #[error("repository refused: {}", escaped(.0))]
    Missing(String),
    /// It does not answer as a git server, or has no such ref.
    #[error(transparent)]
    Remote(RemoteError),
    /// It does not let us in, or has an image that breaks a rule.
    #[error(transparent)]
    Registry(RegistryError),
    /// What it has may not replace what is served.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The gate of the operator's own does not let it pass.
    #[error(transparent)]
    HttpGate(#[from] HttpGateError),
    /// It answered with something that is no manifest at all.
    #[error("{error}; {url} {answer}")]
    NotManifest { error: ManifestError, url: String, answer: Box<Answer> },
    /// It answered with something compressed that is no archive, or only one that is damaged.
    #[error("archive refused: {}; {url} {answer}", escaped(why))]
    NotArchive { why: String, url: String, answer: Box<Answer> },
    /// It took too long, wherever it was by then.
    #[error("the sync takes longer than --sync-timeout {0}")]
    Timeout(humantime::FormattedDuration),
    /// It served another file than its manifest promised.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The volume refused.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl From<CredentialError> for SyncError {
    fn from(error: CredentialError) -> Self {
        ClientError::from(error).into()
    }
}

impl From<DownloadError> for SyncError {
    fn from(error: DownloadError) -> Self {
        match error {
            DownloadError::Source(error) => error.into(),
            DownloadError::OutsideBase(error) => error.into(),
            DownloadError::Mismatch(error) => error.into(),
            DownloadError::Volume(error) => error.into(),
        }
    }
}

impl From<ArchiveError> for SyncError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Source(error) => error.into(),
            ArchiveError::Volume(error) => error.into(),
            ArchiveError::Refused(why) => Self::Archive(why),
        }
    }
}

impl From<GitError> for SyncError {
    fn from(error: GitError) -> Self {
        match error {
            GitError::Remote(error) => error.into(),
            GitError::Refused(why) => Self::Repository(why),
            GitError::Missing(id) => Self::Missing(format!("the server did not send object {id}")),
            GitError::Volume(error) => error.into(),
        }
    }
}

impl From<RemoteError> for SyncError {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Source(error) => error.into(),
            error @ RemoteError::Answer { .. } => Self::Remote(error),
        }
    }
}

impl From<PlaceError> for SyncError {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::NotArrived(_) => Self::Missing(error.to_string()),
            PlaceError::Volume(error) => error.into(),
        }
    }
}

impl From<RegistryError> for SyncError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Source(error) => error.into(),
            error => Self::Registry(error),
        }
    }
}

impl From<SyncError> for Failure {
    fn from(error: SyncError) -> Self {
        Self::new(error.exit(), error.to_string())
    }
}

impl SyncError {
    /// The same error, with what an answer that is unlike a manifest or an archive says of itself.
    pub(super) fn with_answer(self, url: &SourceUrl, answer: Box<Answer>) -> Self {
        let url = url.to_string();
        match self {
            Self::Manifest(error) => Self::NotManifest { error, url, answer },
            Self::Archive(why) => Self::NotArchive { why, url, answer },
            error => error,
        }
    }

    /// How a sync is counted.
    pub(crate) fn label(outcome: &Result<Outcome, Self>) -> SyncResult<'_> {
        match outcome {
            Ok(Outcome::Published(publication)) => SyncResult::Published(&publication.release),
            Ok(Outcome::Unchanged(release)) => SyncResult::Unchanged(release),
            Err(error) => SyncResult::Failed { reason: error.reason() },
        }
    }

    /// The exit code that `--once` ends with.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => error.exit(),
            Self::Source(
                SourceError::ManifestTooLarge { .. }
                | SourceError::Redirect { .. }
                | SourceError::NotContent { .. }
                | SourceError::Kind { .. },
            )
            | Self::Manifest(_)
            | Self::NotManifest { .. }
            | Self::NotArchive { .. }
            | Self::OutsideBase(_)
            | Self::Gate(_)
            | Self::Mismatch(_)
            | Self::Signature(_)
            | Self::Archive(_)
            | Self::Repository(_)
            | Self::Missing(_)
            | Self::Registry(RegistryError::Refused(_)) => Exit::Refused,
            Self::Source(_) | Self::Remote(_) | Self::Registry(_) | Self::Timeout(_) => Exit::Unavailable,
            Self::HttpGate(error) => error.exit,
            Self::Volume(error) => error.exit(),
        }
    }

    /// What `POST /sync` is answered with: whether the source's side failed, or ours.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Volume(_) | Self::Client(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// The `reason` label of the failure counter, and of the JSON that answers `POST /sync`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Source(SourceError::Unreachable { .. }) => "unreachable",
            Self::Source(SourceError::Status { .. }) => "status",
            Self::Source(SourceError::TooSlow { .. }) => "slow",
            Self::Source(SourceError::Redirect { .. }) => "redirect",
            Self::Client(_) => "credential",
            Self::Signature(_) => "signature",
            Self::Source(SourceError::NotContent { what, .. }) => what,
            Self::Source(SourceError::Kind { .. }) => "kind",
            Self::Source(SourceError::ManifestTooLarge { .. })
            | Self::Manifest(_)
            | Self::NotManifest { .. }
            | Self::OutsideBase(_) => "manifest",
            Self::Timeout(_) => "timeout",
            Self::Gate(_) | Self::HttpGate(_) => "gate",
            Self::Mismatch(_) => "mismatch",
            Self::Archive(_) | Self::NotArchive { .. } => "archive",
            Self::Repository(_) | Self::Missing(_) | Self::Remote(_) => "repository",
            Self::Registry(_) => "image",
            Self::Volume(_) => "volume",
        }
    }

    /// Whether it is only that the operator's own gate does not let the release pass yet.
    pub(crate) fn is_held_back(&self) -> bool {
        matches!(self, Self::HttpGate(_))
    }

    /// How long the source asked to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Source(SourceError::Status { retry_after, .. }) => *retry_after,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names in an archive, a pack or an image's layer are other people's words, and a message is for a terminal and a log.
    #[test]
    fn what_comes_from_outside_is_escaped_in_every_message() {
        let said = || "\u{1b}[2J\u{9b}31m \u{202e}gpj.exe\nforged".to_owned();
        for error in [
            SyncError::Archive(said()),
            SyncError::Repository(said()),
            ArchiveError::Refused(said()).into(),
            GitError::Refused(said()).into(),
            SyncError::Remote(RemoteError::Answer { url: "x".to_owned(), why: said() }),
            RegistryError::Refused(said()).into(),
            RegistryError::Login { url: "x".to_owned(), why: said() }.into(),
        ] {
            let shown = error.to_string();
            let escaped = "\\u{1b}[2J\\u{9b}31m \\u{202e}gpj.exe\\nforged";
            assert!(shown.contains(escaped) && !shown.contains('\u{1b}'), "{shown:?}");
        }
    }
}
