//! What content is received with: [`Intake`].

use std::sync::Arc;
use std::time::Instant;

use super::error::SyncError;
use crate::content::{Digest, Manifest};
use crate::fetch::{Allowance, Contents, Rules, receive, unpack};
use crate::metrics::{Metrics, Phase};
use crate::source::{Body, Compression, Source};
use crate::store::Volume;

/// Where content comes from and goes to, and what it is held to on the way.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) source: Arc<Source>,
    pub(super) volume: Arc<Volume>,
    pub(super) rules: Arc<Rules>,
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
        let (volume, rules) = (Arc::clone(&self.volume), Arc::clone(&self.rules));
        let allowance = Allowance::new(rules.unpacking.max_archive_size);
        let read = move |feed| unpack(volume, feed, compression, rules);
        let (unpacked, wire_bytes) = receive(body, allowance, digest, read).await?;
        let (contents, manifest) = unpacked?;
        self.metrics.fetched(1, wire_bytes);
        self.metrics.phase(Phase::Unpack, began);
        Ok((contents, manifest, wire_bytes))
    }
}
