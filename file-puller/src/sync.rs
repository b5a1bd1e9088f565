//! One sync from beginning to end: ask, plan, stage, publish.
//!
//! [`Syncer::sync`] either leaves the volume in step with the content manager and says how, or leaves what was published as it
//! was and says why. Dropping it half-way is as good as a crash: whatever was staged is swept by the next one.

mod afterwards;
mod arrivals;
mod authority;
mod from_archive;
mod from_manifest;
mod outcome;
mod repair;
mod reuse;

use std::sync::Arc;
use std::time::Instant;

use self::afterwards::SpareKeeping;
use self::authority::Authority;
pub use self::outcome::{Outcome, Publication, Verdict};
use crate::config::{Config, Limits, Unpacking};
use crate::failure::SyncError;
use crate::gate::Gates;
use crate::location::Kind;
use crate::manifest::Manifest;
use crate::metrics::{Metrics, Retry};
use crate::plan::{Known, Plan, plan};
use crate::progress::Audience;
use crate::release::{Digest, ReleaseId};
use crate::retain::Retained;
use crate::signature::SignatureError;
use crate::source::{Freshness, Source, Validator};
use crate::volume::{Volume, VolumeError, on_disk};

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
    spare: SpareKeeping,
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
            spare: SpareKeeping::new(options.spare_from),
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
            self.spare.make_another();
        }
        self.published = Some(id.clone());
        self.known = opened.validator.map(|validator| (id, validator));
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
    known: Option<&Known>,
) -> Result<(ReleaseId, Plan), SyncError> {
    let id = manifest.id();
    let plan = plan(volume, &id, manifest, known)?;
    if !matches!(plan, Plan::InStep) {
        gates.check(manifest, || current.and_then(|id| volume.manifest(&id)))?;
    }
    Ok((id, plan))
}
