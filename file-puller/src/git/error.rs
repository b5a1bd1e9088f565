//! Why a commit is not a release: [`GitError`].

use lifecycle::escape::escaped;

use super::object_id::ObjectId;
use super::remote::RemoteError;
use crate::store::VolumeError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    /// The server, or the connection to it.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// What the commit has breaks a rule.
    #[error("repository refused: {}", escaped(.0))]
    Refused(String),
    /// Something is neither in what was sent nor on the volume.
    #[error("repository refused: the server did not send object {0}, which its commit names")]
    Missing(ObjectId),
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl GitError {
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }
}
