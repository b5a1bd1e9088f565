//! One sync from beginning to end: ask, plan, stage, publish.
//!
//! [`Syncer::sync`] either leaves the volume in step with the content manager and says how, or leaves what was published as it
//! was and says why. Dropping it half-way is as good as a crash: whatever was staged is swept by the next one.

mod arrivals;
mod authority;
mod repair;
mod reuse;
mod unpacked;

use std::sync::Arc;
use std::time::Instant;

use self::authority::Authority;
use self::reuse::link;
use crate::body::Body;
use crate::config::{Config, Limits, Unpacking};
use crate::failure::SyncError;
use crate::gate::Gates;
use crate::location::Kind;
use crate::manifest::Manifest;
use crate::metrics::{Metrics, Phase, Retry};
use crate::plan::{Plan, Sources, plan};
use crate::progress::Audience;
use crate::publish::{point_at, publish};
use crate::release::{Digest, ReleaseId};
use crate::retain::Retained;
use crate::signature::SignatureError;
use crate::source::{Freshness, Source, Validator};
use crate::stage::Staging;
use crate::volume::{Volume, VolumeError, on_disk};

/// How a sync ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// `current` names another release than before.
    Published(Publication),
    /// It was in step already.
    Unchanged(ReleaseId),
}

impl Outcome {
    /// The release that `current` names now.
    pub fn release(&self) -> &ReleaseId {
        match self {
            Self::Published(publication) => &publication.release,
            Self::Unchanged(release) => release,
        }
    }
}

/// What was published, and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The release.
    pub release: ReleaseId,
    /// Its files.
    pub files: usize,
    /// All its bytes.
    pub bytes: u64,
    /// The files that had to be fetched; the others were on the volume.
    pub fetched_files: usize,
    /// The bytes of those.
    pub fetched_bytes: u64,
}

/// What a look at the published release found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every file is what was published, or nothing was published yet.
    Sound,
    /// So many files were not, and are again.
    Repaired(usize),
    /// `current` does not lead to it any more: a sync has to put it together again.
    Lost,
}

/// Keeps one volume in step with one source.
#[derive(Debug)]
pub struct Syncer {
    source: Source,
    volume: Arc<Volume>,
    limits: Limits,
    unpacking: Unpacking,
    /// What the archive has to be.
    digest: Option<Digest>,
    /// Who has to have signed the manifest.
    authority: Option<Authority>,
    gates: Gates,
    concurrency: usize,
    audience: Audience,
    retained: Retained,
    metrics: Metrics,
    /// The release that is served as far as we know.
    published: Option<ReleaseId>,
    /// The release that is in place because of the manifest with this validator.
    known: Option<(ReleaseId, Validator)>,
}

impl Syncer {
    /// Takes a volume's present state as the starting point.
    ///
    /// # Errors
    /// Where the volume cannot be read.
    pub fn new(
        config: &Config,
        source: Source,
        volume: Volume,
        metrics: Metrics,
    ) -> Result<Self, VolumeError> {
        let options = &config.options;
        let current = volume.current()?;
        let mut old = volume.complete_releases()?;
        old.retain(|id| current.as_ref() != Some(id));
        let retained = Retained::new(options.retention, old, Instant::now());
        let volume = Arc::new(volume);
        let (limits, concurrency) = (options.limits, options.transfer.concurrency);
        let gates = options.gates.clone();
        let published = current;
        let unpacking = options.unpacking;
        Ok(Self {
            published,
            source,
            volume,
            limits,
            unpacking,
            digest: options.authenticity.digest,
            authority: options.authenticity.public_key.clone().map(Authority::new),
            gates,
            concurrency,
            audience: if options.once { Audience::Terminal } else { Audience::Log },
            retained,
            metrics,
            known: None,
        })
    }

    /// Brings the volume in step.
    ///
    /// # Errors
    /// Why it could not; what was published stays published.
    pub async fn sync(&mut self) -> Result<Outcome, SyncError> {
        self.source.renew_credential().await?;
        let outcome = match self.attempt(Freshness::Cached).await {
            // The content changed after its manifest was made, or a cache holds one of the two for longer. A second look
            // past all caches is likely to see both as they are now.
            Err(error @ (SyncError::Mismatch(_) | SyncError::Signature(SignatureError::Wrong { .. }))) => {
                tracing::info!(%error, "fetching the manifest again");
                self.metrics.retried(Retry::Manifest);
                self.attempt(Freshness::Revalidated).await
            }
            outcome => outcome,
        };
        if outcome.is_err() {
            // Gives the space back now; the next sync would do it too.
            let volume = Arc::clone(&self.volume);
            if let Err(error) = on_disk(move || volume.sweep_staging()).await {
                tracing::warn!(%error, "space is not given back yet");
            }
        }
        outcome
    }

