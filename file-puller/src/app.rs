//! What the program does with its command line: puts the parts together, and runs them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lifecycle::admin::{self, Admin};
use lifecycle::exit::{Exit, Failure, OrExit as _};
use lifecycle::signals::Signals;
use lifecycle::{Container, blocking, listen};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

use crate::cli::{Cli, Command};
use crate::config::Config;
use crate::daemon::{Backoff, Observers, Scheduler, Status, Webhook, channel, log_outcome};
use crate::manifest_cmd;
use crate::metrics::Metrics;
use crate::progress::Audience;
use crate::source::Source;
use crate::store::{Volume, open_to_group, sweep_at_start};
use crate::sync::{Engine, EngineHandle, HttpGate};

/// Who this container is.
pub const CONTAINER: Container =
    Container { name: "file-puller", admin_port: 9878, version: env!("CARGO_PKG_VERSION") };

/// Threads besides the event loop's and the engine's: for reading a few files at the start.
const DISK_THREADS: usize = 1;
/// How long a write that is under way at the end may take. A disk that hangs must not hold up the Pod.
const LAST_WRITE: Duration = Duration::from_millis(250);
/// How long clients that wait for an answer when the puller stops have to receive it.
const LAST_ANSWERS: Duration = Duration::from_millis(250);

/// Does what the command line asks for.
///
/// # Errors
/// The exit code and the reason for it, as `docs/contract.md` lists them.
pub fn execute(cli: Cli) -> Result<(), Failure> {
    let config = match &cli.command {
        Some(Command::Manifest(arguments)) => return manifest_cmd::run(arguments),
        Some(Command::Healthcheck(healthcheck)) => return healthcheck.ask(),
        None => cli.config()?,
    };
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(DISK_THREADS)
        .build()
        .or_exit(Exit::Internal)?;
    let outcome = runtime.block_on(async {
        let signals = Signals::install().or_exit(Exit::Internal)?;
        if config.options.once {
            return once(config, signals).await;
        }
        let admin = listen::bind("admin", config.options.lifecycle.admin_addr, "--admin-addr")?;
        run(config, admin, signals).await
    });
    runtime.shutdown_timeout(LAST_WRITE);
    outcome
}

/// Keeps the volume in step until the signals say otherwise. A failed sync never ends it.
async fn run(config: Config, admin: TcpListener, signals: Signals) -> Result<(), Failure> {
    let mut registry = admin::registry(&CONTAINER);
    let metrics = Metrics::new(&mut registry);
    let (handle, requests) = channel();
    let engine = prepare(&config, metrics.clone()).await?;
    let release = engine.current().cloned();
    if let Some(release) = &release {
        metrics.current(release);
    }
    let trust = engine.source().tls_pems();
    let options = &config.options;
    let volume = config.volume.display().to_string();
    let status = Arc::new(Status::new(config.source.clone(), volume, options.max_staleness, release));
    let report = Arc::clone(&status);
    let shutdown = &signals.shutdown;
    let serving = Admin::new(CONTAINER, report, registry, shutdown.clone())
        .action("/sync", move || handle.clone().ask())
        .allowed_hosts(options.lifecycle.allowed_hosts())
        .serve(admin);
    let new_backoff = || Backoff::new(options.period, options.max_backoff);
    let (source, transfer) = (config.source.clone(), &options.source.transfer);
    let webhook = Webhook::start(&options.webhook, source, transfer, &trust, new_backoff(), metrics.clone());
    let mut scheduler = Scheduler::new(
        EngineHandle::spawn(engine)?,
        requests,
        Arc::clone(&signals.hangup),
        new_backoff(),
        Some(options.verify_period).filter(|period| !period.is_zero()),
        Observers {
            webhook: webhook.or_exit(Exit::Internal)?,
            touch_file: config.touch_file.clone(),
            touched: false,
            status,
            metrics,
        },
    );
    let timed_out = async {
        shutdown.cancelled().await;
        sleep(options.lifecycle.shutdown_timeout).await;
    };
    tokio::select! {
        () = scheduler.run(shutdown) => {}
        () = timed_out => tracing::warn!("the sync that was asked for takes longer than --shutdown-timeout"),
    }
    // The scheduler is gone, so a client that still waits for it learns now that no answer will come. A sync or a write that is
    // under way is left where it is: that is as good as a crash, and a crash is harmless.
    let (_, ()) = tokio::join!(timeout(LAST_WRITE, scheduler.end()), serving.finish(LAST_ANSWERS));
    Ok(())
}

/// Syncs once, as an init container does.
async fn once(config: Config, signals: Signals) -> Result<(), Failure> {
    let metrics = Metrics::new(&mut admin::registry(&CONTAINER));
    let engine = EngineHandle::spawn(prepare(&config, metrics).await?)?;
    let started = Instant::now();
    let (outcome, revision) = tokio::select! {
        outcome = async {
            let outcome = engine.sync().await;
            engine.upkeep();
            engine.end().await;
            outcome
        } => outcome,
        () = signals.shutdown.cancelled() => {
            return Err(Failure::new(Exit::Unavailable, "stopped before the sync had ended; the next start sweeps up"));
        }
    };
    log_outcome(&outcome?, revision.as_ref(), started.elapsed());
    if let Some(file) = &config.touch_file {
        file.touch();
    }
    Ok(())
}

/// Everything that has to work before the first sync.
async fn prepare(config: &Config, metrics: Metrics) -> Result<Engine, Failure> {
    let options = &config.options;
    let largest_manifest = options.engine.limits.manifest;
    let verify_period = Some(options.verify_period).filter(|period| !period.is_zero());
    let source =
        Source::new(config.source.clone(), &options.source, config.kind, largest_manifest, verify_period)?;
    let gate = HttpGate::new(&options.engine.gates, &source)?;
    let audience = if options.once { Audience::Terminal } else { Audience::Log };
    let owned = config.clone();
    let prepared = blocking(move || {
        let volume = Volume::open(&owned.volume, owned.options.engine.directories)?;
        sweep_at_start(&volume)?;
        open_to_group(&volume);
        volume.warn_if_too_small(owned.options.engine.limits.min_free);
        Engine::new(owned.options.engine, source, gate, volume, audience, metrics)
    });
    Ok(prepared.await?)
}
