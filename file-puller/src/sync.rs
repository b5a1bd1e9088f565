//! One sync from beginning to end: ask, plan, stage, publish, retain.
//!
//! [`Syncer::sync`] either leaves the volume in step with the content manager and says how, or leaves what was published as it
//! was and says why. Dropping it half-way is as good as a crash: whatever was staged is swept by the next one.

mod repair;
mod unpacked;

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::body::Body;
use crate::config::{Config, Limits, Unpacking};
use crate::failure::SyncError;
use crate::fetch::Fetcher;
use crate::gate::Gates;
use crate::location::Kind;
use crate::manifest::Manifest;
use crate::metrics::Metrics;
use crate::path::ReleasePath;
use crate::plan::{Plan, Sources, plan};
use crate::publish::{point_at, publish};
use crate::release::ReleaseId;
use crate::retain::Retained;
use crate::source::{Freshness, Source, Validator};
use crate::stage::Staging;
use crate::volume::{Volume, VolumeError, on_disk};

/// How often a long sync says how far it is.
const PROGRESS: Duration = Duration::from_secs(2);

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
    gates: Gates,
    concurrency: usize,
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
            gates,
            concurrency,
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
            Err(SyncError::Mismatch(mismatch)) => {
                tracing::info!(%mismatch, "fetching the manifest again");
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
        self.retain().await;
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
        if let Outcome::Published(_) = outcome {
            self.retained.published(&id, current, Instant::now());
        }
        self.published = Some(id.clone());
        self.known = opened.validator.map(|validator| (id, validator));
        Ok(outcome)
    }

    async fn follow_manifest(
        &self,
        body: Body,
        current: Option<ReleaseId>,
        freshness: Freshness,
    ) -> Result<(ReleaseId, Outcome), SyncError> {
        let json = self.source.read_manifest(body).await?;
        let (volume, limits, base) = (Arc::clone(&self.volume), self.limits, self.source.url().clone());
        let gates = self.gates.clone();
        let (id, manifest, plan) = on_disk(move || {
            let manifest = Manifest::parse(&json, &limits)?;
            drop(json);
            base.covers(&manifest)?;
            let id = manifest.id();
            let plan = plan(&volume, &id, &manifest)?;
            if !matches!(plan, Plan::InStep) {
                gates.check(&manifest, current.and_then(|id| volume.manifest(&id)).as_ref())?;
            }
            Ok::<_, SyncError>((id, Arc::new(manifest), plan))
        })
        .await?;
        let outcome = match plan {
            Plan::InStep => Outcome::Unchanged(id.clone()),
            Plan::PointBack => self.point_back(&id, &manifest).await?,
            Plan::Stage(sources) => self.stage_and_publish(&id, &manifest, sources, freshness).await?,
        };
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
        let (volume, release, files) = (Arc::clone(&self.volume), id.clone(), Arc::clone(manifest));
        let (staging, to_fetch) = on_disk(move || {
            let staging = Staging::begin(volume, release, &files)?;
            let to_fetch = link(&staging, sources, &files, Staging::reuse)?;
            Ok::<_, VolumeError>((Arc::new(staging), to_fetch))
        })
        .await?;
        let publication = self.publication(id, manifest, &to_fetch);
        let (volume, needed, min_free) =
            (Arc::clone(&self.volume), publication.fetched_bytes, self.limits.min_free);
        on_disk(move || volume.has_room_for(needed, min_free)).await?;
        self.fetch_all(&staging, manifest, to_fetch, freshness).await?;
        on_disk(move || publish(&staging)).await?;
        Ok(Outcome::Published(publication))
    }

    async fn fetch_all(
        &self,
        staging: &Arc<Staging>,
        manifest: &Arc<Manifest>,
        files: Vec<usize>,
        freshness: Freshness,
    ) -> Result<(), SyncError> {
        let total = files.len();
        let mut done: usize = 0;
        let mut said = Instant::now();
        tracing::info!(release = %staging.id(), to_fetch = total, of = manifest.files.len(), "staging");
        let fetcher = Fetcher { source: &self.source, staging, manifest, freshness };
        let mut arriving = stream::iter(files)
            .map(|index| async move {
                fetcher.fetch(index).await?;
                Ok::<_, SyncError>(manifest.files[index].size)
            })
            .buffer_unordered(self.concurrency);
        while let Some(bytes) = arriving.try_next().await? {
            done += 1;
            self.metrics.fetched(bytes);
            if said.elapsed() >= PROGRESS {
                tracing::info!(release = %staging.id(), fetched = done, of = total, "staging");
                said = Instant::now();
            }
        }
        Ok(())
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
    async fn retain(&mut self) {
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

/// How a file that is on the volume becomes one of the staged release: [`Staging::reuse`] or [`Staging::replace`].
type Link = fn(&Staging, BorrowedFd<'_>, &ReleasePath, &ReleasePath) -> io::Result<()>;

/// Links what is on the volume into the staging tree, and returns the files for which that did not do.
fn link(
    staging: &Staging,
    sources: Sources,
    manifest: &Manifest,
    link: Link,
) -> Result<Vec<usize>, VolumeError> {
    let Sources { reuse, mut fetch } = sources;
    for (release, files) in reuse {
        let tree = staging.volume().open_release(&release)?;
        for file in files {
            let to = &manifest.files[file.file].path;
            if let Err(error) = link(staging, tree.as_fd(), &file.from, to) {
                // Too many links on one file, or a file of another owner: the content manager has it too.
                tracing::debug!(path = %to, %release, %error, "cannot be linked, so it is a copy");
                fetch.push(file.file);
            }
        }
    }
    Ok(fetch)
}