    async fn attempt(&mut self, freshness: Freshness) -> Result<Outcome, SyncError> {
        let volume = Arc::clone(&self.volume);
        let current = on_disk(move || volume.current()).await?;
        // "Not modified" is an answer only while what it speaks of is still in place.
        let known = self.known.as_ref().filter(|(id, _)| current.as_ref() == Some(id));
        let opened = match known.filter(|_| freshness == Freshness::Cached) {
            None => self.source.open(freshness).await?,
            Some((id, validator)) => match self.source.open_if_changed(validator).await? {
                None => return Ok(Outcome::Unchanged(id.clone())),
                Some(opened) => opened,
            },
        };
        let (id, outcome) = match self.source.url().kind() {
            Kind::Manifest => self.follow_manifest(opened.body, current.clone(), freshness).await?,
            Kind::Archive(compression) => {
                self.follow_archive(opened.body, compression, current.clone()).await?
            }
        };
        if let Outcome::Published(publication) = &outcome {
            let volume = Arc::clone(&self.volume);
            self.metrics.space(publication.bytes, on_disk(move || volume.free()).await?);
            self.retained.published(&id, current, Instant::now());
        }
        self.published = Some(id.clone());
        self.known = opened.validator.map(|validator| (id, validator));
        Ok(outcome)
    }

    async fn follow_manifest(
        &mut self,
        body: Body,
        current: Option<ReleaseId>,
        freshness: Freshness,
    ) -> Result<(ReleaseId, Outcome), SyncError> {
        let began = Instant::now();
        let json = self.source.read_manifest(body).await?;
        if let Some(authority) = &self.authority {
            authority.check(&self.source, &json, freshness).await?;
        }
        let (volume, limits, base) = (Arc::clone(&self.volume), self.limits, self.source.url().clone());
        let gates = self.gates.clone();
        let (id, manifest, plan) = on_disk(move || {
            let manifest = Manifest::parse(&json, &limits)?;
            drop(json);
            base.covers(&manifest)?;
            let id = manifest.id();
            let plan = plan(&volume, &id, &manifest)?;
            if !matches!(plan, Plan::InStep) {
                gates.check(&manifest, || current.and_then(|id| volume.manifest(&id)))?;
            }
            Ok::<_, SyncError>((id, Arc::new(manifest), plan))
        })
        .await?;
        if let Some(authority) = &self.authority {
            authority.check_age(&self.volume, &manifest).await?;
        }
        self.metrics.phase(Phase::Plan, began);
        let outcome = match plan {
            Plan::InStep => Outcome::Unchanged(id.clone()),
            Plan::PointBack => self.point_back(&id, &manifest).await?,
            Plan::Stage(sources) => self.stage_and_publish(&id, &manifest, sources, freshness).await?,
        };
        if let Some(authority) = &mut self.authority {
            authority.accepted(&self.volume, &id, &manifest).await?;
        }
        Ok((id, outcome))
    }

    async fn point_back(&self, id: &ReleaseId, manifest: &Manifest) -> Result<Outcome, SyncError> {
        let (volume, target) = (Arc::clone(&self.volume), id.clone());
        on_disk(move || point_at(&volume, &target)).await?;
        Ok(Outcome::Published(self.publication(id, manifest, &[])))
    }

    async fn stage_and_publish(
        &self,
        id: &ReleaseId,
        manifest: &Arc<Manifest>,
        sources: Sources,
        freshness: Freshness,
    ) -> Result<Outcome, SyncError> {
        let began = Instant::now();
        let (volume, release, files) = (Arc::clone(&self.volume), id.clone(), Arc::clone(manifest));
        let (staging, to_fetch) = on_disk(move || {
            let staging = Staging::begin(volume, release, &files)?;
            let to_fetch = link(&staging, sources, &files, Staging::reuse)?;
            Ok::<_, VolumeError>((Arc::new(staging), to_fetch))
        })
        .await?;
        self.metrics.phase(Phase::Link, began);
        let publication = self.publication(id, manifest, &to_fetch);
        let (volume, needed, min_free) =
            (Arc::clone(&self.volume), publication.fetched_bytes, self.limits.min_free);
        on_disk(move || volume.has_room_for(needed, min_free)).await?;
        let began = Instant::now();
        self.fetch_all(&staging, manifest, to_fetch, freshness).await?;
        self.metrics.phase(Phase::Fetch, began);
        let began = Instant::now();
        on_disk(move || publish(&staging)).await?;
        self.metrics.phase(Phase::Publish, began);
        Ok(Outcome::Published(publication))
    }

    fn publication(&self, id: &ReleaseId, manifest: &Manifest, fetched: &[usize]) -> Publication {
        self.metrics.reused(manifest.files.len() - fetched.len());
        Publication {
            release: id.clone(),
            files: manifest.files.len(),
            bytes: manifest.total_size(),
            fetched_files: fetched.len(),
            fetched_bytes: fetched.iter().map(|index| manifest.files[*index].size).sum(),
        }
    }

    /// Removes the old releases whose time has come. A failure costs space, not content: it is said, and tried again.
    ///
    /// After each sync, and no part of it: nobody who asked for a sync should wait for it.
    pub async fn retain(&mut self) {
        for id in self.retained.due(Instant::now()) {
            let (volume, old) = (Arc::clone(&self.volume), id.clone());
            match on_disk(move || volume.remove(&old)).await {
                Ok(()) => {
                    self.retained.removed(&id);
                    tracing::info!(release = %id, "old release removed");
                }
                Err(error) => tracing::warn!(%error, "an old release stays for now"),
            }
        }
        self.metrics.old_releases(self.retained.len());
    }
}
