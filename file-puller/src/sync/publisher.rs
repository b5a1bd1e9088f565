//! From content that is known to the release that is served: [`Publisher`].
//!
//! It promises that nothing becomes a release but what has passed the gates, and that no release takes space that the volume does
//! not have. What is fetched, and from where, is the engine's affair.

use std::collections::HashSet;
use std::io::ErrorKind::StorageFull;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::assemble::{begin, link};
use super::error::SyncError;
use super::gate::Gates;
use super::http_gate::HttpGate;
use super::outcome::{Outcome, Publication};
use super::plan::{Assembly, Plan, plan};
use super::seed_state::SeedState;
use crate::content::{Limits, Manifest, ReleaseId};
use crate::fetch::Contents;
use crate::metrics::{Metrics, Phase};
use crate::store::{
    Clear, Need, Objects, Published, RELEASES, Retention, SignedManifest, Staging, Volume, VolumeError,
    check_room, clear, point_at, publish, remove_release,
};

/// Files that a sync brought over the network.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fetched {
    pub(super) files: usize,
    pub(super) bytes: u64,
}

/// Publishes on one volume.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) volume: Arc<Volume>,
    pub(super) limits: Limits,
    pub(super) gates: Gates,
    pub(super) http_gate: Option<HttpGate>,
    pub(super) retention: Retention,
    pub(super) seed: SeedState,
    pub(super) metrics: Metrics,
    /// The release that is served as far as we know.
    pub(super) current: Option<ReleaseId>,
    /// Whether there may be something in the private directory that a sync has to clear away.
    pub(super) has_staged: bool,
}

impl Publisher {
    /// Clears what an earlier attempt has left.
    pub(super) fn begin_staging(&mut self) -> Result<(), SyncError> {
        self.has_staged = true;
        Ok(clear(&self.volume, Clear::Attempt)?)
    }

    /// The same, and makes room for so many bytes before they arrive.
    pub(super) fn begin_arrival(&mut self, bytes: u64) -> Result<(), SyncError> {
        self.begin_staging()?;
        self.make_room(&Need::arriving(bytes))
    }

    pub(super) fn objects(&mut self) -> Result<Objects, SyncError> {
        self.begin_staging()?;
        Ok(Objects::open(&self.volume)?)
    }

    /// Removes what was staged. What cannot be removed now is removed after the next sync.
    pub(super) fn clear(&mut self, what: Clear) {
        if !self.has_staged {
            return;
        }
        match clear(&self.volume, what) {
            Ok(()) => self.has_staged = what != Clear::All,
            Err(error) => tracing::warn!(%error, "staging not cleaned up; will retry"),
        }
    }

    /// Asks the operator's own gate about a release; its tree and its manifest lie in this directory.
    async fn pass_gate(
        &self,
        id: &ReleaseId,
        directory: &Path,
        commit: Option<&str>,
    ) -> Result<(), SyncError> {
        match &self.http_gate {
            Some(gate) => Ok(gate.ask(id, directory, commit).await?),
            None => Ok(()),
        }
    }

    /// Compares a manifest with what is on the volume; what would change has to pass the gates.
    pub(super) fn plan(
        &self,
        manifest: &Manifest,
        current: Option<&ReleaseId>,
    ) -> Result<(ReleaseId, Plan), SyncError> {
        let id = manifest.id();
        let plan = plan(&self.volume, &id, manifest, self.seed.base())?;
        if !matches!(plan, Plan::InStep) {
            self.gates.check(manifest, || current.and_then(|id| self.volume.manifest(id)))?;
        }
        Ok((id, plan))
    }

    /// Points `current` at a release that is on the volume.
    pub(super) async fn repoint(
        &mut self,
        id: &ReleaseId,
        manifest: &Manifest,
        current: Option<ReleaseId>,
        commit: Option<&str>,
    ) -> Result<Outcome, SyncError> {
        self.pass_gate(id, &self.volume.path().join(RELEASES), commit).await?;
        let published = point_at(&self.volume, id, None, current.as_ref())?;
        Ok(self.published(&published, id, manifest, current, Fetched::default()))
    }

    /// Keeps a signed manifest as it is until its release is in place, unless the volume has it already.
    pub(super) fn record(
        &mut self,
        id: &ReleaseId,
        json: &[u8],
        signature: &[u8],
    ) -> Result<Option<SignedManifest>, VolumeError> {
        if SignedManifest::is_recorded(&self.volume, id, json, signature) {
            return Ok(None);
        }
        self.has_staged = true;
        SignedManifest::write(&self.volume, json, signature).map(Some)
    }

    /// Publishes what has arrived in one piece, unless it is published already.
    pub(super) async fn publish_contents(
        &mut self,
        contents: Contents,
        manifest: &Manifest,
        wire_bytes: u64,
        current: Option<ReleaseId>,
        commit: Option<&str>,
    ) -> Result<Outcome, SyncError> {
        manifest.check_directories(&self.limits).map_err(SyncError::Archive)?;
        let (id, plan) = self.plan(manifest, current.as_ref())?;
        match plan {
            Plan::InStep => Ok(Outcome::Unchanged(id)),
            Plan::Repoint => self.repoint(&id, manifest, current, commit).await,
            Plan::Assemble(Assembly { link: links, mut fetch, .. }) => {
                let began = Instant::now();
                let sizes = fetch.iter().map(|index| manifest.files[*index].size);
                self.make_room(&Need::arrived(&self.volume, sizes, manifest.directories().len()))?;
                let staging = Staging::begin(&self.volume, &id, manifest)?;
                fetch.extend(link(&staging, &links, manifest)?);
                contents.place(&staging, manifest, &fetch)?;
                let fetched = Fetched { files: fetch.len(), bytes: wire_bytes };
                self.finish(&staging, manifest, commit, (current, fetched), began).await
            }
        }
    }

