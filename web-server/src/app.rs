//! The server, put together from its flags, and run until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use lifecycle::admin::{Admin, registry};
use lifecycle::exit::{Exit, Failure, OrExit as _};
use lifecycle::rlimit;
use lifecycle::signals::Signals;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::CONTAINER;
use crate::access_log::{AccessLog, Destination, Rotation};
use crate::config::Config;
use crate::content::dir::Directory;
use crate::content::generation::LoadOptions;
use crate::content::header_policy::{HeaderPolicy, LineList};
use crate::content::root::ContentRoot;
use crate::content::watch;
use crate::http::exchange::Telemetry;
use crate::metrics::Metrics;
use crate::net::deadlines::Deadlines;
use crate::net::listener::{Limits, Server};
use crate::net::threads;
use crate::pod_page::rounds::Own;
use crate::pod_page::{self, PodPage};
use crate::routes::Routes;
use crate::routes::faults::Faults;
use crate::routes::files::{Files, Listings};
use crate::routes::lesson::{Endpoint, Lesson};
use crate::routes::manifest::LiveManifest;
use crate::status::Status;

/// The last lines of the access log get at least this long, also when connections used up the drain's time.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The sockets to serve on.
#[derive(Debug)]
pub struct Listeners {
    /// Content and the lesson's endpoints: one for each thread.
    pub content: Vec<TcpListener>,
    /// Probes, metrics, status.
    pub admin: TcpListener,
}

/// Serves until told to stop, then drains for at most `shutdown_timeout`.
///
/// # Errors
/// 64 for a variable of the lesson that makes no sense, 74 where the kernel or the log's directory does not let us work, 78
/// where the root is not a directory.
pub async fn run(
    config: Config,
    shutdown_timeout: Duration,
    listeners: Listeners,
    signals: Signals,
) -> Result<(), Failure> {
    check_kernel()?;
    let mut registry = registry(&CONTAINER);
    let metrics = Arc::new(Metrics::register(&mut registry));
    let access_log = access_log(&config, &metrics)?;
    let header_policy = Arc::new(HeaderPolicy {
        cache_control: LineList::all(config.cache_control.clone()),
        headers: LineList::all(config.header.clone()),
    });
    let root = content(&config, &header_policy, &metrics, &signals);
    let faults = config.enable_faults.then(Faults::default);
    let status = Status { root: Arc::clone(&root), metrics: Arc::clone(&metrics), faults: faults.clone() };
    let status = Arc::new(status);
    let own = Own {
        status: Arc::clone(&status),
        admin: listeners.admin.local_addr().or_exit(Exit::Io)?.port(),
        shutdown: signals.shutdown.clone(),
    };
    let pod_page = pod_page::Flags::of(&config).map(|flags| PodPage::new(flags, own, variable));
    let files = Files {
        listings: if config.autoindex { Listings::On } else { Listings::Off },
        header_policy,
        metrics: Arc::clone(&metrics),
    };
    let routes = routes(&config, &root, files, faults.clone(), pod_page)?;
    let admin = admin(status, registry, faults.as_ref(), &signals).serve(listeners.admin);

    root.check().or_exit(Exit::Refused)?;
    // The first release is loaded while connections are served already: a large one takes a while.
    let watch = AbortOnDropHandle::new(tokio::spawn(watch::follow(root)));
    let hangups = access_log.clone().map(|log| reopen_on_hangup(log, &signals));

    let telemetry = Telemetry { metrics, access_log: access_log.clone(), draining: Arc::default() };
    let server =
        Arc::new(Server::new(Arc::new(routes), telemetry, limits(&config), signals.shutdown.clone()));
    threads::serve(&server, listeners.content).await?;

    let deadline = Instant::now() + shutdown_timeout;
    let cut = server.drain(shutdown_timeout).await;
    if cut > 0 {
        tracing::warn!(connections = cut, ?shutdown_timeout, "cut what was not finished in time");
    }
    if let Some(log) = access_log {
        let left = deadline.saturating_duration_since(Instant::now());
        log.close(left.max(LAST_LINES)).await;
    }
    drop((watch, hangups, admin));
    tracing::info!("drained");
    Ok(())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn check_kernel() -> Result<(), Failure> {
    Directory::check_kernel().map_err(|error| {
        Failure::new(
            Exit::Io,
            format!("this kernel or its sandbox has no openat2 ({error}): Linux 5.6 or later is needed"),
        )
    })
}

fn access_log(config: &Config, metrics: &Arc<Metrics>) -> Result<Option<Arc<AccessLog>>, Failure> {
    let Some(path) = &config.access_log else { return Ok(None) };
    let rotation = Rotation {
        max_size: config.access_log_max_size,
        max_age: config.access_log_max_age,
        keep: config.access_log_keep,
    };
    let destination = Destination::from_flag(path);
    let log = AccessLog::open(&destination, config.access_log_format, rotation, Arc::clone(metrics))?;
    Ok(Some(Arc::new(log)))
}

/// Sends the access log to a new file each time that a SIGHUP comes.
fn reopen_on_hangup(log: Arc<AccessLog>, signals: &Signals) -> AbortOnDropHandle<()> {
    let hangup = Arc::clone(&signals.hangup);
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            hangup.notified().await;
            log.reopen();
        }
    }))
}

fn content(
    config: &Config,
    header_policy: &Arc<HeaderPolicy>,
    metrics: &Arc<Metrics>,
    signals: &Signals,
) -> Arc<ContentRoot> {
    let options = LoadOptions {
        budget: config.cache_size,
        stale_assets: config.stale_assets_for,
        header_policy: Arc::clone(header_policy),
    };
    Arc::new(ContentRoot::new(&config.root, options, Arc::clone(metrics), signals.shutdown.clone()))
}

fn routes(
    config: &Config,
    root: &Arc<ContentRoot>,
    files: Files,
    faults: Option<Faults>,
    pod_page: Option<PodPage>,
) -> Result<Routes, Failure> {
    let lesson = Lesson::new(config.service_version.clone(), config.expose_env, variable)?;
    let lesson = (!config.no_lesson).then_some(lesson);
    let reserved = if lesson.is_some() { Endpoint::PATHS } else { &[] };
    let manifest = config.manifest.then(|| LiveManifest::new(reserved));
    Ok(Routes { root: Arc::clone(root), lesson, manifest, files, faults, pod_page })
}

fn admin(status: Arc<Status>, registry: Registry, faults: Option<&Faults>, signals: &Signals) -> Admin {
    let admin = Admin::new(CONTAINER, status, registry, signals.shutdown.clone());
    match faults {
        Some(faults) => faults.routes(admin),
        None => admin,
    }
}

fn limits(config: &Config) -> Limits {
    Limits {
        connections: affordable(config.max_connections, rlimit::raise_limit()),
        deadlines: Deadlines {
            header: config.header_timeout,
            idle: config.idle_timeout,
            send: config.send_timeout,
        },
    }
}

/// As many connections as were asked for, or as there are descriptors for. A quarter of these is left for files.
fn affordable(wanted: usize, descriptors: u64) -> usize {
    let affordable = usize::try_from(descriptors - descriptors / 4).unwrap_or(usize::MAX).max(1);
    if affordable < wanted {
        tracing::warn!(
            wanted,
            affordable,
            descriptors,
            "fewer connections than --max-connections says: the limit of open descriptors (ulimit -n) is low"
        );
    }
    wanted.min(affordable)
}
