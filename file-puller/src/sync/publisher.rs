//! From content that is known to the release that is served: [`Publisher`].
//!
//! It promises that nothing becomes a release but what has passed the gates, and that no release takes space that the volume does
//! not have. What is fetched, and from where, is the engine's affair.

use std::collections::HashSet;
use std::io::ErrorKind::StorageFull;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use lifecycle::exit::Exit;

use super::assemble::{begin, link};
use super::error::SyncError;
use super::gate::Gates;
use super::http_gate::HttpGate;
use super::outcome::{Outcome, Publication};
use super::plan::{Assembly, Plan, is_intact, plan};
use super::seed_state::SeedState;
use crate::content::{Limits, Manifest, ReleaseId};
use crate::fetch::Contents;
use crate::metrics::{Metrics, Phase};
use crate::store::{
    Clear, Need, Objects, Published, RELEASES, Retention, SignedManifest, Staging, Volume, VolumeError,
    check_room, clear, explain_full, point_at, publish, remove_release,
};

/// Files that a sync brought over the network.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fetched {
    pub(super) files: usize,
    pub(super) bytes: u64,
}

/// A release that nothing but the operator's own gate can still keep from being published.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) id: ReleaseId,
    pub(super) manifest: Arc<Manifest>,
    /// Where it was put together, unless it is a release that the volume has.
    pub(super) staging: Option<Arc<Staging>>,
    /// Of a git repository.
    pub(super) commit: Option<String>,
    pub(super) fetched: Fetched,
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
    /// What the gate has held back, as it was staged, so that to ask again takes no second fetch.
    pub(super) held: Option<Candidate>,
}

impl Publisher {
    /// Clears what an earlier attempt has left.
    pub(super) fn begin_staging(&mut self) -> Result<(), SyncError> {
        self.held = None;
        self.has_staged = true;
        Ok(clear(&self.volume, Clear::Attempt)?)
    }

    /// The same, and makes room for so many bytes before they arrive.
    pub(super) fn begin_arrival(&mut self, bytes: u64) -> Result<(), SyncError> {
        self.begin_staging()?;
        self.make_room(&Need::arriving(bytes))?;
        Ok(())
    }

    pub(super) fn objects(&mut self) -> Result<Objects, SyncError> {
        self.begin_staging()?;
        Ok(Objects::open(&self.volume)?)
    }

