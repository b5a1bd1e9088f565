//! What content is received with: [`Intake`].

use std::sync::Arc;
use std::time::Instant;

use lifecycle::blocking;

use super::error::SyncError;
use crate::content::{Digest, Limits, Manifest, Selection};
use crate::fetch::{Contents, Unpacking, feed, pump, unpack};
use crate::metrics::{Metrics, Phase};
use crate::source::{Body, Compression, Source};
use crate::store::Volume;

/// Where content comes from and goes to, and what it is held to on the way.
#[derive(Debug, Clone)]
pub(super) struct Intake {
    pub(super) source: Arc<Source>,
    pub(super) volume: Arc<Volume>,
    pub(super) selection: Selection,
    pub(super) limits: Limits,
    pub(super) unpacking: Unpacking,
    pub(super) metrics: Metrics,
}

impl Intake {
    /// Unpacks an archive while it arrives, and returns how many bytes arrived.
    pub(super) async fn unpack(
        &self,
        body: Body,
        compression: Compression,
        digest: Option<Digest>,
    ) -> Result<(Contents, Manifest, u64), SyncError> {
        let began = Instant::now();
        let (sender, receiver) = feed();
        let Self { volume, selection, limits, unpacking, .. } = self.clone();
        let unpacked =
            blocking(move || unpack(volume, receiver, compression, &selection, &limits, &unpacking));
        let arrived = pump(body, sender, self.unpacking.max_archive_size, digest);
        let (arrived, unpacked) = tokio::join!(arrived, unpacked);
        // Where the connection broke, that the archive is incomplete is only its consequence.
        let wire_bytes = arrived?;
        let (contents, manifest) = unpacked?;
        self.metrics.fetched(1, wire_bytes);
        self.metrics.phase(Phase::Unpack, began);
        Ok((contents, manifest, wire_bytes))
    }
}
