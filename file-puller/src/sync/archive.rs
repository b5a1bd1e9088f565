//! Following an archive. It says what it is only once it is unpacked: what the volume has already is linked then.

use std::sync::Arc;
use std::time::Instant;

use lifecycle::blocking;

use super::error::SyncError;
use super::link::link;
use super::plan::Plan;
use super::{Engine, Outcome, Publication, plan_within};
use crate::content::{Manifest, ReleaseId};
use crate::fetch::{Contents, NotArrived, feed, pump, unpack};
use crate::metrics::Phase;
use crate::source::{Body, Compression};
use crate::store::{Staging, VolumeError, publish, sweep_staging};

impl Engine {
    pub(super) async fn follow_archive(
        &self,
        body: Body,
        compression: Compression,
        current: Option<ReleaseId>,
    ) -> Result<(ReleaseId, Outcome), SyncError> {
        let began = Instant::now();
        let (contents, manifest, wire_bytes) = self.unpack(body, compression).await?;
        self.metrics.phase(Phase::Unpack, began);
        let followed = self.follow_contents(contents, manifest, wire_bytes, current).await?;
        // Every file of an archive arrives with it.
        followed.map_err(|NotArrived(path)| SyncError::Archive(format!("{path} was not in it")))
    }

    /// Publishes what has arrived in one piece, unless it is published already.
    pub(super) async fn follow_contents(
        &self,
        contents: Contents,
        manifest: Manifest,
        wire_bytes: u64,
        current: Option<ReleaseId>,
    ) -> Result<Result<(ReleaseId, Outcome), NotArrived>, SyncError> {
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
                let (volume, release, files) = (Arc::clone(&self.volume), id.clone(), Arc::clone(&manifest));
                let assembled = blocking(move || {
                    let staging = Staging::beside_unpacked(volume, release, &files)?;
                    let new = link(&staging, assembly, &files)?;
                    if let Err(not_arrived) = contents.place(&staging, &files, &new)? {
                        return Ok(Err(not_arrived));
                    }
                    publish(&staging)?;
                    Ok::<_, VolumeError>(Ok(new))
                });
                let new = match assembled.await? {
                    Ok(new) => new,
                    Err(not_arrived) => return Ok(Err(not_arrived)),
                };
                self.metrics.phase(Phase::Publish, began);
                let publication = self.publication(&id, &manifest, &new);
                Outcome::Published(Publication { fetched_bytes: wire_bytes, ..publication })
            }
        };
        let volume = Arc::clone(&self.volume);
        blocking(move || sweep_staging(&volume)).await?;
        Ok(Ok((id, outcome)))
    }

    /// Unpacks what arrives while it arrives, and returns how many bytes that were.
    pub(super) async fn unpack(
        &self,
        body: Body,
        compression: Compression,
    ) -> Result<(Contents, Manifest, u64), SyncError> {
        let (volume, min_free) = (Arc::clone(&self.volume), self.limits.min_free);
        // What it unpacks to is not known yet; it is no less than this, most of the time.
        let announced = body.announced().unwrap_or(0);
        blocking(move || volume.has_room_for(announced, min_free)).await?;
        let (sender, receiver) = feed();
        let (volume, limits, unpacking) = (Arc::clone(&self.volume), self.limits, self.unpacking);
        let selection = self.selection.clone();
        let unpacking_thread =
            blocking(move || unpack(volume, receiver, compression, &selection, &limits, &unpacking));
        let arriving = pump(body, sender, self.unpacking.max_archive_size, self.digest);
        let (arrived, unpacked) = tokio::join!(arriving, unpacking_thread);
        // Where the connection broke, that the archive is incomplete is only its consequence.
        let wire_bytes = arrived?;
        let (contents, manifest) = unpacked?;
        self.metrics.fetched(1, wire_bytes);
        Ok((contents, manifest, wire_bytes))
    }
}
