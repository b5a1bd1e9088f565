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
//! - [`stage`], [`fetch`]: a release is put together where nobody sees it, a large one beginning with a copy of the current one
//! - [`archive`], [`inflate`], [`feed`]: or it arrives in one piece, and is unpacked there
//! - [`publish`]: it becomes visible, in one step and for good; `durable`: on the disk, too
//! - [`retain`]: old releases go when nobody can need them any more
//! - [`verify`]: what was published is read again, and put right
//! - [`volume`]: the layout that all of these share, its lock, and what a crash leaves
//! - [`sync`]: one sync from beginning to end; [`failure`]: why it did not end well
//! - `puller`: when to sync, with [`backoff`] and [`demand`]; [`run`] and [`once`] (here) put all of it together
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
mod durable;
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
mod puller;
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

use std::sync::Arc;
use std::time::{Duration, Instant};

use lifecycle::Container;
use lifecycle::admin::{self, Admin};
use lifecycle::exit::{Exit, Failure, OrExit as _};
use lifecycle::signals::Signals;
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::backoff::Backoff;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::puller::Puller;
use crate::source::Source;
use crate::status::Status;
use crate::sync::Syncer;
use crate::tls::TlsPems;
use crate::volume::{Volume, on_disk};
use crate::webhook::Announcer;

/// Who this container is.
pub const CONTAINER: Container =
    Container { name: "file-puller", admin_port: 9878, version: env!("CARGO_PKG_VERSION") };

/// How long those who are told at the last moment that the puller stops may take to hear it.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Keeps the volume in step until the signals say otherwise. A failed sync never ends it.
///
/// # Errors
/// Where the volume cannot be taken into use at the start.
pub async fn run(config: Config, admin: TcpListener, signals: Signals) -> Result<(), Failure> {
    let mut registry = admin::registry(&CONTAINER);
    let metrics = Metrics::new(&mut registry);
    let (asker, demand) = demand::channel();
    let (syncer, release, trust) = prepare(&config, metrics.clone()).await?;
    if let Some(release) = &release {
        metrics.current(release);
    }
    let options = &config.options;
    let volume = config.volume.display().to_string();
    let status = Arc::new(Status::new(config.source.clone(), volume, options.max_staleness, release));
    let report = Arc::clone(&status);
    let shutdown = &signals.shutdown;
    let serving = Admin::new(CONTAINER, report, registry, shutdown.clone())
        .action("/sync", move || asker.clone().ask())
        .serve(admin);
    let new_backoff = || Backoff::new(options.period, options.max_backoff);
    let announcer = options.webhook.clone().map(|url| {
        let (source, transfer) = (config.source.clone(), &options.transfer);
        Announcer::start(url, source, transfer, &trust, new_backoff(), metrics.clone())
    });
    let puller = Puller {
        syncer,
        demand,
        hangup: Arc::clone(&signals.hangup),
        backoff: new_backoff(),
        verify_period: Some(options.verify_period).filter(|period| !period.is_zero()),
        announcer: announcer.transpose().or_exit(Exit::Internal)?,
        status,
        metrics,
    };
    let out_of_patience = async {
        shutdown.cancelled().await;
        sleep(options.lifecycle.shutdown_timeout).await;
    };
    tokio::select! {
        () = puller.run(shutdown) => {}
        () = out_of_patience => tracing::warn!("the sync that was asked for takes longer than --shutdown-timeout"),
    }
    // The loop is gone, so whoever still waits for it is told by now that nothing will come.
    serving.finish(LAST_WORDS).await;
    Ok(())
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
            puller::say(&outcome, started.elapsed());
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
