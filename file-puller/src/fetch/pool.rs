//! Many files at a time: tasks that download one after the other, and one thread that writes what they bring.
//!
//! A task is polled whenever its connection has something to say, whatever the disk does: a read timeout means that the source is
//! silent, never that the volume is slow. What a task has received and the disk has not taken yet is bounded, so the network
//! waits when the disk is slower.

use std::collections::HashMap;
use std::sync::Arc;
use std::vec;

use lifecycle::blocking;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::download::{Download, DownloadError, Downloader};
use super::sink::{Piece, Sink, Step};
use crate::content::Manifest;
use crate::metrics::Metrics;
use crate::progress::Progress;
use crate::store::{StagedFile, Staging, VolumeError};

/// Downloads these files of the manifest, each of other content than the others, to their places in the staged tree.
pub(crate) async fn download_all(
    downloader: Downloader,
    staging: &Arc<Staging>,
    files: &[usize],
    concurrency: usize,
    progress: Progress,
) -> Result<(), DownloadError> {
    let (sink, waiting) = Sink::new();
    let writer = Writer {
        staging: Arc::clone(staging),
        manifest: Arc::clone(&downloader.manifest),
        metrics: downloader.metrics.clone(),
        progress,
        open: HashMap::new(),
    };
    let write = blocking(move || writer.run(waiting));
    // Both to their end, because each ends when the other does: what fails on the volume is the cause of what it stopped.
    let (fetched, written) = tokio::join!(fetch_all(downloader, files, concurrency, sink), write);
    written?;
    fetched
}

/// Fetches these files, so many at a time, and hands on what they bring.
pub(super) async fn fetch_all(
    downloader: Downloader,
    files: &[usize],
    concurrency: usize,
    sink: Sink,
) -> Result<(), DownloadError> {
    let downloader = Arc::new(downloader);
    let files = Arc::new(Mutex::new(Vec::from(files).into_iter()));
    let mut tasks = JoinSet::new();
    for _ in 0..concurrency.min(files.lock().len()) {
        tasks.spawn(download_each(Arc::clone(&downloader), Arc::clone(&files), sink.clone()));
    }
    // The receiving end ends with the last task.
    drop(sink);
    while let Some(ended) = tasks.join_next().await {
        // A panic ends the process, and no task is cancelled while it is waited for.
        ended.map_err(|_| VolumeError::given_up())??;
    }
    Ok(())
}

/// Downloads what is left, one file after the other.
async fn download_each(
    downloader: Arc<Downloader>,
    files: Arc<Mutex<vec::IntoIter<usize>>>,
    sink: Sink,
) -> Result<(), DownloadError> {
    loop {
        let Some(index) = files.lock().next() else { return Ok(()) };
        Download::new(Arc::clone(&downloader), index, sink.clone()).run().await?;
    }
}

/// The thread that writes.
struct Writer {
    staging: Arc<Staging>,
    manifest: Arc<Manifest>,
    metrics: Metrics,
    progress: Progress,
    /// The files that are not complete.
    open: HashMap<usize, StagedFile>,
}

impl Writer {
    fn run(mut self, mut pieces: mpsc::Receiver<Piece>) -> Result<(), DownloadError> {
        while let Some(piece) = pieces.blocking_recv() {
            self.write(&piece)?;
        }
        Ok(())
    }

    fn write(&mut self, piece: &Piece) -> Result<(), DownloadError> {
        let promised = &self.manifest.files[piece.index];
        let mut file = match self.open.remove(&piece.index) {
            Some(file) => file,
            None => StagedFile::create(&self.staging, promised)?,
        };
        file.append(&piece.batch)?;
        match piece.step {
            Step::Finish => {
                file.finish_verified(promised)??;
                self.metrics.fetched(1, promised.size);
                self.progress.fetched();
                return Ok(());
            }
            Step::Restart => file.restart()?,
            Step::Continue => {}
        }
        self.open.insert(piece.index, file);
        Ok(())
    }
}
