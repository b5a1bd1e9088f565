//! Following an archive. It says what it is only once it is unpacked: what the volume has already is linked then.

use std::sync::Arc;
use std::time::Instant;

use lifecycle::blocking;

use super::error::SyncError;
use super::link::link;
use super::plan::Plan;
use super::{Engine, Outcome, Publication, plan_within};
use crate::content::{Manifest, ReleaseId};
use crate::fetch::{feed, pump, unpack};
use crate::metrics::Phase;
use crate::source::{Body, Compression};
use crate::store::{Incoming, Staging, VolumeError, publish, sweep_staging};

impl Engine {
    pub(super) async fn follow_archive(
        &self,
        body: Body,
        compression: Compression,
        current: Option<ReleaseId>,
    ) -> Result<(ReleaseId, Outcome), SyncError> {
        let began = Instant::now();
        let (incoming, manifest, wire_bytes) = self.unpack(body, compression).await?;
        self.metrics.phase(Phase::Unpack, began);
        let began = Instant::now();
        let (volume, gates) = (Arc::clone(&self.volume), self.gates.clone());
        let (id, manifest, plan) = blocking(move || {
            let (id, plan) = plan_within(&gates, &volume, current, &manifest, None)?;
            Ok::<_, SyncError>((id, Arc::new(manifest), plan))
        })
        .await?;
        let outcome = match plan {
            Plan::InStep => Outcome::Unchanged(id.clone()),
            Plan::Repoint => self.repoint(&id, &manifest).await?,
            Plan::Assemble(assembly) => {
                let (release, files) = (id.clone(), Arc::clone(&manifest));
                let new = blocking(move || {
                    let staging = incoming.named(release, &files)?;
                    let new = link(&staging, assembly, &files, Staging::replace)?;
                    publish(&staging)?;
                    Ok::<_, VolumeError>(new)
                });
                let new = new.await?;
                self.metrics.phase(Phase::Publish, began);
                let publication = self.publication(&id, &manifest, &new);
                Outcome::Published(Publication { fetched_bytes: wire_bytes, ..publication })
            }
        };
        let volume = Arc::clone(&self.volume);
        blocking(move || sweep_staging(&volume)).await?;
        Ok((id, outcome))
    }

    /// Unpacks what arrives while it arrives, and returns how many bytes that were.
    pub(super) async fn unpack(
        &self,
        body: Body,
        compression: Compression,
    ) -> Result<(Incoming, Manifest, u64), SyncError> {
        let (volume, min_free) = (Arc::clone(&self.volume), self.limits.min_free);
        // What it unpacks to is not known yet; it is no less than this, most of the time.
        let announced = body.announced().unwrap_or(0);
        blocking(move || volume.has_room_for(announced, min_free)).await?;
        let (sender, receiver) = feed();
        let (volume, limits, unpacking) = (Arc::clone(&self.volume), self.limits, self.unpacking);
        let unpacking_thread = blocking(move || unpack(volume, receiver, compression, &limits, &unpacking));
        let arriving = pump(body, sender, self.unpacking.max_archive_size, self.digest);
        let (arrived, unpacked) = tokio::join!(arriving, unpacking_thread);
        // Where the connection broke, that the archive is incomplete is only its consequence.
        let wire_bytes = arrived?;
        let (incoming, manifest) = unpacked?;
        self.metrics.fetched(1, wire_bytes);
        Ok((incoming, manifest, wire_bytes))
    }
}
