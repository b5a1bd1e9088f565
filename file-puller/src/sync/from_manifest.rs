//! Following a manifest: it says what the release is, so only what the volume lacks is fetched.

use std::sync::Arc;
use std::time::Instant;

use super::reuse::link;
use super::{Outcome, Syncer, plan_within};
use crate::body::Body;
use crate::failure::SyncError;
use crate::manifest::Manifest;
use crate::metrics::Phase;
use crate::plan::{Plan, Sources};
use crate::publish::{point_at, publish};
use crate::release::ReleaseId;
use crate::source::Freshness;
use crate::stage::Staging;
use crate::volume::{VolumeError, on_disk};

impl Syncer {
    pub(super) async fn follow_manifest(
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
        let (gates, known) = (self.gates.clone(), self.spare.known());
        let (id, manifest, plan) = on_disk(move || {
            let manifest = Manifest::parse(&json, &limits)?;
            drop(json);
            base.covers(&manifest)?;
            let (id, plan) = plan_within(&gates, &volume, current, &manifest, known.as_ref())?;
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

    pub(super) async fn point_back(&self, id: &ReleaseId, manifest: &Manifest) -> Result<Outcome, SyncError> {
        let (volume, target) = (Arc::clone(&self.volume), id.clone());
        on_disk(move || point_at(&volume, &target)).await?;
        Ok(Outcome::Published(self.publication(id, manifest, &[])))
    }

    async fn stage_and_publish(
        &mut self,
        id: &ReleaseId,
        manifest: &Arc<Manifest>,
        sources: Sources,
        freshness: Freshness,
    ) -> Result<Outcome, SyncError> {
        let began = Instant::now();
        let (volume, release, files) = (Arc::clone(&self.volume), id.clone(), Arc::clone(manifest));
        let spare = self.spare.take();
        let (staging, to_fetch) = on_disk(move || {
            let from_spare = match (spare, &sources.departure) {
                (Some(spare), Some(departure)) if spare.of().id == departure.from => spare
                    .begin(Arc::clone(&volume), release.clone(), &files, departure)
                    // Somebody's broom, most likely. It goes without, only slower.
                    .inspect_err(|error| tracing::warn!(%error, "beginning with nothing"))
                    .ok(),
                _ => None,
            };
            let staging = match from_spare {
                Some(staging) => staging,
                None => Staging::begin(volume, release, &files)?,
            };
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
        self.fetch_all(&staging, manifest, &to_fetch, freshness).await?;
        self.metrics.phase(Phase::Fetch, began);
        let began = Instant::now();
        on_disk(move || publish(&staging)).await?;
        self.metrics.phase(Phase::Publish, began);
        Ok(Outcome::Published(publication))
    }
}
