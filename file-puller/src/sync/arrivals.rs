//! Files on their way into the staging tree, several at a time: the network on the event loop, the disk on a thread.
//!
//! A small file is received whole and waits for others: handing each to a thread by itself would cost more than writing it.
//! While a batch is written, the next arrives; the network waits when the disk is slower.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;

use super::Syncer;
use crate::failure::SyncError;
use crate::fetch::{Arrived, Fetcher};
use crate::manifest::Manifest;
use crate::progress::Progress;
use crate::source::Freshness;
use crate::stage::Staging;
use crate::volume::on_disk;

/// A batch is handed over when it has so many files,
const FILES: usize = 32;
/// or so many bytes.
const BYTES: usize = 256 * 1024;

impl Syncer {
    pub(super) async fn fetch_all(
        &self,
        staging: &Arc<Staging>,
        manifest: &Arc<Manifest>,
        files: &[usize],
        freshness: Freshness,
    ) -> Result<(), SyncError> {
        let total = files.len();
        tracing::info!(release = %staging.id(), to_fetch = total, of = manifest.files.len(), "staging");
        let fetcher = Fetcher { source: &self.source, staging, manifest, freshness, metrics: &self.metrics };
        let mut arriving =
            stream::iter(files).map(|index| fetcher.fetch(*index)).buffer_unordered(self.concurrency);
        let (full, mut batches) = mpsc::channel(1);
        let gather = async move {
            let mut batch = Batch::default();
            while let Some(arrived) = arriving.try_next().await? {
                batch.add(arrived);
                // A closed channel means that sealing has failed, and that says why.
                if batch.is_full() && full.send(std::mem::take(&mut batch)).await.is_err() {
                    break;
                }
            }
            drop(full.send(batch).await);
            Ok::<_, SyncError>(())
        };
        let seal = async {
            let mut progress = Progress::begin(self.audience, total);
            while let Some(Batch { files, .. }) = batches.recv().await {
                let count = files.len();
                let bytes = files.iter().map(|arrived| manifest.files[arrived.index()].size).sum();
                self.metrics.fetched(count, bytes);
                let (into, promised) = (Arc::clone(staging), Arc::clone(manifest));
                on_disk(move || files.into_iter().try_for_each(|arrived| arrived.seal(&into, &promised)))
                    .await?;
                progress.fetched(count, staging.id());
            }
            Ok(())
        };
        tokio::try_join!(gather, seal).map(|_| ())
    }
}

/// Files that have arrived and wait to be written.
#[derive(Default)]
struct Batch {
    files: Vec<Arrived>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, arrived: Arrived) {
        self.bytes += arrived.in_memory();
        self.files.push(arrived);
    }

    fn is_full(&self) -> bool {
        self.files.len() >= FILES || self.bytes >= BYTES
    }
}
