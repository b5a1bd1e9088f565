//! Files that are fetched and held to their manifest, and not kept: what a fleet in one process does, which has no disk for
//! a thousand volumes.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::download::{DownloadError, Downloader};
use super::pool::fetch_all;
use super::sink::{Piece, Sink, Step};
use crate::content::{Digest, Manifest};
use crate::store::Mismatch;

/// Downloads these files of the manifest, and compares each with what was promised.
pub(crate) async fn check_all(
    downloader: Downloader,
    files: &[usize],
    concurrency: usize,
) -> Result<(), DownloadError> {
    let (sink, pieces) = Sink::new();
    let check = check(Arc::clone(&downloader.manifest), pieces);
    let (fetched, checked) = tokio::join!(fetch_all(downloader, files, concurrency, sink), check);
    checked?;
    fetched
}

async fn check(manifest: Arc<Manifest>, mut pieces: mpsc::Receiver<Piece>) -> Result<(), DownloadError> {
    let mut open: HashMap<usize, Sha256> = HashMap::new();
    while let Some(Piece { index, batch, step, .. }) = pieces.recv().await {
        let mut hasher = open.remove(&index).unwrap_or_default();
        for chunk in &batch {
            hasher.update(chunk);
        }
        match step {
            Step::Continue => drop(open.insert(index, hasher)),
            Step::Restart => {}
            Step::Finish => {
                let (found, promised) = (Digest::of(hasher), &manifest.files[index]);
                if found != promised.digest {
                    let difference = format!("SHA-256 {found} instead of {}", promised.digest);
                    return Err(Mismatch { path: promised.path.clone(), difference }.into());
                }
            }
        }
    }
    Ok(())
}
