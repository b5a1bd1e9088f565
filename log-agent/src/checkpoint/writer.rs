//! When a checkpoint is written: at most `--checkpoint-period` after something was confirmed, never when nothing was, and off the
//! event loop, because a disk may take its time to sync.

use std::io;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lifecycle::blocking;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{FileEntry, StateDir};
use crate::metrics::Metrics;

type Writing = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// Writes checkpoints.
pub(crate) struct CheckpointWriter {
    state: StateDir,
    /// How old what is on the disk may be.
    period: Duration,
    metrics: Metrics,
    due: Option<Instant>,
    writing: Option<Writing>,
    /// The last failure, so that the same one is said once.
    failure: Option<String>,
}

/// What the saver asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriterEvent {
    /// Something was confirmed a while ago: call [`CheckpointWriter::save`].
    Due,
    /// A write has ended; nothing to do.
    Written,
}

impl CheckpointWriter {
    /// Into this directory.
    pub(crate) fn new(state: StateDir, period: Duration, metrics: Metrics) -> Self {
        Self { state, period, metrics, due: None, writing: None, failure: None }
    }

    /// Something has changed that a restart should know.
    pub(crate) fn changed(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + self.period);
    }

    /// Waits until there is something to do; for ever where nothing has changed.
    pub(crate) async fn next_event(&mut self) -> WriterEvent {
        if let Some(writing) = &mut self.writing {
            let outcome = writing.await;
            self.writing = None;
            self.ended(outcome);
            return WriterEvent::Written;
        }
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
        WriterEvent::Due
    }

    /// Begins to write.
    pub(crate) fn save(&mut self, files: Vec<FileEntry>) {
        self.due = None;
        let pending = self.state.prepare(files);
        self.writing = Some(Box::pin(blocking(move || pending.write())));
    }

    /// Writes, and waits until it is on the disk, but not for a disk that does not answer in time.
    pub(crate) async fn save_by(&mut self, until: Instant, files: Vec<FileEntry>) {
        let written = timeout_at(until, async {
            if self.writing.is_some() {
                self.next_event().await;
            }
            self.save(files);
            self.next_event().await;
        });
        if written.await.is_err() {
            self.failure = Some("the disk did not answer in time".to_owned());
        }
    }

    /// Whether the last write failed, and why.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    fn ended(&mut self, outcome: io::Result<()>) {
        let error = match outcome {
            Ok(()) => {
                self.metrics.checkpoints.inc();
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.metrics.checkpoint_time.set(now.as_secs_f64());
                if self.failure.take().is_some() {
                    tracing::info!("checkpoints are written again");
                }
                return;
            }
            Err(error) => error.to_string(),
        };
        self.metrics.checkpoint_failures.inc();
        if self.failure.as_ref() != Some(&error) {
            tracing::warn!(
                error,
                "cannot write the checkpoint: shipping goes on, a restart now would send again what came since the last one"
            );
        }
        self.failure = Some(error);
        // Tried again at the usual pace.
        self.changed();
    }
}
