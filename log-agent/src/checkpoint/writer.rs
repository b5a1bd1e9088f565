//! Writes checkpoints off the event loop, because a disk may take its time to sync.

use std::io;
use std::pin::Pin;
use std::time::{SystemTime, UNIX_EPOCH};

use lifecycle::blocking;
use tokio::time::{Instant, timeout_at};

use super::{FileEntry, StateDir};
use crate::metrics::Metrics;

type Writing = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// Writes one checkpoint at a time.
pub(crate) struct CheckpointWriter {
    state: StateDir,
    metrics: Metrics,
    writing: Option<Writing>,
    /// The last failure, so that the same one is logged once.
    failure: Option<String>,
}

impl CheckpointWriter {
    pub(crate) fn new(state: StateDir, metrics: Metrics) -> Self {
        Self { state, metrics, writing: None, failure: None }
    }

    /// Begins to write, once [`CheckpointWriter::written`] has told of the one before.
    pub(crate) fn write(&mut self, files: Vec<FileEntry>) {
        let pending = self.state.prepare(files);
        self.writing = Some(Box::pin(blocking(move || pending.write())));
    }

    /// Waits until one was written, and says whether it is on the disk; without end where none is being written.
    pub(crate) async fn written(&mut self) -> bool {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let outcome = writing.await;
        self.writing = None;
        self.ended(outcome)
    }

    /// Writes, and waits until it is on the disk, but not for a disk that does not answer in time.
    pub(crate) async fn write_by(&mut self, until: Instant, files: Vec<FileEntry>) {
        let written = timeout_at(until, async {
            if self.writing.is_some() {
                self.written().await;
            }
            self.write(files);
            self.written().await;
        });
        if written.await.is_err() {
            self.failure = Some("the disk did not answer in time".to_owned());
        }
    }

    /// Whether the last write failed, and why.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    fn ended(&mut self, outcome: io::Result<()>) -> bool {
        let Err(error) = outcome else {
            self.metrics.checkpoints.inc();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.metrics.checkpoint_time.set(now.as_secs_f64());
            if self.failure.take().is_some() {
                tracing::info!("checkpoints are written again");
            }
            return true;
        };
        let error = error.to_string();
        self.metrics.checkpoint_failures.inc();
        if self.failure.as_ref() != Some(&error) {
            tracing::warn!(
                error,
                "cannot write the checkpoint: shipping goes on, a restart now would send again what came since the last one"
            );
        }
        self.failure = Some(error);
        false
    }
}