    /// Puts a release together from what is on the volume, and returns the files that have to be fetched all the same.
    pub(super) fn begin(
        &mut self,
        id: &ReleaseId,
        manifest: &Manifest,
        assembly: &Assembly,
    ) -> Result<(Staging, Vec<usize>), VolumeError> {
        let began = Instant::now();
        let staging = begin(&self.volume, id, manifest, self.seed.take(), assembly.diff.as_ref())?;
        let refused = link(&staging, &assembly.link, manifest)?;
        self.metrics.phase(Phase::Link, began);
        Ok((staging, refused))
    }

    /// Publishes a release whose files have all arrived. `began` is when the phase of publishing did.
    pub(super) async fn finish(
        &mut self,
        staging: &Staging,
        manifest: &Manifest,
        commit: Option<&str>,
        (replaced, fetched): (Option<ReleaseId>, Fetched),
        began: Instant,
    ) -> Result<Outcome, SyncError> {
        self.pass_gate(staging.id(), staging.directory(), commit).await?;
        let published = publish(staging, manifest, replaced.as_ref())?;
        self.metrics.phase(Phase::Publish, began);
        Ok(self.published(&published, staging.id(), manifest, replaced, fetched))
    }

    /// Makes sure that a release fits on the volume. Old releases go early for it, but not before readers had their time.
    pub(super) fn make_room(&mut self, need: &Need) -> Result<(), SyncError> {
        let (min_free, max_volume_size) = (self.limits.min_free, self.retention.max_volume_size());
        loop {
            let current = self.current.as_ref();
            let Err(short) = check_room(&self.volume, need, min_free, max_volume_size, current) else {
                return Ok(());
            };
            let is_short = matches!(&short, VolumeError::Io { cause, .. } if cause.kind() == StorageFull);
            let expendable = self.retention.oldest_expendable(SystemTime::now()).filter(|_| is_short);
            let Some(id) = expendable else { return Err(short.into()) };
            tracing::info!(release = %id, "old release removed early, because space is short");
            remove_release(&self.volume, &id)?;
            self.retention.forget(&id);
        }
    }

    /// What follows from `current` naming another release. Nothing here can fail.
    fn published(
        &mut self,
        published: &Published,
        id: &ReleaseId,
        manifest: &Manifest,
        replaced: Option<ReleaseId>,
        fetched: Fetched,
    ) -> Outcome {
        let bytes = manifest.total_size();
        self.metrics.reused(manifest.files.len().saturating_sub(fetched.files));
        match self.volume.free() {
            Ok(free) => self.metrics.space(bytes, free),
            Err(error) => tracing::debug!(%error, "the metric of free space stays as it was"),
        }
        self.retention.published(id, replaced, published.replaced_at);
        self.seed.invalidate();
        Outcome::Published(Publication {
            release: id.clone(),
            files: manifest.files.len(),
            bytes,
            fetched_files: fetched.files,
            fetched_bytes: fetched.bytes,
        })
    }

    /// Stages the damaged files of a release out of what has arrived in one piece; `None` where that is another
    /// release.
    pub(super) fn stage_damaged(
        &self,
        id: &ReleaseId,
        contents: Contents,
        manifest: &Manifest,
        damaged: &Manifest,
    ) -> Result<Option<Staging>, SyncError> {
        if manifest.id() != *id {
            return Ok(None);
        }
        let staging = Staging::begin(&self.volume, id, damaged)?;
        let paths: HashSet<_> = damaged.files.iter().map(|file| &file.path).collect();
        let is_damaged = |index: &usize| paths.contains(&manifest.files[*index].path);
        let wanted: Vec<_> = (0..manifest.files.len()).filter(is_damaged).collect();
        contents.place(&staging, manifest, &wanted)?;
        Ok(Some(staging))
    }

    /// Removes the old releases whose time has come.
    pub(super) fn remove_expired(&mut self) {
        for id in self.retention.expired(SystemTime::now()) {
            match remove_release(&self.volume, &id) {
                Ok(()) => {
                    self.retention.forget(&id);
                    tracing::info!(release = %id, "old release removed");
                }
                // It costs space, not content.
                Err(error) => tracing::warn!(%error, "old release not removed; will retry"),
            }
        }
        self.metrics.old_releases(self.retention.len());
    }

    pub(super) fn prepare_seed(&mut self) {
        self.seed.prepare(&self.volume, self.current.as_ref());
    }

    /// Gives the seed tree up: what was damaged in the release is damaged in its copy.
    pub(super) fn discard_seed(&mut self) {
        if let Some(seed) = self.seed.take() {
            seed.discard();
        }
    }
}
