//! The loop: sync, tell, wait for a reason to sync again. And how it ends.
//!
//! When the process is told to stop, a sync that somebody waits for is finished and answered. Any other work is dropped where it
//! is: that is as good as a crash, and a crash is harmless.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::requests::{SyncReply, SyncRequests, Waiters};
use super::status::Status;
use super::touch::TouchFile;
use super::webhook::Webhook;
use crate::metrics::Metrics;
use crate::sync::{EngineHandle, Outcome, Revision, SyncError, Verdict};

/// Keeps one volume in step for as long as the process runs.
pub(crate) struct Scheduler {
    engine: EngineHandle,
    requests: SyncRequests,
    hangup: Arc<Notify>,
    backoff: Backoff,
    /// `None`: never.
    verify_period: Option<Duration>,
    next_verification: Option<Instant>,
    /// The published release was found to be gone, so the next sync that publishes is a repair.
    is_lost: bool,
    observers: Observers,
}

/// Where it is told how a sync ended.
pub(crate) struct Observers {
    pub(crate) webhook: Option<Webhook>,
    pub(crate) touch_file: Option<TouchFile>,
    /// Whether the file was touched by this process.
    pub(crate) touched: bool,
    pub(crate) status: Arc<Status>,
    pub(crate) metrics: Metrics,
}

impl Scheduler {
    pub(crate) fn new(
        engine: EngineHandle,
        requests: SyncRequests,
        hangup: Arc<Notify>,
        backoff: Backoff,
        verify_period: Option<Duration>,
        observers: Observers,
    ) -> Self {
        let next_verification = verify_period.map(|period| Instant::now() + period);
        Self {
            engine,
            requests,
            hangup,
            backoff,
            verify_period,
            next_verification,
            is_lost: false,
            observers,
        }
    }

