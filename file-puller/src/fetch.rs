//! One file from the content manager into the staging tree, hashed on the way.

use std::sync::Arc;

use bytes::Bytes;

use crate::failure::SyncError;
use crate::manifest::{Manifest, ManifestFile};
use crate::source::{Body, Freshness, Source, SourceError};
use crate::stage::{Draft, Mismatch, SealError, Staging};
use crate::volume::on_disk;

/// Bytes gathered before they are handed to a thread that writes: most files then take one hand-over, and four downloads
/// at a time hold a megabyte between them.
const BATCH: usize = 256 * 1024;

/// Fetches one file of the release.
///
/// # Errors
/// Where it cannot be fetched or written, or is not the file that the manifest promises.
pub async fn fetch(
    source: &Source,
    staging: &Arc<Staging>,
    manifest: &Arc<Manifest>,
    index: usize,
    freshness: Freshness,
) -> Result<(), SyncError> {
    let file = &manifest.files[index];
    let mut body = open(source, file, freshness).await?;
    let mut batch = Vec::new();
    let mut gathered = 0;
    let mut received: u64 = 0;
    let mut draft = None;
    while let Some(chunk) = body.chunk().await? {
        received += chunk.len() as u64;
        if received > file.size {
            // An endless body must not fill the volume.
            return Err(mismatch(file, format!("more than its {} bytes", file.size)).into());
        }
        gathered += chunk.len();
        batch.push(chunk);
        if gathered >= BATCH {
            draft = Some(write(staging, manifest, index, draft, std::mem::take(&mut batch)).await?);
            gathered = 0;
        }
    }
    let (staging, manifest) = (Arc::clone(staging), Arc::clone(manifest));
    let sealed = on_disk(move || {
        let file = &manifest.files[index];
        let mut draft = match draft {
            Some(draft) => draft,
            None => staging.draft(&file.path)?,
        };
        draft.append(&batch)?;
        draft.seal(file)
    });
    sealed.await.map_err(|error| match error {
        SealError::Mismatch(error) => error.into(),
        SealError::Volume(error) => error.into(),
    })
}

async fn open(source: &Source, file: &ManifestFile, freshness: Freshness) -> Result<Body, SyncError> {
    let body = match source.file(source.url().file(file)?, freshness).await {
        // What the manifest names and the source does not have is a promise that was not kept.
        Err(SourceError::Status { status, .. }) if matches!(status.as_u16(), 404 | 410) => {
            return Err(mismatch(file, format!("the source answers {status}")).into());
        }
        answer => answer?,
    };
    match body.announced() {
        Some(length) if length != file.size => {
            Err(mismatch(file, format!("{length} bytes instead of {}", file.size)).into())
        }
        _ => Ok(body),
    }
}

async fn write(
    staging: &Arc<Staging>,
    manifest: &Arc<Manifest>,
    index: usize,
    draft: Option<Draft>,
    batch: Vec<Bytes>,
) -> Result<Draft, SyncError> {
    let (staging, manifest) = (Arc::clone(staging), Arc::clone(manifest));
    let written = on_disk(move || {
        let mut draft = match draft {
            Some(draft) => draft,
            None => staging.draft(&manifest.files[index].path)?,
        };
        draft.append(&batch)?;
        Ok::<_, crate::volume::VolumeError>(draft)
    });
    Ok(written.await?)
}

fn mismatch(file: &ManifestFile, difference: String) -> Mismatch {
    Mismatch { path: file.path.clone(), difference }
}
