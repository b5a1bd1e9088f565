//! file-puller keeps a volume in step with an external content manager, one immutable release at a time.
//!
//! The contract is in `docs/contract.md`; this is how it is kept, in the order in which content flows:
//!
//! - [`cli`], [`config`], [`location`]: what to follow, where to put it, within which limits
//! - [`source`], [`credentials`]: the content manager over HTTP, and who we are to it; [`client`], [`tls`] and [`body`] below them
//! - [`manifest`], [`path`], [`release`]: what it says, once it is checked; what a release is known by
//! - [`signature`]: whose word it is
//! - [`plan`]: what the volume has already, and what is new
//! - [`gate`]: whether it may replace what is served
//! - [`stage`], [`fetch`]: a release is put together where nobody sees it
//! - [`archive`], [`inflate`], [`feed`]: or it arrives in one piece, and is unpacked there
//! - [`publish`]: it becomes visible, in one step and for good
//! - [`retain`]: old releases go when nobody can need them any more
//! - [`verify`]: what was published is read again, and put right
//! - [`volume`]: the layout that all of these share, its lock, and what a crash leaves
//! - [`sync`]: one sync from beginning to end; [`failure`]: why it did not end well
//! - [`run`] (here): when to sync, with [`backoff`] and [`demand`]
//! - [`status`], [`metrics`], [`webhook`], [`progress`]: what the outside is told
//! - [`fault`]: for tests, every place where a crash could hurt
//! - [`scan`]: the content manager's side, `file-puller manifest DIR`

pub mod archive;
pub mod backoff;
pub mod body;
pub mod cli;
pub mod client;
pub mod config;
pub mod credentials;
pub mod demand;
pub mod failure;
pub mod fault;
pub mod feed;
pub mod fetch;
pub mod gate;
pub mod inflate;
pub mod location;
pub mod manifest;
pub mod metrics;
pub mod path;
pub mod plan;
pub mod progress;
pub mod publish;
pub mod release;
pub mod retain;
pub mod scan;
pub mod signature;
pub mod source;
pub mod stage;
pub mod status;
pub mod sync;
pub mod tls;
pub mod verify;
pub mod volume;
pub mod webhook;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use lifecycle::Container;
use lifecycle::admin::{self, Admin};
use lifecycle::exit::{Exit, Failure, OrExit as _};
use lifecycle::signals::Signals;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::backoff::Backoff;
use crate::config::Config;
use crate::demand::{Asked, Demand, Reply};
use crate::failure::SyncError;
use crate::metrics::Metrics;
use crate::source::Source;
use crate::status::Status;
use crate::sync::{Outcome, Syncer, Verdict};
use crate::tls::TlsPems;
use crate::volume::{Volume, on_disk};
use crate::webhook::Announcer;

/// Who this container is.
pub const CONTAINER: Container =
    Container { name: "file-puller", admin_port: 9878, version: env!("CARGO_PKG_VERSION") };

/// Keeps the volume in step until the signals say otherwise. A failed sync never ends it.
///
/// # Errors
/// Where the volume cannot be taken into use at the start.
pub async fn run(config: Config, admin: TcpListener, signals: Signals) -> Result<(), Failure> {
    let mut registry = admin::registry(&CONTAINER);
    let metrics = Metrics::new(&mut registry);
    let (asker, demand) = demand::channel();
    let (syncer, release, trust) = prepare(&config, metrics.clone()).await?;
    let options = &config.options;
    let volume = config.volume.display().to_string();
    let status = Arc::new(Status::new(config.source.clone(), volume, options.max_staleness, release));
    let report = Arc::clone(&status);
    let _admin = Admin::new(CONTAINER, report, registry, signals.shutdown.clone())
        .action("/sync", move || asker.clone().ask())
        .serve(admin);
    let new_backoff = || Backoff::new(options.period, options.max_backoff);
    let announcer = options.webhook.clone().map(|url| {
        Announcer::start(
            url,
            config.source.clone(),
            &options.transfer,
            &trust,
            new_backoff(),
            metrics.clone(),
        )
    });
    let announcer = announcer.transpose().or_exit(Exit::Internal)?;
    let backoff = new_backoff();
    let verify_period = Some(options.verify_period).filter(|period| !period.is_zero());
    let puller =
        Puller { announcer, syncer, metrics, status, backoff, demand, verify_period, hangup: signals.hangup };
    tokio::select! {
        never = puller.turn() => match never {},
        // What was staged so far is swept at the next start, as after a crash.
        () = signals.shutdown.cancelled() => Ok(()),
    }
}

