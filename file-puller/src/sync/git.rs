//! Following a git repository: one request where nothing changed, otherwise a fetch of what the commit has beyond the published one.

use std::sync::Arc;

use lifecycle::blocking;

use super::error::SyncError;
use super::intake::Intake;
use crate::content::ReleaseId;
use crate::fetch::{feed, pump};
use crate::git::{self, Commit, GitError, GitOptions, Known, ObjectId, Published, Remote, Rules, Tip};
use crate::source::Source;

/// A repository that is followed.
#[derive(Debug)]
pub(super) struct Repository {
    remote: Remote,
    options: GitOptions,
    /// What `current` is, once that has been looked at.
    published: Option<Published>,
}

/// Why a commit did not become a release.
pub(super) enum Incomplete {
    /// Something was neither sent nor on the volume.
    Missing(SyncError),
    Failed(SyncError),
}

impl Repository {
    pub(super) fn new(options: GitOptions) -> Self {
        Self { remote: Remote::new(options.follow.clone()), options, published: None }
    }

    /// Makes the next sync look at the volume, whether or not the repository has changed.
    pub(super) fn distrust(&mut self) {
        self.published = None;
    }

    /// Notes what `current` is.
    pub(super) fn published(&mut self, published: Published) {
        self.published = Some(published);
    }

    /// What the followed ref names now.
    pub(super) async fn tip(&mut self, source: &Source) -> Result<Tip, SyncError> {
        Ok(self.remote.tip(source).await.map_err(GitError::from)?)
    }

    /// Whether `current` is known to be what the ref names.
    pub(super) fn is_in_step(&self, tip: &Tip, origin: &str, current: &ReleaseId) -> bool {
        self.published.as_ref().is_some_and(|published| is_of(published, tip, origin, current))
    }

    /// What decides, besides the commit, what a release is.
    pub(super) fn origin(&self, intake: &Intake) -> String {
        format!("{} {} {:?}", intake.source.url(), intake.selection.fingerprint(), self.options.git_lfs)
    }

    /// Fetches a commit, without what is known already.
    pub(super) async fn receive(
        &mut self,
        intake: &Intake,
        tip: &Tip,
        known: Option<Known>,
    ) -> Result<(Commit, u64), Incomplete> {
        let failed = |error: GitError| Incomplete::Failed(error.into());
        let rules = Rules {
            selection: intake.selection.clone(),
            lfs: self.options.git_lfs,
            limits: intake.limits,
            unpacking: intake.unpacking,
        };
        let have = known.as_ref().and_then(|known| ObjectId::parse(&known.published.commit));
        let fetched = self.remote.fetch(&intake.source, tip, have).await;
        let (body, answer) = fetched.map_err(|error| failed(error.into()))?;
        let (sender, receiver) = feed();
        let (volume, tip) = (Arc::clone(&intake.volume), *tip);
        let has_known = known.is_some();
        let unpacking = blocking(move || git::unpack(volume, receiver, &answer, &tip, known, &rules));
        let arriving = pump(body, sender, intake.unpacking.max_archive_size, None);
        let (arrived, unpacked) = tokio::join!(arriving, unpacking);
        // Where the connection broke, that the pack is incomplete is only its consequence.
        let wire_bytes = arrived.map_err(SyncError::from)?;
        let commit = unpacked.map_err(|error| match error {
            GitError::Missing(_) if has_known => Incomplete::Missing(error.into()),
            error => failed(error),
        })?;
        intake.metrics.fetched(1, wire_bytes);
        Ok((commit, wire_bytes))
    }
}

/// Whether a release is the tip's.
pub(super) fn is_of(published: &Published, tip: &Tip, origin: &str, release: &ReleaseId) -> bool {
    published.origin == origin
        && published.commit == tip.commit.to_string()
        && published.release == release.as_str()
}

impl Incomplete {
    pub(super) fn into_error(self) -> SyncError {
        let (Self::Missing(error) | Self::Failed(error)) = self;
        error
    }
}

impl<E: Into<SyncError>> From<E> for Incomplete {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}
