//! Files on their way into the staging tree, several at a time: the network on the event loop, the disk on a thread.
//!
//! A small file is received whole and waits for others: handing each to a thread by itself would cost more than writing it.
//! While a batch is written, the next arrives; the network waits when the disk is slower.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use lifecycle::{Ignore as _, blocking};
use tokio::sync::mpsc;

use super::download::{DownloadError, Downloaded, Downloader};
use crate::progress::{Audience, Progress};

/// Maximum files in a batch.
const FILES: usize = 32;
/// Maximum bytes in a batch.
const BYTES: usize = 256 * 1024;

/// Downloads these files of the manifest into the staging tree.
pub(crate) async fn download_all(
    downloader: Downloader<'_>,
    files: &[usize],
    concurrency: usize,
    audience: Audience,
) -> Result<(), DownloadError> {
    let Downloader { staging, manifest, metrics, .. } = downloader;
    let total = files.len();
    tracing::info!(release = %staging.id(), to_fetch = total, of = manifest.files.len(), "staging");
    let mut arriving =
        stream::iter(files).map(|index| downloader.fetch(*index)).buffer_unordered(concurrency);
    let (full, mut batches) = mpsc::channel(1);
    let gather = async move {
        let mut batch = WriteBatch::default();
        while let Some(arrived) = arriving.try_next().await? {
            batch.add(arrived);
            // A closed channel means that writing has failed, and that error is the one to return.
            if batch.is_full() && full.send(std::mem::take(&mut batch)).await.is_err() {
                break;
            }
        }
        // Closed for the same reason.
        full.send(batch).await.ignore();
        Ok::<_, DownloadError>(())
    };
    let write = async {
        let mut progress = Progress::begin(audience, total);
        while let Some(WriteBatch { files, .. }) = batches.recv().await {
            let count = files.len();
            let bytes = files.iter().map(|arrived: &Downloaded| manifest.files[arrived.index()].size).sum();
            metrics.fetched(count, bytes);
            let (into, promised) = (Arc::clone(staging), Arc::clone(manifest));
            blocking(move || files.into_iter().try_for_each(|arrived| arrived.finish(&into, &promised)))
                .await?;
            progress.fetched(count, staging.id());
        }
        Ok(())
    };
    tokio::try_join!(gather, write).map(|_| ())
}

/// Files that have arrived and wait to be written.
#[derive(Default)]
struct WriteBatch {
    files: Vec<Downloaded>,
    bytes: usize,
}

impl WriteBatch {
    fn add(&mut self, arrived: Downloaded) {
        self.bytes += arrived.in_memory();
        self.files.push(arrived);
    }

    fn is_full(&self) -> bool {
        self.files.len() >= FILES || self.bytes >= BYTES
    }
}
