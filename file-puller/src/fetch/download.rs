//! One file from the content manager: taken up again where a connection broke, and handed on in pieces to be written.
//!
//! A broken transfer is continued with `Range` and `If-Range` (RFC 9110, sections 13.1.5 and 14), so that a large file gets
//! through a bad network and each byte is sent about once. That needs a strong entity tag: without one nothing says that
//! the rest belongs to the same content, and the sync is left to be tried again as a whole.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::sink::{Sink, Step};
use crate::content::{Manifest, ManifestFile};
use crate::metrics::{Metrics, Retry};
use crate::source::url::OutsideBase;
use crate::source::{Body, Continuation, EntityTag, Freshness, Source, SourceError};
use crate::store::{Mismatch, VolumeError};

/// Bytes gathered before they are handed to the thread that writes: most files then take one hand-over.
const BATCH: usize = 256 * 1024;
/// Breaks in a row after which a file is given up. One that brought bytes of its own restarts the count.
const MAX_RETRIES: u32 = 4;
/// The wait before a transfer is taken up again, doubled with each break in a row.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a file could not be downloaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    /// The content manager did not send it.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Its URL is not one of this source.
    #[error(transparent)]
    OutsideBase(#[from] OutsideBase),
    /// It is another file than the manifest promises.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

/// What all files of a release are fetched with.
#[derive(Debug)]
pub(crate) struct Downloader {
    pub(crate) source: Arc<Source>,
    /// What the files have to be.
    pub(crate) manifest: Arc<Manifest>,
    /// Whether caches on the way may answer.
    pub(crate) freshness: Freshness,
    pub(crate) metrics: Metrics,
}

/// A file that is on its way.
pub(super) struct Download {
    downloader: Arc<Downloader>,
    index: usize,
    sink: Sink,
    /// Received and not handed over yet.
    batch: Vec<Bytes>,
    batched: usize,
    received: u64,
}

impl Download {
    pub(super) fn new(downloader: Arc<Downloader>, index: usize, sink: Sink) -> Self {
        Self { downloader, index, sink, batch: Vec::new(), batched: 0, received: 0 }
    }

    /// Fetches the file, and hands over the last of it.
    pub(super) async fn run(mut self) -> Result<(), DownloadError> {
        let mut body = self.request_whole().await?;
        let mut breaks = 0;
        loop {
            let before = self.received;
            let broke = match self.receive(&mut body).await {
                Ok(()) => return self.hand_over(Step::Finish).await,
                Err(DownloadError::Source(broke @ SourceError::Unreachable { .. })) => broke,
                Err(error) => return Err(error),
            };
            breaks = if self.received > before { 1 } else { breaks + 1 };
            let Some(tag) = body.entity_tag().filter(|_| breaks < MAX_RETRIES) else {
                return Err(broke.into());
            };
            tracing::debug!(path = %self.file().path, at = self.received, error = %broke, "resuming the transfer");
            self.downloader.metrics.retried(Retry::File);
            body = self.resume(tag, body, &mut breaks).await?;
        }
    }

    fn file(&self) -> &ManifestFile {
        &self.downloader.manifest.files[self.index]
    }

    /// Asks for the file from its beginning.
    async fn request_whole(&self) -> Result<Body, DownloadError> {
        let source = &self.downloader.source;
        match source.file(source.base().file(self.file())?, self.downloader.freshness).await {
            Ok(body) => self.check_whole(body),
            // What the manifest names and the source does not have is a promise that was not kept.
            Err(SourceError::Status { status, .. }) if matches!(status.as_u16(), 404 | 410) => {
                Err(self.mismatch(format!("the source answers {status}")).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Asks for what is missing, until it is there or there were too many breaks in a row.
    async fn resume(
        &mut self,
        tag: EntityTag,
        broken: Body,
        breaks: &mut u32,
    ) -> Result<Body, DownloadError> {
        loop {
            // Without jitter: these are breaks of one connection, not an outage that many pullers see at once.
            tokio::time::sleep(PAUSE * 2_u32.pow(*breaks - 1)).await;
            match self.downloader.source.rest_of_file(broken.url(), &tag, self.received).await {
                Ok(Continuation::Rest(body)) => return Ok(body),
                Ok(Continuation::Whole(body)) => {
                    // Other content by now, or a server that knows no ranges: what was received is of no use.
                    self.batch.clear();
                    self.received = 0;
                    self.hand_over(Step::Restart).await?;
                    return self.check_whole(body);
                }
                Err(error @ SourceError::Unreachable { .. }) => {
                    *breaks += 1;
                    if *breaks >= MAX_RETRIES {
                        return Err(error.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn check_whole(&self, body: Body) -> Result<Body, DownloadError> {
        match body.announced() {
            Some(length) if length != self.file().size => {
                Err(self.mismatch(format!("{length} bytes instead of {}", self.file().size)).into())
            }
            _ => Ok(body),
        }
    }

    /// Takes in what the connection brings, to its end.
    async fn receive(&mut self, body: &mut Body) -> Result<(), DownloadError> {
        while let Some(chunk) = body.chunk().await? {
            self.received += chunk.len() as u64;
            if self.received > self.file().size {
                // An endless body must not fill the volume.
                return Err(self.mismatch(format!("more than its {} bytes", self.file().size)).into());
            }
            self.batched += chunk.len();
            self.batch.push(chunk);
            if self.batched >= BATCH {
                self.hand_over(Step::Continue).await?;
            }
        }
        Ok(())
    }

    /// Waits until the thread that writes has room for the batch. No timer of the source runs meanwhile.
    async fn hand_over(&mut self, step: Step) -> Result<(), DownloadError> {
        let (batch, batched) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.batched));
        Ok(self.sink.send(self.index, batch, batched, step).await?)
    }

    fn mismatch(&self, difference: String) -> Mismatch {
        Mismatch { path: self.file().path.clone(), difference }
    }
}
