//! One file from the content manager into the staging tree: hashed on the way, and taken up again where a connection broke.
//!
//! A broken transfer is continued with `Range` and `If-Range` (RFC 9110, sections 13.1.5 and 14), so that a large file gets
//! through a bad network and each byte is sent about once. That needs a strong entity tag: without one nobody can say that
//! the rest belongs to the same content, and the sync is left to be tried again as a whole.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lifecycle::blocking;

use crate::content::{Manifest, ManifestFile};
use crate::metrics::{Metrics, Retry};
use crate::source::url::OutsideBase;
use crate::source::{Body, Continuation, EntityTag, Freshness, Source, SourceError};
use crate::store::{FinishError, Mismatch, StagedFile, Staging, VolumeError};

/// Bytes gathered before they are handed to a thread that writes: most files then take one hand-over, and four downloads
/// at a time hold a megabyte between them.
const BATCH: usize = 256 * 1024;
/// Breaks in a row after which a file is given up. One that brought bytes of its own begins the count anew.
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
    /// The volume refused.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

/// What all files of a release are fetched with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Downloader<'f> {
    /// Where from.
    pub(crate) source: &'f Source,
    /// Where to.
    pub(crate) staging: &'f Arc<Staging>,
    /// What the files have to be.
    pub(crate) manifest: &'f Arc<Manifest>,
    /// Whether caches on the way may answer.
    pub(crate) freshness: Freshness,
    /// Where it is counted.
    pub(crate) metrics: &'f Metrics,
}

/// A file whose bytes are all here; whether they are the right ones is not known yet.
#[derive(Debug)]
pub(crate) struct Downloaded {
    index: usize,
    draft: Option<StagedFile>,
    batch: Vec<Bytes>,
    batched: usize,
}

/// A file that is on its way.
struct Download<'f> {
    fetcher: Downloader<'f>,
    index: usize,
    /// Written so far.
    draft: Option<StagedFile>,
    /// Received after that.
    batch: Vec<Bytes>,
    batched: usize,
    /// Both together.
    received: u64,
}

impl Downloader<'_> {
    /// Fetches one file of the release.
    pub(crate) async fn fetch(self, index: usize) -> Result<Downloaded, DownloadError> {
        let transfer =
            Download { fetcher: self, index, draft: None, batch: Vec::new(), batched: 0, received: 0 };
        transfer.run().await
    }
}

impl Downloaded {
    /// Which file of the manifest.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Its bytes that are not written yet.
    pub(crate) fn in_memory(&self) -> usize {
        self.batched
    }

    /// Makes it a file of the release.
    pub(crate) fn finish(self, staging: &Staging, manifest: &Manifest) -> Result<(), DownloadError> {
        let file = &manifest.files[self.index];
        let mut draft = or_begin(self.draft, staging, file)?;
        draft.append(&self.batch)?;
        draft.finish_verified(file).map_err(|error| match error {
            FinishError::Mismatch(error) => error.into(),
            FinishError::Volume(error) => error.into(),
        })
    }
}

impl Download<'_> {
    async fn run(mut self) -> Result<Downloaded, DownloadError> {
        let mut body = self.request_whole().await?;
        let mut breaks = 0;
        loop {
            let before = self.received;
            let broke = match self.receive(&mut body).await {
                Ok(()) => {
                    let Self { index, draft, batch, batched, .. } = self;
                    return Ok(Downloaded { index, draft, batch, batched });
                }
                Err(DownloadError::Source(broke @ SourceError::Unreachable { .. })) => broke,
                Err(error) => return Err(error),
            };
            breaks = if self.received > before { 1 } else { breaks + 1 };
            let Some(tag) = body.entity_tag().filter(|_| breaks < MAX_RETRIES) else {
                return Err(broke.into());
            };
            tracing::debug!(path = %self.file().path, at = self.received, error = %broke, "taking the transfer up again");
            self.fetcher.metrics.retried(Retry::File);
            body = self.resume(tag, body, &mut breaks).await?;
        }
    }

    fn file(&self) -> &ManifestFile {
        &self.fetcher.manifest.files[self.index]
    }

    /// Asks for the file from its beginning.
    async fn request_whole(&self) -> Result<Body, DownloadError> {
        let source = self.fetcher.source;
        match source.file(source.url().file(self.file())?, self.fetcher.freshness).await {
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
            tokio::time::sleep(PAUSE * 2_u32.pow(*breaks - 1)).await;
            match self.fetcher.source.rest_of_file(broken.url(), &tag, self.received).await {
                Ok(Continuation::Rest(body)) => return Ok(body),
                Ok(Continuation::Whole(body)) => {
                    // Other content by now, or a server that knows no ranges: what was received is of no use.
                    self.start_over().await?;
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
                self.write().await?;
            }
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<(), DownloadError> {
        let (staging, manifest) = (Arc::clone(self.fetcher.staging), Arc::clone(self.fetcher.manifest));
        let (draft, batch, index) = (self.draft.take(), std::mem::take(&mut self.batch), self.index);
        self.batched = 0;
        let written = blocking(move || {
            let mut draft = or_begin(draft, &staging, &manifest.files[index])?;
            draft.append(&batch)?;
            Ok::<_, VolumeError>(draft)
        });
        self.draft = Some(written.await?);
        Ok(())
    }

    async fn start_over(&mut self) -> Result<(), DownloadError> {
        self.batch.clear();
        (self.batched, self.received) = (0, 0);
        if let Some(draft) = self.draft.take() {
            self.draft = Some(blocking(move || draft.restart()).await?);
        }
        Ok(())
    }

    fn mismatch(&self, difference: String) -> Mismatch {
        Mismatch { path: self.file().path.clone(), difference }
    }
}

fn or_begin(
    draft: Option<StagedFile>,
    staging: &Staging,
    file: &ManifestFile,
) -> Result<StagedFile, VolumeError> {
    draft.map_or_else(|| staging.create_file(&file.path), Ok)
}
