//! The server, put together from its flags, and run until it is told to stop.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use lifecycle::admin::{Admin, AllowedHosts, Probes, registry};
use lifecycle::exit::{Exit, Failure, OrExit as _};
use lifecycle::metrics::Registrar;
use lifecycle::signals::Signals;
use lifecycle::{cgroup, rlimit};
use pod_page::PodPage;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::CONTAINER;
use crate::access_log::{self, AccessLog, Rotation};
use crate::config::Config;
use crate::content::dir::Directory;
use crate::content::edition_updates::{self, Pace};
use crate::content::editions::Editions;
use crate::content::header_policy::{HeaderPolicy, LineList};
use crate::content::index::LoadOptions;
use crate::content::root::ContentRoot;
use crate::content::watch;
use crate::http::cors::Cors;
use crate::http::exchange::Telemetry;
use crate::http::trusted_proxies::TrustedProxies;
use crate::live_page::Local;
use crate::memory::{self, Budget};
use crate::metrics::Metrics;
use crate::net::deadlines::Deadlines;
use crate::net::server::{Server, serve_all};
use crate::routes::Routes;
use crate::routes::autoindex::Oversized;
use crate::routes::faults::Faults;
use crate::routes::files::Files;
use crate::routes::lesson::{Endpoint, Lesson};
use crate::routes::manifest::ManifestRoutes;
use crate::routes::redirects::RedirectsFile;
use crate::status::Status;

