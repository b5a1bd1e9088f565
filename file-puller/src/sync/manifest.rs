//! Following a manifest: it says what the release is, so only what the volume lacks is fetched.

use std::sync::Arc;
use std::time::Instant;

use lifecycle::blocking;

use super::error::SyncError;
use super::link::link;
use super::plan::{Assembly, Plan};
use super::{Engine, Outcome, plan_within};
use crate::content::{Manifest, ReleaseId};
use crate::fetch::{Downloader, download_all};
use crate::metrics::Phase;
use crate::source::{Body, Freshness};
use crate::store::{Staging, VolumeError, point_at, publish};

impl Engine {
    pub(super) async fn follow_manifest(
        &mut self,
        body: Body,
        current: Option<ReleaseId>,
        freshness: Freshness,
    ) -> Result<(ReleaseId, Outcome), SyncError> {
        let began = Instant::now();
        let json = self.source.read_manifest(body).await?;
        if let Some(trust) = &self.trust {
            trust.verify_signature(&self.source, &json, freshness).await?;
        }
        let (volume, limits, base) = (Arc::clone(&self.volume), self.limits, self.source.url().clone());
        let (gates, known) = (self.gates.clone(), self.seed.base());
        let (id, manifest, plan) = blocking(move || {
            let manifest = Manifest::parse(&json, &limits)?;
            drop(json);
            base.covers(&manifest)?;
            let (id, plan) = plan_within(&gates, &volume, current, &manifest, known.as_ref())?;
            Ok::<_, SyncError>((id, Arc::new(manifest), plan))
        })
        .await?;
        if let Some(trust) = &self.trust {
            trust.reject_rollback(&self.volume, &manifest).await?;
        }
        self.metrics.phase(Phase::Plan, began);
        let outcome = match plan {
            Plan::InStep => Outcome::Unchanged(id.clone()),
            Plan::Repoint => self.repoint(&id, &manifest).await?,
            Plan::Assemble(assembly) => self.stage_and_publish(&id, &manifest, assembly, freshness).await?,
        };
        if let Some(trust) = &mut self.trust {
            trust.record_accepted(&self.volume, &id, &manifest).await?;
        }
        Ok((id, outcome))
    }

    pub(super) async fn repoint(&self, id: &ReleaseId, manifest: &Manifest) -> Result<Outcome, SyncError> {
        let (volume, target) = (Arc::clone(&self.volume), id.clone());
        blocking(move || point_at(&volume, &target)).await?;
        Ok(Outcome::Published(self.publication(id, manifest, &[])))
    }

    async fn stage_and_publish(
        &mut self,
        id: &ReleaseId,
        manifest: &Arc<Manifest>,
        assembly: Assembly,
        freshness: Freshness,
    ) -> Result<Outcome, SyncError> {
        let began = Instant::now();
        let (volume, release, files) = (Arc::clone(&self.volume), id.clone(), Arc::clone(manifest));
        let seed = self.seed.take();
        let (staging, to_fetch) = blocking(move || {
            let from_seed = match (seed, &assembly.diff) {
                (Some(seed), Some(diff)) if seed.base().id == diff.base => seed
                    .into_staging(Arc::clone(&volume), release.clone(), &files, diff)
                    // The seed tree was probably removed from outside. Stage from scratch: slower, same result.
                    .inspect_err(
                        |error| tracing::warn!(%error, "staging from scratch, without the seed tree"),
                    )
                    .ok(),
                _ => None,
            };
            let staging = match from_seed {
                Some(staging) => staging,
                None => Staging::begin(volume, release, &files)?,
            };
            let to_fetch = link(&staging, assembly, &files)?;
            Ok::<_, VolumeError>((Arc::new(staging), to_fetch))
        })
        .await?;
        self.metrics.phase(Phase::Link, began);
        let publication = self.publication(id, manifest, &to_fetch);
        let (volume, needed, min_free) =
            (Arc::clone(&self.volume), publication.fetched_bytes, self.limits.min_free);
        blocking(move || volume.has_room_for(needed, min_free)).await?;
        let began = Instant::now();
        self.fetch_files(&staging, manifest, &to_fetch, freshness).await?;
        self.metrics.phase(Phase::Fetch, began);
        let began = Instant::now();
        blocking(move || publish(&staging)).await?;
        self.metrics.phase(Phase::Publish, began);
        Ok(Outcome::Published(publication))
    }

    pub(super) async fn fetch_files(
        &self,
        staging: &Arc<Staging>,
        manifest: &Arc<Manifest>,
        files: &[usize],
        freshness: Freshness,
    ) -> Result<(), SyncError> {
        let (source, metrics) = (&self.source, &self.metrics);
        let downloader = Downloader { source, staging, manifest, freshness, metrics };
        Ok(download_all(downloader, files, self.concurrency, self.audience).await?)
    }
}