    /// Removes what was staged, unless it is held back. What cannot be removed now is removed after the next sync.
    pub(super) fn clear(&mut self, what: Clear) {
        if !self.has_staged || self.held.is_some() {
            return;
        }
        match clear(&self.volume, what) {
            Ok(()) => self.has_staged = what != Clear::All,
            Err(error) => tracing::warn!(%error, "staging not cleaned up; will retry"),
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

    /// Keeps a signed manifest as it is until its release is in place. `None` where it is the current release's, which the volume
    /// has already.
    pub(super) fn record(
        &mut self,
        current: Option<&ReleaseId>,
        json: &[u8],
        signature: &[u8],
    ) -> Result<Option<SignedManifest>, VolumeError> {
        if current.is_some_and(|id| SignedManifest::is_recorded(&self.volume, id, json, signature)) {
            return Ok(None);
        }
        self.has_staged = true;
        SignedManifest::write(&self.volume, json, signature).map(Some)
    }

    /// Publishes what has arrived in one piece, unless it is published already.
    pub(super) async fn publish_contents(
        &mut self,
        contents: Contents,
        manifest: Manifest,
        wire_bytes: u64,
        current: Option<ReleaseId>,
        commit: Option<String>,
    ) -> Result<Outcome, SyncError> {
        manifest.check_directories(&self.limits).map_err(SyncError::Archive)?;
        let manifest = Arc::new(manifest);
        let (id, Assembly { link: links, mut fetch, .. }) = loop {
            let (id, plan) = self.plan(&manifest, current.as_ref())?;
            let assembly = match plan {
                Plan::InStep => return Ok(Outcome::Unchanged(id)),
                Plan::Repoint => {
                    let fetched = Fetched::default();
                    let candidate = Candidate { id, manifest, staging: None, commit, fetched };
                    return self.publish(candidate, current).await;
                }
                Plan::Assemble(assembly) => assembly,
            };
            let sizes = assembly.fetch.iter().map(|index| manifest.files[*index].size);
            let need = Need::arrived(&self.volume, sizes, manifest.directories().len());
            // A release that has gone for it may be one that the plan links from.
            if self.make_room(&need)? == 0 {
                break (id, assembly);
            }
        };
        let began = Instant::now();
        let staging = Arc::new(Staging::begin(&self.volume, &id, &manifest)?);
        fetch.extend(link(&staging, &links, &manifest)?);
        contents.place(&staging, &manifest, &fetch)?;
        self.metrics.phase(Phase::Link, began);
        let fetched = Fetched { files: fetch.len(), bytes: wire_bytes };
        self.publish(Candidate { id, manifest, staging: Some(staging), commit, fetched }, current).await
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

    /// Publishes a release whose files are all on the volume, once the operator's own gate has let it pass.
    pub(super) async fn publish(
        &mut self,
        candidate: Candidate,
        replaced: Option<ReleaseId>,
    ) -> Result<Outcome, SyncError> {
        let Candidate { id, manifest, staging, commit, fetched } = &candidate;
        if let Some(gate) = &self.http_gate {
            let releases = self.volume.path().join(RELEASES);
            let directory = staging.as_ref().map_or(&*releases, |staging| staging.directory());
            if let Err(error) = gate.ask(id, directory, commit.as_deref()).await {
                // What cannot be read now is put together again.
                self.held = (error.exit != Exit::Io).then_some(candidate);
                return Err(error.into());
            }
        }
        let began = Instant::now();
        let published = match staging {
            Some(staging) => publish(staging, manifest, replaced.as_ref())?,
            None => point_at(&self.volume, id, None, replaced.as_ref())?,
        };
        self.metrics.phase(Phase::Publish, began);
        Ok(self.published(&published, id, manifest, replaced, *fetched))
    }

    /// Whether there is a release that the gate has held back.
    pub(super) fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Asks the gate again about the release that it has held back, if that is still there.
    pub(super) async fn ask_again(
        &mut self,
        replaced: Option<ReleaseId>,
    ) -> Option<Result<Outcome, SyncError>> {
        let held = self.held.take()?;
        let is_there = match &held.staging {
            Some(staging) => staging.is_whole(&held.manifest),
            // An old release may have gone since.
            None => is_intact(&self.volume, &held.id),
        };
        if is_there { Some(self.publish(held, replaced).await) } else { None }
    }

    /// Makes sure that a release fits on the volume. Old releases go early for it, but not before readers had their time. Returns how
    /// many went.
    pub(super) fn make_room(&mut self, need: &Need) -> Result<usize, SyncError> {
        let (min_free, max_volume_size) = (self.limits.min_free, self.retention.max_volume_size());
        let mut removed = 0;
        loop {
            let current = self.current.as_ref();
            let Err(short) = check_room(&self.volume, need, min_free, max_volume_size, current) else {
                return Ok(removed);
            };
            let is_short = matches!(&short, VolumeError::Io { cause, .. } if cause.kind() == StorageFull);
            if !is_short || !self.remove_expendable() {
                return Err(short.into());
            }
            removed += 1;
        }
    }

    /// Has all old releases go that may, for what has filled the volume and cannot tell how much more it needs. Where there is none, the
    /// error says what holds the space.
    pub(super) fn make_all_room(&mut self, full: VolumeError) -> Result<(), SyncError> {
        // What was written before the volume was full is in the way as well.
        self.begin_staging()?;
        if !self.remove_expendable() {
            return Err(explain_full(&self.volume, full, self.current.as_ref()).into());
        }
        while self.remove_expendable() {}
        tracing::info!(error = %full, "trying again, now that there is more space");
        Ok(())
    }

    /// Removes the old release that goes first where space is short, and returns whether one went.
    fn remove_expendable(&mut self) -> bool {
        let may_go = self.retention.expendable(SystemTime::now());
        may_go.iter().any(|id| self.remove_old(id, "old release removed early, because space is short"))
    }

    /// Removes an old release, and returns whether it went. One that stays costs space, not content.
    fn remove_old(&mut self, id: &ReleaseId, why: &str) -> bool {
        match remove_release(&self.volume, id) {
            Ok(()) => {
                self.retention.forget(id);
                tracing::info!(release = %id, "{why}");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "old release not removed; will retry");
                false
            }
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
            self.remove_old(&id, "old release removed");
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
