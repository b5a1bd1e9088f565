//! The Pod's web server: serves the current release of a shared volume, and writes the access log.
//!
//! In the order in which a request meets them:
//!
//! - [`config`]: the flags
//! - [`server`]: connections are accepted and drained, on one thread or on several ([`threads`])
//! - [`conversation`]: one connection, its requests one after another
//! - [`deadline`]: how long a client may take, and [`turn`], whose turn it is
//! - [`outbox`]: files that are sent without being read
//! - [`exchange`]: one request and its response, accounted for when its last byte is sent; [`request_id`] names it
//! - [`route`]: who answers what; [`host`] is whom the client meant
//! - [`lesson`]: the lesson's endpoints, byte for byte
//! - [`pod_page`]: what the Pod's containers are doing, for the page that shows it
//! - [`target`]: from a request target to a path that was checked
//! - [`site`]: what is served right now; [`watch`] notices that it has become something else
//! - [`published`]: a release as its publisher left it
//! - [`generation`]: that release, ready to be served; [`walk`] finds its files
//! - [`leftover`]: what earlier releases had and this one has not
//! - [`live`]: a plain directory, looked at with each request
//! - [`confine`]: a directory that nothing leads out of
//! - [`stored`]: a file of a release that is too large for memory
//! - [`representation`]: bytes and what is said of them; [`digest`] and [`content_type`] say it
//! - [`presentation`]: what is said of content beyond that
//! - [`manifest`]: the server as content manager
//! - [`autoindex`]: directories that are listed
//! - [`respond`]: from a representation to a response, by way of [`encoding`], [`conditional`] and [`range`]
//! - [`body`]: the bytes on their way
//! - [`access_log`]: one line per response
//! - [`metrics`], [`status`]: what operators see; [`fault`]: what a lab makes go wrong

pub mod access_log;
pub mod autoindex;
pub mod body;
pub mod conditional;
pub mod config;
pub mod confine;
pub mod content_type;
pub mod conversation;
pub mod deadline;
pub mod digest;
pub mod encoding;
pub mod exchange;
pub mod fault;
pub mod generation;
pub mod host;
pub mod leftover;
pub mod lesson;
pub mod live;
pub mod manifest;
pub mod metrics;
pub mod outbox;
pub mod pod_page;
pub mod presentation;
pub mod published;
pub mod range;
pub mod representation;
pub mod request_id;
pub mod respond;
pub mod route;
pub mod server;
pub mod site;
pub mod status;
pub mod stored;
pub mod target;
pub mod threads;
pub mod turn;
pub mod walk;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

use lifecycle::admin::{Admin, registry};
use lifecycle::exit::{Exit, Failure, OrExit as _};
use lifecycle::signals::Signals;
use lifecycle::{Container, rlimit};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::access_log::{AccessLog, Destination, Rotation};
use crate::config::Config;
use crate::confine::Directory;
use crate::deadline::Deadlines;
use crate::exchange::Accounts;
use crate::fault::Faults;
use crate::generation::Policy;
use crate::lesson::{Endpoint, Lesson};
use crate::manifest::LiveManifest;
use crate::metrics::Metrics;
use crate::pod_page::PodPage;
use crate::pod_page::rounds::Own;
use crate::presentation::{Lines, Presentation};
use crate::route::{Listings, Routes};
use crate::server::{Limits, Server};
use crate::site::Root;
use crate::status::Status;

/// Who this container is.
pub const CONTAINER: Container =
    Container { name: "web-server", admin_port: 9877, version: env!("CARGO_PKG_VERSION") };

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
    Directory::check_kernel().map_err(|error| {
        Failure::new(
            Exit::Io,
            format!("this kernel or its sandbox has no openat2 ({error}): Linux 5.6 or later is needed"),
        )
    })?;
    let variable = |name: &str| std::env::var(name).ok();
    let pod_page = pod_page::Flags::of(&config);
    let lesson = Lesson::new(config.service_version, config.expose_env, variable)?;
    let lesson = (!config.no_lesson).then_some(lesson);

    let mut registry = registry(&CONTAINER);
    let metrics = Arc::new(Metrics::register(&mut registry));
    let access_log = match &config.access_log {
        Some(path) => {
            let rotation = Rotation {
                max_size: config.access_log_max_size,
                max_age: config.access_log_max_age,
                keep: config.access_log_keep,
            };
            let log = AccessLog::open(
                &Destination::from_flag(path),
                config.access_log_format,
                rotation,
                Arc::clone(&metrics),
            )?;
            Some(Arc::new(log))
        }
        None => None,
    };

    let presentation = Arc::new(Presentation {
        cache_control: Lines::all(config.cache_control),
        headers: Lines::all(config.header),
    });
    let policy = Policy {
        budget: config.cache_size,
        stale_assets: config.stale_assets_for,
        presentation: Arc::clone(&presentation),
    };
    let root = Root::new(&config.root, policy, Arc::clone(&metrics), signals.shutdown.clone());
    let root = Arc::new(root);
    let faults = config.enable_faults.then(Faults::default);
    let status = Status { root: Arc::clone(&root), metrics: Arc::clone(&metrics), faults: faults.clone() };
    let status = Arc::new(status);
    let own = Own {
        status: Arc::clone(&status),
        admin: listeners.admin.local_addr().or_exit(Exit::Io)?.port(),
        shutdown: signals.shutdown.clone(),
    };
    let pod_page = pod_page.map(|flags| PodPage::new(flags, own, variable));
    let admin = Admin::new(CONTAINER, status, registry, signals.shutdown.clone());
    let admin = match &faults {
        Some(faults) => faults.offer(admin),
        None => admin,
    };
    let admin = admin.serve(listeners.admin);

    root.check().or_exit(Exit::Refused)?;
    // The first release is loaded while connections are served already: a large one takes a while.
    let watch = AbortOnDropHandle::new(tokio::spawn(watch::follow(Arc::clone(&root))));

    let hangups = access_log.clone().map(|log| {
        let hangup = Arc::clone(&signals.hangup);
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                hangup.notified().await;
                log.reopen();
            }
        }))
    });

    let reserved = if lesson.is_some() { Endpoint::PATHS } else { &[] };
    let manifest = config.manifest.then(|| LiveManifest::new(reserved));
    let listings = if config.autoindex { Listings::On } else { Listings::Off };
    let routes = Arc::new(Routes { root, lesson, manifest, listings, presentation, faults, pod_page });
    let accounts = Accounts { metrics, access_log: access_log.clone(), draining: Arc::default() };
    let limits = Limits {
        connections: affordable(config.max_connections, rlimit::raise_limit()),
        deadlines: Deadlines {
            header: config.header_timeout,
            idle: config.idle_timeout,
            send: config.send_timeout,
        },
    };
    let server = Arc::new(Server::new(routes, accounts, limits, signals.shutdown.clone()));
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