/// The last lines of the access log get at least this long, also when connections used up the drain's time.
const LAST_LINES: Duration = Duration::from_secs(1);
/// So many connections may come at once without any of them waiting for the kernel to make room for descriptors.
const MANY_CONNECTIONS: u64 = 16 * 1024;

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
    pod_page: &pod_page::Flags,
    shutdown_timeout: Duration,
    listeners: Listeners,
    allowed_hosts: AllowedHosts,
    signals: Signals,
) -> Result<(), Failure> {
    Directory::check_kernel().or_exit(Exit::Io)?;
    let connections = affordable(config.max_connections, rlimit::raise_limit());
    rlimit::make_room((connections as u64).min(MANY_CONNECTIONS));
    let mut registry = registry(&CONTAINER);
    let mut registrar = Registrar::new(&mut registry);
    let metrics = Arc::new(Metrics::register(&mut registrar));
    let limit = tighter(config.memory_limit, cgroup::memory_limit());
    if let Some(limit) = limit.filter(|limit| *limit < memory::LEAST) {
        // The flag is refused. A container's limit may have been set for all that it holds: what works still works.
        let least = memory::LEAST;
        tracing::warn!(limit, least, "the container's memory limit leaves no room for connections: raise it");
    }
    let budget = Budget::new(limit, &mut registrar);
    let access_log = open_access_log(&config, &metrics)?;
    let header_policy = Arc::new(HeaderPolicy {
        cache_control: LineList::all(config.cache_control.clone()),
        content_types: LineList::all(config.content_type.clone()),
        headers: LineList::all(config.header.clone()),
    });
    let root = content(&config, &header_policy, &budget, &metrics, &signals);
    let faults = config.enable_faults.then(Faults::default);
    let editions = config.manifest.then(|| {
        let waiters = metrics.manifest_waiters.clone();
        Arc::new(Editions::new(connections - connections / 8, waiters, metrics.manifest_refused.clone()))
    });
    let status = Status {
        root: Arc::clone(&root),
        metrics: Arc::clone(&metrics),
        budget: Arc::clone(&budget),
        editions: editions.clone(),
        faults: faults.clone(),
    };
    let status = Arc::new(status);
    let probes = Probes::default();
    let local = Local {
        container: CONTAINER,
        admin_port: listeners.admin.local_addr().or_exit(Exit::Io)?.port(),
        access_log: config.access_log.as_deref().and_then(access_log::file_of).map(Path::to_owned),
        probes: probes.clone(),
        status: Arc::clone(&status),
    };
    let pod_page = PodPage::new(pod_page, Arc::new(local), signals.shutdown.clone(), variable);
    let files = files(&config, &root, header_policy, &metrics, &budget);
    let lesson = Lesson::new(config.service_version.clone(), config.expose_env, variable)?;
    let lesson = (!config.no_lesson).then_some(lesson);
    let manifest = editions.map(|editions| ManifestRoutes {
        editions,
        max_wait: config.max_wait,
        shutdown: signals.shutdown.clone(),
    });
    let editions = manifest.as_ref().map(|manifest| {
        // Paths that this server answers itself, and that no manifest can list therefore.
        let lesson: &[_] = if lesson.is_some() { &Endpoint::ALL } else { &[] };
        let lesson = lesson.iter().map(|(path, _)| *path);
        let reserved = std::iter::once(ManifestRoutes::PATH).chain(lesson).collect();
        let pace = Pace { quiet: config.quiet_period, rescan: config.rescan };
        let follow =
            edition_updates::follow(Arc::clone(&root), Arc::clone(&manifest.editions), pace, reserved);
        AbortOnDropHandle::new(tokio::spawn(follow))
    });
    let mut admin = Admin::new(CONTAINER, status, registry, signals.shutdown.clone());
    if let Some(faults) = &faults {
        admin = faults.routes(admin);
    }
    let admin = admin.allowed_hosts(allowed_hosts.clone()).probes(probes).serve(listeners.admin);
    let routes = Routes { root: Arc::clone(&root), lesson, manifest, files, faults, allowed_hosts, pod_page };

    root.check().or_exit(Exit::Refused)?;
    // The first release is loaded while connections are served already: a large one takes a while.
    let watch = AbortOnDropHandle::new(tokio::spawn(watch::follow(root)));
    let hangups = access_log.clone().map(|log| reopen_on_hangup(log, &signals));

    let telemetry = Telemetry {
        metrics,
        access_log: access_log.clone(),
        trusted_proxies: TrustedProxies(config.trusted_proxies),
        draining: AtomicBool::new(false),
    };
    let deadlines =
        Deadlines { header: config.header_timeout, idle: config.idle_timeout, send: config.send_timeout };
    let server = Server::new(routes, telemetry, connections, deadlines, budget, signals.shutdown.clone());
    let server = Arc::new(server);
    serve_all(&server, listeners.content).await?;

    let deadline = Instant::now() + shutdown_timeout;
    let cut = server.drain(shutdown_timeout).await;
    if cut > 0 {
        tracing::warn!(connections = cut, ?shutdown_timeout, "cut what was not finished in time");
    }
    if let Some(log) = access_log {
        let left = deadline.saturating_duration_since(Instant::now());
        log.close(left.max(LAST_LINES)).await;
    }
    drop((watch, editions, hangups, admin));
    tracing::info!("drained");
    Ok(())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn open_access_log(config: &Config, metrics: &Arc<Metrics>) -> Result<Option<Arc<AccessLog>>, Failure> {
    let Some(path) = &config.access_log else { return Ok(None) };
    let rotation = Rotation {
        max_size: config.access_log_max_size,
        max_age: config.access_log_max_age,
        keep: config.access_log_keep,
    };
    let excluded = LineList::all(config.log_exclude.clone());
    let log = AccessLog::open(path, config.access_log_format, rotation, excluded, Arc::clone(metrics))?;
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
    budget: &Arc<Budget>,
    metrics: &Arc<Metrics>,
    signals: &Signals,
) -> Arc<ContentRoot> {
    let options = LoadOptions {
        cache: config.cache_size.min(budget.cache_share()),
        stale_assets: config.stale_assets_for,
        header_policy: Arc::clone(header_policy),
        budget: Arc::clone(budget),
    };
    Arc::new(ContentRoot::new(&config.root, options, Arc::clone(metrics), signals.shutdown.clone()))
}

fn files(
    config: &Config,
    root: &Arc<ContentRoot>,
    header_policy: Arc<HeaderPolicy>,
    metrics: &Arc<Metrics>,
    budget: &Arc<Budget>,
) -> Files {
    // A content manager gives out what there is: a puller has to get the bytes that the manifest names.
    let applied = !config.manifest;
    if !applied && (config.redirects || config.clean_urls || config.fallback.is_some()) {
        tracing::warn!("--redirects, --clean-urls and --fallback do nothing with --manifest");
    }
    Files {
        root: Arc::clone(root),
        autoindex: config.autoindex,
        clean_urls: config.clean_urls && applied,
        fallback: config.fallback.clone().filter(|_| applied),
        redirects: (config.redirects && applied).then(RedirectsFile::default),
        cors: Cors(config.cors.clone()),
        header_policy,
        metrics: Arc::clone(metrics),
        budget: Arc::clone(budget),
        oversized: Oversized::default(),
    }
}

/// The limit of the flag, or that of the container's cgroup, where there is one: a program that goes beyond the latter is killed,
/// whatever its flag says.
fn tighter(flag: Option<u64>, cgroup: Option<u64>) -> Option<u64> {
    if let (Some(flag), Some(cgroup)) = (flag, cgroup)
        && cgroup < flag
    {
        tracing::warn!(
            flag_bytes = flag,
            container_bytes = cgroup,
            "the container's memory limit is below --memory-limit, and holds: lower the flag, or raise the \
             container's limit"
        );
    }
    flag.into_iter().chain(cgroup).min()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_of_two_memory_limits_holds() {
        assert_eq!(tighter(None, None), None);
        assert_eq!(tighter(Some(2), None), Some(2));
        assert_eq!(tighter(None, Some(1)), Some(1));
        assert_eq!(tighter(Some(2), Some(1)), Some(1));
        assert_eq!(tighter(Some(1), Some(2)), Some(1));
    }
}
