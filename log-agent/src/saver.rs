//! When a checkpoint is written: at most `--checkpoint-period` after something was confirmed, never when nothing was, and off the
//! event loop, because a disk may take its time to sync.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::checkpoint::{FileEntry, StateDir};
use crate::metrics::Metrics;

/// Writes checkpoints.
#[derive(Debug)]
pub struct Saver {
    state: StateDir,
    /// How old what is on the disk may be.
    period: Duration,
    metrics: Metrics,
    due: Option<Instant>,
    writing: Option<JoinHandle<io::Result<()>>>,
    /// The last failure, so that the same one is said once.
    failure: Option<String>,
}

/// What the saver asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Something was confirmed a while ago: call [`Saver::save`].
    Save,
    /// A write has ended; nothing to do.
    Nothing,
}

impl Saver {
    /// Into this directory.
    pub fn new(state: StateDir, period: Duration, metrics: Metrics) -> Self {
        Self { state, period, metrics, due: None, writing: None, failure: None }
    }

    /// Something has changed that a restart should know.
    pub fn changed(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + self.period);
    }

    /// Waits until there is something to do; for ever where nothing has changed.
    pub async fn wish(&mut self) -> Wish {
        if let Some(writing) = &mut self.writing {
            let outcome = writing.await;
            self.writing = None;
            self.ended(outcome);
            return Wish::Nothing;
        }
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
        Wish::Save
    }

    /// Begins to write.
    pub fn save(&mut self, files: Vec<FileEntry>) {
        self.due = None;
        let pending = self.state.prepare(files);
        self.writing = Some(tokio::task::spawn_blocking(move || pending.write()));
    }

    /// Writes, and waits until it is on the disk, but not for a disk that does not answer in time.
    pub async fn save_by(&mut self, until: Instant, files: Vec<FileEntry>) {
        let written = timeout_at(until, async {
            if self.writing.is_some() {
                self.wish().await;
            }
            self.save(files);
            self.wish().await;
        });
        if written.await.is_err() {
            self.failure = Some("the disk did not answer in time".to_owned());
        }
    }

    /// Whether the last write failed, and why.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    fn ended(&mut self, outcome: Result<io::Result<()>, JoinError>) {
        let error = match outcome {
            Ok(Ok(())) => {
                self.metrics.checkpoints.inc();
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.metrics.checkpoint_time.set(now.as_secs_f64());
                if self.failure.take().is_some() {
                    tracing::info!("checkpoints are written again");
                }
                return;
            }
            Ok(Err(error)) => error.to_string(),
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