/// The loop: sync, tell, wait for a reason to sync again.
struct Puller {
    announcer: Option<Announcer>,
    syncer: Syncer,
    metrics: Metrics,
    status: Arc<Status>,
    backoff: Backoff,
    demand: Demand,
    verify_period: Option<Duration>,
    hangup: Arc<Notify>,
}

impl Puller {
    async fn turn(mut self) -> Infallible {
        let mut next_verification = self.verify_period.map(|period| Instant::now() + period);
        let mut waiting = Asked::default();
        loop {
            self.demand.join(&mut waiting);
            let (outcome, wait) = self.sync().await;
            waiting.answer(&self.reply(&outcome));
            self.syncer.retain().await;
            let next_sync = Instant::now() + wait;
            waiting = loop {
                tokio::select! {
                    () = sleep_until(next_sync) => break Asked::default(),
                    () = self.hangup.notified() => break Asked::default(),
                    first = self.demand.first() => break first,
                    () = due(next_verification) => {
                        self.verify().await;
                        next_verification = self.verify_period.map(|period| Instant::now() + period);
                    }
                }
            };
        }
    }

    /// Syncs, says how it went, and returns when to sync again.
    async fn sync(&mut self) -> (Result<Outcome, SyncError>, Duration) {
        let started = Instant::now();
        let outcome = self.syncer.sync().await;
        let took = started.elapsed();
        self.metrics.ended(&outcome, took);
        self.status.ended(&outcome, took);
        let wait = match &outcome {
            Ok(_) => self.backoff.after_success(),
            Err(error) => self.backoff.after_failure(error.retry_after()),
        };
        log(&outcome, took, &self.backoff, wait);
        if let (Some(announcer), Ok(outcome)) = (&self.announcer, &outcome) {
            announcer.announce(outcome.release());
        }
        self.status.waiting(wait, self.backoff.failures());
        (outcome, wait)
    }

    fn reply(&self, outcome: &Result<Outcome, SyncError>) -> Reply {
        Reply {
            status: outcome.as_ref().map_or_else(status_for, |_| StatusCode::OK),
            body: self.status.describe(outcome),
        }
    }

    /// Looks at what is published; a release that is gone altogether is put together again at once.
    async fn verify(&mut self) {
        match self.syncer.verify().await {
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

/// Syncs once, as an init container does.
///
/// # Errors
/// 69 where the source is unavailable or the sync was interrupted, 74 where the volume failed, 78 where content was refused.
pub async fn once(config: Config, signals: Signals) -> Result<(), Failure> {
    let metrics = Metrics::new(&mut admin::registry(&CONTAINER));
    let (mut syncer, ..) = prepare(&config, metrics).await?;
    let started = Instant::now();
    let outcome = tokio::select! {
        outcome = async {
            let outcome = syncer.sync().await;
            syncer.retain().await;
            outcome
        } => outcome,
        () = signals.shutdown.cancelled() => {
            return Err(Failure::new(Exit::Unavailable, "stopped before the sync had ended; the next start sweeps up"));
        }
    };
    match outcome {
        Ok(outcome) => {
            say(&outcome, started.elapsed());
            Ok(())
        }
        Err(error) => {
            let exit = error.exit();
            Err(error).or_exit(exit)
        }
    }
}

/// Everything that has to work before the first sync, and the release that an earlier run published.
async fn prepare(
    config: &Config,
    metrics: Metrics,
) -> Result<(Syncer, Option<release::ReleaseId>, TlsPems), Failure> {
    let source = Source::new(config).map_err(|error| {
        let exit = error.exit();
        Failure::new(exit, error.to_string())
    })?;
    let trust = source.trust();
    let owned = config.clone();
    let prepared = on_disk(move || {
        let volume = Volume::open(&owned.volume)?;
        let release = volume.current()?;
        Ok((Syncer::new(&owned, source, volume, metrics)?, release, trust))
    });
    prepared.await.map_err(|error: volume::VolumeError| {
        let exit = error.exit();
        Failure::new(exit, error.to_string())
    })
}

/// What a failed sync is to somebody who asked for it: the source's fault, or ours.
fn status_for(error: &SyncError) -> StatusCode {
    match error {
        SyncError::Volume(_) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_GATEWAY,
    }
}

fn log(outcome: &Result<Outcome, SyncError>, took: Duration, backoff: &Backoff, wait: Duration) {
    match outcome {
        Ok(outcome) => say(outcome, took),
        Err(error) => {
            let retry_in = humantime::format_duration(Duration::from_millis(
                wait.as_millis().try_into().unwrap_or(u64::MAX),
            ));
            tracing::warn!(%error, reason = error.reason(), failures = backoff.failures(), %retry_in, "sync failed");
        }
    }
}

fn say(outcome: &Outcome, took: Duration) {
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
