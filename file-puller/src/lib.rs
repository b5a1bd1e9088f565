//! file-puller keeps a volume in step with an external content manager, one immutable release at a time.
//!
//! The contract is in `docs/contract.md`; this is how it is kept, in the order in which content flows:
//!
//! - [`config`], [`location`]: what to follow, where to put it, within which limits
//! - [`source`], [`credentials`]: the content manager over HTTP, and who we are to it
//! - [`manifest`], [`path`], [`release`]: what it says, once it is checked; what a release is known by
//! - [`plan`]: what the volume has already, and what is new
//! - [`stage`], [`fetch`]: a release is put together where nobody sees it
//! - [`publish`]: it becomes visible, in one step and for good
//! - [`retain`]: old releases go when nobody can need them any more
//! - [`volume`]: the layout that the three before share, its lock, and what a crash leaves
//! - [`sync`]: one sync from beginning to end; [`failure`]: why it did not end well
//! - [`run`] (here): when to sync, with [`backoff`] and [`demand`]
//! - [`status`], [`metrics`]: what the outside is told
//! - [`fault`]: for tests, every place where a crash could hurt
//! - [`scan`]: the content manager's side, `file-puller manifest DIR`

pub mod backoff;
pub mod config;
pub mod credentials;
pub mod demand;
pub mod failure;
pub mod fault;
pub mod fetch;
pub mod location;
pub mod manifest;
pub mod metrics;
pub mod path;
pub mod plan;
pub mod publish;
pub mod release;
pub mod retain;
pub mod scan;
pub mod source;
pub mod stage;
pub mod status;
pub mod sync;
pub mod volume;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use lifecycle::Container;
use lifecycle::admin::{self, Admin};
use lifecycle::exit::{Exit, Failure, OrExit as _};
use lifecycle::signals::Signals;
use tokio::net::TcpListener;

use crate::backoff::Backoff;
use crate::config::Config;
use crate::demand::{Asked, Reply};
use crate::failure::SyncError;
use crate::metrics::Metrics;
use crate::source::Source;
use crate::status::Status;
use crate::sync::{Outcome, Syncer};
use crate::volume::{Volume, on_disk};

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
    let (asker, mut demand) = demand::channel();
    let (mut syncer, release) = prepare(&config, metrics.clone()).await?;
    let options = &config.options;
    let volume = config.volume.display().to_string();
    let status = Arc::new(Status::new(config.source.clone(), volume, options.max_staleness, release));
    let report = Arc::clone(&status);
    let _admin = Admin::new(CONTAINER, report, registry, signals.shutdown.clone())
        .action("/sync", move || asker.clone().ask())
        .serve(admin);
    let mut backoff = Backoff::new(options.period, options.max_backoff);
    let mut waiting = Asked::default();
    loop {
        demand.join(&mut waiting);
        let started = Instant::now();
        let outcome = tokio::select! {
            outcome = syncer.sync() => outcome,
            // What was staged so far is swept at the next start, as after a crash.
            () = signals.shutdown.cancelled() => return Ok(()),
        };
        let took = started.elapsed();
        metrics.ended(&outcome, took);
        let body = status.ended(&outcome, took);
        let wait = match &outcome {
            Ok(_) => backoff.after_success(),
            Err(error) => backoff.after_failure(error.retry_after()),
        };
        log(&outcome, took, &backoff, wait);
        status.waiting(wait, backoff.failures());
        let status_code = outcome.as_ref().map_or_else(status_for, |_| StatusCode::OK);
        std::mem::take(&mut waiting).answer(&Reply { status: status_code, body });
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = signals.hangup.notified() => {}
            first = demand.first() => waiting = first,
            () = signals.shutdown.cancelled() => return Ok(()),
        }
    }
}

/// Syncs once, as an init container does.
///
/// # Errors
/// 69 where the source is unavailable or the sync was interrupted, 74 where the volume failed, 78 where content was refused.
pub async fn once(config: Config, signals: Signals) -> Result<(), Failure> {
    let metrics = Metrics::new(&mut admin::registry(&CONTAINER));
    let (mut syncer, _) = prepare(&config, metrics).await?;
    let started = Instant::now();
    let outcome = tokio::select! {
        outcome = syncer.sync() => outcome,
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
async fn prepare(config: &Config, metrics: Metrics) -> Result<(Syncer, Option<release::ReleaseId>), Failure> {
    let source = Source::new(config).or_exit(Exit::Internal)?;
    let owned = config.clone();
    let prepared = on_disk(move || {
        let volume = Volume::open(&owned.volume)?;
        let release = volume.current()?;
        Ok((Syncer::new(&owned, source, volume, metrics)?, release))
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
