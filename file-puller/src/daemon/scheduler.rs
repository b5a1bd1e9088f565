//! The loop: sync, tell, wait for a reason to sync again. And how it ends.
//!
//! When the process is told to stop, a sync that a caller waits for is finished and answered. Any other work is dropped where it
//! is: that is as good as a crash, and a crash is harmless.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::cuts::Cuts;
use super::requests::{SyncReply, SyncRequests, Waiters};
use super::status::Status;
use super::touch::TouchFile;
use super::webhook::Webhook;
use crate::crash_point::lacks;
use crate::metrics::Metrics;
use crate::sync::{Awaited, EngineHandle, Interrupt, Outcome, Revision, SyncError, Verdict};

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
    cuts: Cuts,
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
            cuts: Cuts::default(),
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
            let next = self.next_reason(outcome.is_ok(), pause);
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
        let (outcome, revision) = self.engine.sync().await;
        let pause = self.finished(&outcome, revision.as_ref(), started.elapsed());
        (outcome, pause)
    }

    /// Says how a sync went, and returns when to sync again.
    fn finished(
        &mut self,
        outcome: &Result<Outcome, SyncError>,
        revision: Option<&Revision>,
        took: Duration,
    ) -> Duration {
        let Observers { webhook, touch_file, touched, status, metrics } = &mut self.observers;
        metrics.sync_finished(SyncError::label(outcome), took);
        status.sync_finished(outcome, took);
        let pause = match outcome {
            Ok(outcome) => {
                if let Some(revision) = revision {
                    metrics.follows(revision.parts());
                    status.follows(revision);
                }
                log_outcome(outcome, revision, took);
                if let Some(webhook) = webhook {
                    webhook.announce(outcome.release());
                }
                let was_lost = std::mem::take(&mut self.is_lost);
                if let (true, Outcome::Published(publication)) = (was_lost, outcome) {
                    metrics.repaired(publication.files);
                }
                self.backoff.after_success()
            }
            Err(error) => {
                let pause = if error.is_held_back() || lacks("retries") {
                    self.backoff.after_refusal()
                } else {
                    self.backoff.after_failure(error.retry_after())
                };
                log_failure(error, &self.backoff, pause);
                pause
            }
        };
        // The first sync counts as news: the program that watches the file may be new, too.
        let is_news = matches!(outcome, Ok(Outcome::Published(_))) || (outcome.is_ok() && !*touched);
        if let (Some(file), true) = (touch_file, is_news) {
            file.touch();
            *touched = true;
        }
        status.waiting(pause, self.backoff.failures());
        pause
    }

    /// Waits for a reason to sync: a change, where the source can be asked to wait for one, or that it is time. Returns the clients
    /// that wait for the sync.
    async fn next_reason(&mut self, is_in_step: bool, pause: Duration) -> Waiters {
        if !is_in_step {
            self.cuts.forget();
        } else if self.engine.can_wait() && self.cuts.may_wait() {
            return self.wait_for_change(pause).await;
        }
        self.wait_for_next(pause).await
    }

    /// Has the source hold one question after the other until something has changed, and verifies in between. `pause` holds from when
    /// the source cannot be asked that way any more.
    async fn wait_for_change(&mut self, mut pause: Duration) -> Waiters {
        loop {
            let began = Instant::now();
            let (awaited, asked) = self.hold().await;
            let result = match awaited {
                Ok(Awaited::Changed) => return asked.unwrap_or_default(),
                Ok(Awaited::Unchanged(release)) => {
                    self.cuts.forget();
                    pause = self.finished(&Ok(Outcome::Unchanged(release)), None, Duration::ZERO);
                    self.engine.upkeep();
                    Ok(())
                }
                Ok(Awaited::Interrupted) => Ok(()),
                Ok(Awaited::Unable) => Err(pause),
                Ok(Awaited::Cut(error)) => {
                    self.cuts.cut(&error);
                    Err(self.backoff.after_cut())
                }
                Err(error) => Err(self.finished(&Err(error), None, began.elapsed())),
            };
            if let Some(asked) = asked {
                return asked;
            }
            if let Err(pause) = result {
                self.observers.status.waiting(pause, self.backoff.failures());
                return self.wait_for_next(pause).await;
            }
            if !self.engine.can_wait() {
                return self.wait_for_next(pause).await;
            }
            if self.next_verification.is_some_and(|at| at <= Instant::now())
                && let Some(reason) = self.verify_until(Instant::now() + pause).await
            {
                return reason;
            }
            // A source that says it waits and does not would be asked without end.
            let earliest = began + self.backoff.soon();
            if Instant::now() < earliest {
                tokio::select! {
                    () = sleep_until(earliest) => {}
                    asked = asked_for(&self.hangup, &mut self.requests) => return asked,
                }
            }
        }
    }

    /// Has the source hold a question until something has changed, a sync is requested, or it is time to verify. Returns how it
    /// ended, and who asked.
    async fn hold(&mut self) -> (Result<Awaited, SyncError>, Option<Waiters>) {
        let Observers { status, metrics, .. } = &self.observers;
        status.held(true);
        metrics.waiting(true);
        let stop = CancellationToken::new();
        let reason = async {
            tokio::select! {
                asked = asked_for(&self.hangup, &mut self.requests) => Some(asked),
                () = due(self.next_verification) => None,
            }
        };
        let (awaited, asked) = until(self.engine.await_change(stop.clone()), stop, reason).await;
        status.held(false);
        metrics.waiting(false);
        metrics.waited(match &awaited {
            Ok(Awaited::Changed) => "changed",
            Ok(Awaited::Unchanged(_)) => "unchanged",
            Ok(Awaited::Interrupted | Awaited::Unable) => "interrupted",
            Ok(Awaited::Cut(_)) => "cut",
            Err(_) => "failed",
        });
        (awaited, asked.flatten())
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
            if let Some(reason) = self.verify_until(next_sync).await {
                return reason;
            }
        }
    }

    /// Verifies, as long as no sync is due or requested. Returns who asked for the sync that is a reason to go on with.
    async fn verify_until(&mut self, next_sync: Instant) -> Option<Waiters> {
        let interrupt = Interrupt::new();
        let Interrupt { reading, repair } = interrupt.clone();
        let requested = async {
            tokio::select! {
                waiters = asked_for(&self.hangup, &mut self.requests) => return waiters,
                () = sleep_until(next_sync) => reading.cancel(),
            }
            asked_for(&self.hangup, &mut self.requests).await
        };
        let (verdict, waiters) = until(self.engine.verify(interrupt), repair, requested).await;
        self.next_verification = match verdict {
            Ok(Verdict::Interrupted) => Some(Instant::now()),
            _ => self.verify_period.map(|period| Instant::now() + period),
        };
        self.verified(&verdict);
        let is_due = self.is_lost || next_sync <= Instant::now();
        waiters.or_else(|| is_due.then(Waiters::default))
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

/// Waits until some work is done, and stops it when there is a reason to. Returns how it ended, and the reason. It is stopped too
/// where this is dropped.
async fn until<T, R>(
    work: impl Future<Output = T>,
    stop: CancellationToken,
    reason: impl Future<Output = R>,
) -> (T, Option<R>) {
    let guard = stop.drop_guard();
    let mut work = pin!(work);
    tokio::select! {
        done = &mut work => {
            guard.disarm();
            (done, None)
        }
        reason = reason => {
            drop(guard);
            (work.await, Some(reason))
        }
    }
}

/// Waits until a sync is due or requested.
async fn reason_to_sync(at: Instant, hangup: &Notify, requests: &mut SyncRequests) -> Waiters {
    tokio::select! {
        () = sleep_until(at) => Waiters::default(),
        waiters = asked_for(hangup, requests) => waiters,
    }
}

/// Waits until a sync is requested.
async fn asked_for(hangup: &Notify, requests: &mut SyncRequests) -> Waiters {
    tokio::select! {
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
