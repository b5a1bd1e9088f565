//! Following a git repository: one request where nothing changed, otherwise a fetch of what the commit has beyond the published one.

use std::sync::Arc;
use std::time::Instant;

use lifecycle::blocking;

use super::error::SyncError;
use super::intake::Intake;
use super::outcome::Outcome;
use super::plan::is_intact;
use super::publisher::Publisher;
use crate::content::{Manifest, ReleaseId, Selection};
use crate::fetch::{Allowance, receive};
use crate::git::{self, Commit, GitOptions, Known, KnownWriter, ObjectId, Published, Remote, Tip};
use crate::metrics::Phase;
use crate::source::SourceUrl;
use crate::store::Staging;

/// A repository that is followed.
#[derive(Debug)]
pub(super) struct Repository {
    remote: Remote,
    options: GitOptions,
    /// What decides, besides the commit, what a release is.
    origin: String,
    /// What `current` is, once that has been looked at.
    published: Option<Published>,
    /// The commit that the gate holds back, and what is kept of it once it is published.
    held: Option<(Tip, Box<KnownWriter>)>,
}

impl Repository {
    pub(super) fn new(url: &SourceUrl, options: GitOptions, selection: &Selection) -> Self {
        let origin = format!("{url} {} {:?}", selection.fingerprint(), options.git_lfs);
        Self { remote: Remote::new(options.follow.clone()), options, origin, published: None, held: None }
    }

    /// Makes the next sync look at the volume, whether or not the repository has changed.
    pub(super) fn distrust(&mut self) {
        self.published = None;
    }

    /// The commit that `current` is.
    pub(super) fn commit(&self) -> Option<&str> {
        self.published.as_ref().map(|published| &*published.commit)
    }

    /// Publishes the commit that the ref names now.
    pub(super) async fn follow(
        &mut self,
        intake: &Intake,
        publisher: &mut Publisher,
        current: Option<ReleaseId>,
    ) -> Result<Outcome, SyncError> {
        let tip = self.remote.tip(&intake.source).await?;
        if self.held.take_if(|(held, _)| !held.is_same(&tip)).is_some() {
            publisher.held = None;
        }
        if let (Some(id), Some(published)) = (&current, &self.published)
            && self.is_of(published, &tip, id)
        {
            return Ok(Outcome::Unchanged(id.clone()));
        }
        if let Some((held, known)) = self.held.take()
            && let Some(outcome) = publisher.ask_again(current.clone()).await
        {
            return self.remember(held, *known, outcome);
        }
        let volume = Arc::clone(&intake.volume);
        let known = blocking(move || Known::load(&volume)).await;
        let known = known.filter(|known| known.published.origin == self.origin);
        // After a start, or when the release was damaged: the commit is right, but is the release?
        if let (Some(known), Some(id)) = (&known, &current)
            && self.is_of(&known.published, &tip, id)
            && is_intact(&intake.volume, id)
        {
            self.published = Some(known.published.clone());
            return Ok(Outcome::Unchanged(id.clone()));
        }
        let has_known = known.is_some();
        match self.publish(intake, publisher, &tip, known, current.clone()).await {
            // A file that came from outside of what is published, or a release that is gone: then everything is fetched.
            Err(SyncError::Missing(what)) if has_known => {
                tracing::info!(%what, "not on the volume any more, so the whole commit is fetched");
                self.publish(intake, publisher, &tip, None, current).await
            }
            done => done,
        }
    }

    async fn publish(
        &mut self,
        intake: &Intake,
        publisher: &mut Publisher,
        tip: &Tip,
        known: Option<Known>,
        current: Option<ReleaseId>,
    ) -> Result<Outcome, SyncError> {
        let began = Instant::now();
        self.held = None;
        publisher.begin_staging()?;
        let (commit, wire_bytes) = self.receive(intake, tip, known).await?;
        intake.metrics.phase(Phase::Unpack, began);
        let Commit { tip, contents, manifest, known } = commit;
        let name = tip.commit.to_string();
        let outcome = publisher.publish_contents(contents, manifest, wire_bytes, current, Some(name)).await;
        self.remember(tip, known, outcome)
    }

    /// Remembers a commit, and what came of it.
    fn remember(
        &mut self,
        tip: Tip,
        known: KnownWriter,
        outcome: Result<Outcome, SyncError>,
    ) -> Result<Outcome, SyncError> {
        if outcome.as_ref().is_err_and(SyncError::is_held_back) {
            self.held = Some((tip, Box::new(known)));
            return outcome;
        }
        let outcome = outcome?;
        let now = Published::new(&self.origin, &tip, outcome.release());
        // The release is in place; without this, the next fetch only brings more.
        if let Err(error) = known.finish(&now) {
            tracing::warn!(%error, "the next fetch will bring the whole commit");
        }
        self.published = Some(now);
        Ok(outcome)
    }

    /// Stages the damaged files of a release, if that is what the ref names.
    pub(super) async fn stage_damaged(
        &mut self,
        intake: &Intake,
        publisher: &mut Publisher,
        id: &ReleaseId,
        damaged: &Manifest,
    ) -> Result<Option<Staging>, SyncError> {
        let tip = self.remote.tip(&intake.source).await?;
        self.held = None;
        publisher.begin_staging()?;
        let (commit, _) = self.receive(intake, &tip, None).await?;
        publisher.stage_damaged(id, commit.contents, &commit.manifest, damaged)
    }

    /// Fetches a commit, without what is known already.
    async fn receive(
        &mut self,
        intake: &Intake,
        tip: &Tip,
        known: Option<Known>,
    ) -> Result<(Commit, u64), SyncError> {
        let have = known.as_ref().and_then(|known| ObjectId::parse(&known.published.commit));
        let (body, answer) = self.remote.fetch(&intake.source, tip, have).await?;
        let (volume, rules) = (Arc::clone(&intake.volume), Arc::clone(&intake.rules));
        let (tip, lfs) = (*tip, self.options.git_lfs);
        let allowance = Allowance::new(rules.unpacking.max_archive_size);
        let read = move |feed| git::unpack(volume, feed, &answer, &tip, known, (&rules, lfs));
        let (commit, wire_bytes) = receive(body, allowance, None, read).await?;
        intake.metrics.fetched(1, wire_bytes);
        Ok((commit?, wire_bytes))
    }

    /// Whether a release is the tip's.
    fn is_of(&self, published: &Published, tip: &Tip, release: &ReleaseId) -> bool {
        published.origin == self.origin && published.is_of(tip) && published.release == release.as_str()
    }
}
