//! The loop: sync, tell, wait for a reason to sync again. And how it ends.
//!
//! When the process is told to stop, a sync that somebody waits for is finished and answered. Any other work is dropped where it
//! is: that is as good as a crash, and a crash is harmless.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::requests::{SyncReply, SyncRequests, Waiters};
use super::status::Status;
use super::webhook::Webhook;
use crate::metrics::Metrics;
use crate::sync::{Engine, Outcome, SyncError, Verdict};

/// Keeps one volume in step for as long as the process runs.
pub(crate) struct Scheduler {
    pub(crate) engine: Engine,
    pub(crate) requests: SyncRequests,
    pub(crate) hangup: Arc<Notify>,
    pub(crate) backoff: Backoff,
    /// `None`: never.
    pub(crate) verify_period: Option<Duration>,
    pub(crate) webhook: Option<Webhook>,
    pub(crate) status: Arc<Status>,
    pub(crate) metrics: Metrics,
}

impl Scheduler {
    /// Syncs whenever there is a reason to, until `shutdown`. A failed sync never ends it.
    pub(crate) async fn run(mut self, shutdown: &CancellationToken) {
        let mut next_verification = self.verification_due();
        let mut waiting = Waiters::default();
        loop {
            self.requests.drain_pending(&mut waiting);
            let (outcome, pause) = if waiting.is_empty() {
                let Some(synced) = shutdown.run_until_cancelled(self.sync()).await else { return };
                synced
            } else {
                self.sync().await
            };
            waiting.answer(&self.reply(&outcome));
            let rest = self.wait_for_next(pause, &mut next_verification);
            let Some(asked) = shutdown.run_until_cancelled(rest).await else { return };
            waiting = asked;
        }
    }

    /// Syncs, says how it went, and returns when to sync again.
    async fn sync(&mut self) -> (Result<Outcome, SyncError>, Duration) {
        let started = Instant::now();
        let outcome = self.engine.sync().await;
        let took = started.elapsed();
        self.metrics.sync_finished(SyncError::label(&outcome), took);
        self.status.sync_finished(&outcome, took);
        let pause = match &outcome {
            Ok(_) => self.backoff.after_success(),
            Err(error) => self.backoff.after_failure(error.retry_after()),
        };
        match &outcome {
            Ok(outcome) => log_outcome(outcome, took),
            Err(error) => log_failure(error, &self.backoff, pause),
        }
        if let (Some(webhook), Ok(outcome)) = (&self.webhook, &outcome) {
            webhook.announce(outcome.release());
        }
        self.status.waiting(pause, self.backoff.failures());
        (outcome, pause)
    }

    /// Does what can wait until a sync is answered, and then nothing until the next is due. Returns who asked for it.
    async fn wait_for_next(&mut self, pause: Duration, next_verification: &mut Option<Instant>) -> Waiters {
        let next_sync = Instant::now() + pause;
        self.engine.retain().await;
        self.engine.prepare_seed().await;
        loop {
            tokio::select! {
                () = sleep_until(next_sync) => return Waiters::default(),
                () = self.hangup.notified() => return Waiters::default(),
                waiters = self.requests.next() => return waiters,
                () = due(*next_verification) => {
                    self.verify().await;
                    *next_verification = self.verification_due();
                }
            }
        }
    }

    fn verification_due(&self) -> Option<Instant> {
        self.verify_period.map(|period| Instant::now() + period)
    }

    fn reply(&self, outcome: &Result<Outcome, SyncError>) -> SyncReply {
        SyncReply {
            status: outcome.as_ref().map_or_else(SyncError::status, |_| StatusCode::OK),
            body: self.status.describe(outcome),
        }
    }

    /// Looks at what is published; a release that is gone altogether is put together again at once.
    async fn verify(&mut self) {
        match self.engine.verify().await {
            Ok(Verdict::Sound) => tracing::debug!("the published release is sound"),
            Ok(Verdict::Repaired(files)) => {
                self.metrics.repaired(files);
                tracing::info!(files, "repaired");
            }
            Ok(Verdict::Lost) => {
                tracing::warn!("the published release is gone from the volume, pulling it again");
                if let Ok(Outcome::Published(publication)) = self.sync().await.0 {
                    self.metrics.repaired(publication.files);
                }
            }
            Err(error) => tracing::warn!(%error, "cannot repair; the next sync tries again"),
        }
    }
}

/// Never, where there is no such time.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Logs what a sync did.
pub(crate) fn log_outcome(outcome: &Outcome, took: Duration) {
    let seconds = took.as_secs_f64();
    match outcome {
        Outcome::Published(publication) => tracing::info!(
            release = %publication.release,
            files = publication.files,
            bytes = publication.bytes,
            fetched_files = publication.fetched_files,
            fetched_bytes = publication.fetched_bytes,
            seconds,
            "published"
        ),
        Outcome::Unchanged(release) => tracing::debug!(%release, seconds, "in step"),
    }
}

fn log_failure(error: &SyncError, backoff: &Backoff, pause: Duration) {
    let pause = Duration::from_millis(pause.as_millis().try_into().unwrap_or(u64::MAX));
    let retry_in = humantime::format_duration(pause);
    tracing::warn!(%error, reason = error.reason(), failures = backoff.failures(), %retry_in, "sync failed");
}
