//! Why a sync did not end well, sorted by who has to do something about it.
//!
//! Each module has an error of its own; here they meet, and get what the outside needs of them: an exit code for `--once`,
//! a status for `POST /sync`, a label for the metrics, and the wait that the source asked for.

use std::time::Duration;

use http::StatusCode;
use lifecycle::exit::Exit;

use crate::archive::ArchiveError;
use crate::client::ClientError;
use crate::gate::GateError;
use crate::location::OutsideBase;
use crate::manifest::ManifestError;
use crate::signature::SignatureError;
use crate::source::SourceError;
use crate::stage::Mismatch;
use crate::volume::VolumeError;

/// Why a sync failed. The last good release stays published whatever it is.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The content manager did not answer, or not with content.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is no secret to show to it, or no certificate.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nobody whom we trust has signed its manifest.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It answered with a manifest that breaks a rule.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Its manifest points at files that are not its own.
    #[error(transparent)]
    OutsideBase(#[from] OutsideBase),
    /// It answered with an archive that breaks a rule.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// What it has may not replace what is served.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// It served another file than its manifest promised.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The volume refused.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl From<crate::credentials::CredentialError> for SyncError {
    fn from(error: crate::credentials::CredentialError) -> Self {
        ClientError::from(error).into()
    }
}

impl SyncError {
    /// The exit code that `--once` ends with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Source(SourceError::ManifestTooLarge { .. } | SourceError::Redirect { .. }) => {
                Exit::Refused
            }
            Self::Source(_) => Exit::Unavailable,
            Self::Client(error) => error.exit(),
            Self::Manifest(_)
            | Self::OutsideBase(_)
            | Self::Gate(_)
            | Self::Mismatch(_)
            | Self::Signature(_)
            | Self::Archive(ArchiveError::Refused(_)) => Exit::Refused,
            Self::Volume(error) | Self::Archive(ArchiveError::Volume(error)) => error.exit(),
        }
    }

    /// What `POST /sync` is answered with: whether the source's side failed, or ours.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Volume(_) | Self::Archive(ArchiveError::Volume(_)) | Self::Client(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Source(_)
            | Self::Signature(_)
            | Self::Manifest(_)
            | Self::OutsideBase(_)
            | Self::Archive(ArchiveError::Refused(_))
            | Self::Gate(_)
            | Self::Mismatch(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// The `reason` label of the failure counter, and of the JSON that answers `POST /sync`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Source(SourceError::Unreachable { .. }) => "unreachable",
            Self::Source(SourceError::Status { .. }) => "status",
            Self::Source(SourceError::TooSlow { .. }) => "slow",
            Self::Source(SourceError::Redirect { .. }) => "redirect",
            Self::Client(_) => "credential",
            Self::Signature(_) => "signature",
            Self::Source(SourceError::ManifestTooLarge { .. }) | Self::Manifest(_) | Self::OutsideBase(_) => {
                "manifest"
            }
            Self::Gate(_) => "gate",
            Self::Mismatch(_) => "mismatch",
            Self::Archive(ArchiveError::Refused(_)) => "archive",
            Self::Volume(_) | Self::Archive(ArchiveError::Volume(_)) => "volume",
        }
    }

    /// How long the source asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Source(SourceError::Status { retry_after, .. }) => *retry_after,
            _ => None,
        }
    }
}