    /// Syncs whenever there is a reason to, until `shutdown`. A failed sync never ends it.
    pub(crate) async fn run(&mut self, shutdown: &CancellationToken) {
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
            self.engine.upkeep();
            let next = self.wait_for_next(pause);
            let Some(asked) = shutdown.run_until_cancelled(next).await else { return };
            waiting = asked;
        }
    }

    /// Ends the engine, and waits until it has ended.
    pub(crate) async fn end(self) {
        self.engine.end().await;
    }

    /// Syncs, says how it went, and returns when to sync again.
    async fn sync(&mut self) -> (Result<Outcome, SyncError>, Duration) {
        let started = Instant::now();
        let outcome = self.engine.sync().await;
        let took = started.elapsed();
        self.observers.metrics.sync_finished(SyncError::label(&outcome), took);
        self.observers.status.sync_finished(&outcome, took);
        let revision = self.engine.revision();
        if let (Ok(_), Some(revision)) = (&outcome, &revision) {
            self.observers.metrics.follows(revision.parts());
            self.observers.status.follows(revision);
        }
        let pause = match &outcome {
            Ok(_) => self.backoff.after_success(),
            Err(error) if error.is_held_back() => self.backoff.after_refusal(),
            Err(error) => self.backoff.after_failure(error.retry_after()),
        };
        match &outcome {
            Ok(outcome) => log_outcome(outcome, revision.as_ref(), took),
            Err(error) => log_failure(error, &self.backoff, pause),
        }
        if let Ok(outcome) = &outcome {
            if let Some(webhook) = &self.observers.webhook {
                webhook.announce(outcome.release());
            }
            let was_lost = std::mem::take(&mut self.is_lost);
            if let (true, Outcome::Published(publication)) = (was_lost, outcome) {
                self.observers.metrics.repaired(publication.files);
            }
        }
        // The first sync counts as news: whoever looks at the file may be new, too.
        let Observers { touch_file, touched, status, .. } = &mut self.observers;
        let is_news = matches!(outcome, Ok(Outcome::Published(_))) || (outcome.is_ok() && !*touched);
        if let (Some(file), true) = (touch_file, is_news) {
            file.touch();
            *touched = true;
        }
        status.waiting(pause, self.backoff.failures());
        (outcome, pause)
    }

    /// Waits until the next sync is due or requested, and verifies meanwhile. Returns the clients that wait for the sync.
    async fn wait_for_next(&mut self, pause: Duration) -> Waiters {
        let next_sync = Instant::now() + pause;
        loop {
            let is_due = due(self.next_verification);
            tokio::select! {
                waiters = reason_to_sync(next_sync, &self.hangup, &mut self.requests) => return waiters,
                () = is_due => {}
            }
            // Dropping the guard, whatever the reason, tells the engine to stop reading.
            let stop = CancellationToken::new();
            let guard = stop.clone().drop_guard();
            let (verdict, waiters) = {
                let mut verification = pin!(self.engine.verify(stop));
                tokio::select! {
                    verdict = &mut verification => (verdict, None),
                    waiters = reason_to_sync(next_sync, &self.hangup, &mut self.requests) => {
                        drop(guard);
                        (verification.await, Some(waiters))
                    }
                }
            };
            self.next_verification = match verdict {
                Ok(Verdict::Interrupted) => Some(Instant::now()),
                _ => self.verify_period.map(|period| Instant::now() + period),
            };
            self.verified(&verdict);
            match waiters {
                Some(waiters) => return waiters,
                None if self.is_lost => return Waiters::default(),
                None => {}
            }
        }
    }

    fn reply(&self, outcome: &Result<Outcome, SyncError>) -> SyncReply {
        SyncReply {
            status: outcome.as_ref().map_or_else(SyncError::status, |_| StatusCode::OK),
            body: self.observers.status.describe(outcome),
        }
    }

    /// Says what a verification has found.
    fn verified(&mut self, verdict: &Result<Verdict, SyncError>) {
        match verdict {
            Ok(Verdict::Sound) => tracing::debug!("the published release is sound"),
            Ok(Verdict::Interrupted) => tracing::debug!("a sync is more urgent than the verification"),
            Ok(Verdict::Repaired(files)) => {
                self.observers.metrics.repaired(*files);
                tracing::info!(files, "repaired");
            }
            Ok(Verdict::Lost) => {
                self.is_lost = true;
                tracing::warn!("the published release is gone from the volume, pulling it again");
            }
            Err(error) => tracing::warn!(%error, "cannot repair; the next sync tries again"),
        }
    }
}

/// Waits until a sync is due or requested.
async fn reason_to_sync(at: Instant, hangup: &Notify, requests: &mut SyncRequests) -> Waiters {
    tokio::select! {
        () = sleep_until(at) => Waiters::default(),
        () = hangup.notified() => Waiters::default(),
        waiters = requests.next() => waiters,
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
pub(crate) fn log_outcome(outcome: &Outcome, revision: Option<&Revision>, took: Duration) {
    let seconds = took.as_secs_f64();
    let named = |kind| revision.map(Revision::parts).filter(|(is, _)| *is == kind).map(|(_, name)| name);
    let (commit, digest) = (named("commit"), named("digest"));
    match outcome {
        Outcome::Published(publication) => tracing::info!(
            release = %publication.release,
            commit,
            digest,
            files = publication.files,
            bytes = publication.bytes,
            fetched_files = publication.fetched_files,
            fetched_bytes = publication.fetched_bytes,
            seconds,
            "published"
        ),
        Outcome::Unchanged(release) => tracing::debug!(%release, commit, digest, seconds, "in step"),
    }
}

fn log_failure(error: &SyncError, backoff: &Backoff, pause: Duration) {
    let pause = Duration::from_millis(pause.as_millis().try_into().unwrap_or(u64::MAX));
    let retry_in = humantime::format_duration(pause);
    tracing::warn!(%error, reason = error.reason(), failures = backoff.failures(), %retry_in, "sync failed");
}
