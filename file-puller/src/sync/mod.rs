//! One sync from beginning to end: ask, plan, stage, publish.
//!
//! [`Engine::sync`] either leaves the volume in step with the content manager and says how, or leaves what was published as it
//! was and says why. Dropping it half-way is as good as a crash: whatever was staged is swept by the next one.

mod archive;
mod error;
mod gate;
mod link;
mod manifest;
mod outcome;
mod plan;
mod repair;
mod trust;
mod upkeep;

use std::sync::Arc;
use std::time::Instant;

use lifecycle::blocking;

pub(crate) use self::error::SyncError;
use self::gate::Gates;
pub(crate) use self::outcome::{Outcome, Publication, Verdict};
use self::plan::{Plan, plan};
use self::trust::{Authenticity, TrustPolicy};
use self::upkeep::SeedState;
use crate::content::{Digest, Limits, Manifest, ReleaseId, Selection};
use crate::fetch::Unpacking;
use crate::metrics::{Metrics, Retry};
use crate::progress::Audience;
use crate::source::{Freshness, Kind, SignatureError, Source, Validator};
use crate::store::{CachedManifest, Retention, RetentionPolicy, Volume, VolumeError, sweep_staging};

/// What a release has to be, and how it is kept.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EngineOptions {
    // Below this, linking takes less than ten milliseconds.
    /// Files from which on a copy of the current release is kept ready, in hard links, so that a small change is published sooner
    #[arg(long, value_name = "N", default_value = "1000")]
    spare_from: usize,

    #[command(flatten)]
    gates: Gates,

    #[command(flatten)]
    retention: RetentionPolicy,

    #[command(flatten)]
    selection: Selection,

    #[command(flatten)]
    unpacking: Unpacking,

    #[command(flatten)]
    pub(crate) authenticity: Authenticity,

    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// Keeps one volume in step with one source.
#[derive(Debug)]
pub(crate) struct Engine {
    source: Source,
    volume: Arc<Volume>,
    limits: Limits,
    selection: Selection,
    unpacking: Unpacking,
    /// What the archive has to be.
    digest: Option<Digest>,
    trust: Option<TrustPolicy>,
    gates: Gates,
    concurrency: usize,
    audience: Audience,
    retention: Retention,
    seed: SeedState,
    metrics: Metrics,
    /// The release that is served as far as we know.
    current: Option<ReleaseId>,
    /// The release that is in place because of the manifest with this validator.
    last_validator: Option<(ReleaseId, Validator)>,
}

impl Engine {
    /// Takes a volume's present state as the starting point.
    pub(crate) fn new(
        options: &EngineOptions,
        source: Source,
        volume: Volume,
        audience: Audience,
        metrics: Metrics,
    ) -> Result<Self, VolumeError> {
        let current = volume.current()?;
        let mut old = volume.complete_releases()?;
        old.retain(|id| current.as_ref() != Some(id));
        let EngineOptions { spare_from, gates, retention, selection, unpacking, authenticity, limits } =
            options.clone();
        Ok(Self {
            current,
            concurrency: source.concurrency(),
            source,
            volume: Arc::new(volume),
            limits,
            selection,
            unpacking,
            digest: authenticity.digest,
            trust: authenticity.public_key.map(TrustPolicy::new),
            gates,
            audience,
            retention: Retention::new(retention, old, Instant::now()),
            seed: SeedState::new(spare_from),
            metrics,
            last_validator: None,
        })
    }

    /// Brings the volume in step.
    pub(crate) async fn sync(&mut self) -> Result<Outcome, SyncError> {
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
            if let Err(error) = blocking(move || sweep_staging(&volume)).await {
                tracing::warn!(%error, "space is not given back yet");
            }
        }
        outcome
    }

    async fn attempt(&mut self, freshness: Freshness) -> Result<Outcome, SyncError> {
        let volume = Arc::clone(&self.volume);
        let current = blocking(move || volume.current()).await?;
        // "Not modified" is an answer only while what it speaks of is still in place.
        let known = self.last_validator.as_ref().filter(|(id, _)| current.as_ref() == Some(id));
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
            self.metrics.space(publication.bytes, blocking(move || volume.free()).await?);
            self.retention.published(&id, current, Instant::now());
            self.seed.invalidate();
        }
        self.current = Some(id.clone());
        self.last_validator = opened.validator.map(|validator| (id, validator));
        Ok(outcome)
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
}

/// Compares a manifest with what is on the volume; what would change has to pass the gates.
fn plan_within(
    gates: &Gates,
    volume: &Volume,
    current: Option<ReleaseId>,
    manifest: &Manifest,
    known: Option<&CachedManifest>,
) -> Result<(ReleaseId, Plan), SyncError> {
    let id = manifest.id();
    let plan = plan(volume, &id, manifest, known)?;
    if !matches!(plan, Plan::InStep) {
        gates.check(manifest, || current.and_then(|id| volume.manifest(&id)))?;
    }
    Ok((id, plan))
}
