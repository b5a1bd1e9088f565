//! What the command line decides. What the lesson's image took from bare environment variables is read in
//! [`crate::lesson`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lifecycle::units;

use crate::access_log::Format;
use crate::presentation::{CacheRule, ExtraHeader, Lines};

/// The flags that are this container's own.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// What is served: a link to a release (`<volume>/current`), a ConfigMap volume, or a plain directory, which may be
    /// edited in place. While it does not exist, content is answered 503
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,

    /// Address that content is served on; without this flag, the variable PORT0 alone moves the port
    /// [default: 0.0.0.0:9876]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,

    /// File for one line per response, or - for stdout; without this flag no access log is written
    #[arg(long, value_name = "PATH|-")]
    pub access_log: Option<PathBuf>,

    /// How a line of the access log is written
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    pub access_log_format: Format,

    /// Size at which the access log is rotated: access.log becomes access.log.1, and so on
    #[arg(long, value_name = "SIZE", default_value = "10MiB", value_parser = units::size)]
    pub access_log_max_size: u64,

    /// Age at which the access log is rotated, at the next line; without this flag size alone counts
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub access_log_max_age: Option<Duration>,

    /// How many rotated access logs are kept
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub access_log_keep: u32,

    /// Memory for the bodies of a release's smaller files; the rest is read from the volume at each request
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = units::size)]
    pub cache_size: u64,

    /// How long an asset that the next release has no more is still given out, for pages that were loaded before; pages
    /// themselves never are
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = units::duration)]
    pub stale_assets_for: Duration,

    /// Cache-Control of the files that a glob matches, such as '*.css=public, max-age=3600'; the first that matches counts,
    /// other files are revalidated each time. May be repeated (one a line in the variable)
    #[arg(long, value_name = "GLOB=VALUE")]
    pub cache_control: Vec<Lines<CacheRule>>,

    /// Header for every answer that is content, such as 'Referrer-Policy: no-referrer'. May be repeated (one a line in the
    /// variable)
    #[arg(long, value_name = "NAME: VALUE")]
    pub header: Vec<Lines<ExtraHeader>>,

    /// Lists directories that have no index.html: HTML, or JSON for who accepts only that
    #[arg(long)]
    pub autoindex: bool,

    /// Threads that serve connections, each with its own share of them
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,

    /// Connections served at once; one more is answered 503 and closed
    #[arg(long, value_name = "COUNT", default_value_t = 8192)]
    pub max_connections: usize,

    /// How long a client may take to send a request's head
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = units::duration)]
    pub header_timeout: Duration,

    /// How long a connection may idle between requests
    #[arg(long, value_name = "DURATION", default_value = "75s", value_parser = units::duration)]
    pub idle_timeout: Duration,

    /// How long a client may take nothing of what is being sent to it
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = units::duration)]
    pub send_timeout: Duration,

    /// Plays the content manager: serves a live manifest of the root at /manifest.json
    #[arg(long)]
    pub manifest: bool,

    /// Serves content under the names of the lesson's endpoints, too
    #[arg(long)]
    pub no_lesson: bool,

    /// For labs: lets neighbours in the Pod make this server unready, failing, delayed or crash, by
    /// POST /faults/unready and so on, on the admin port; POST /faults/none ends it
    #[arg(long)]
    pub enable_faults: bool,

    /// What /info and /endpoint0 call this service's version; without this flag the variables VERSION and
    /// SIMPLE_SERVICE_VERSION are asked [default: 0.5.0]
    #[arg(long, value_name = "VERSION")]
    pub service_version: Option<String>,

    /// Answers /env with the environment, secrets in it included
    #[arg(long)]
    pub expose_env: bool,

    /// Answers /pod and /pod/events: what the Pod's containers are doing, for the sample site's live page. Whoever reaches
    /// the content can then read the Pod's name, labels and annotations
    #[arg(long, conflicts_with = "manifest")]
    pub pod_page: bool,

    /// Lets the live page ask file-puller to sync now, where it is opened from this machine
    #[arg(long, requires = "pod_page")]
    pub pod_page_actions: bool,

    /// Where file-puller's admin port is, for the live page
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9878")]
    pub pod_page_puller: SocketAddr,

    /// Where log-agent's admin port is, for the live page
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9879")]
    pub pod_page_agent: SocketAddr,

    /// The Pod's labels as the downward API writes them into a volume, for the live page
    #[arg(long, value_name = "FILE")]
    pub pod_labels_file: Option<PathBuf>,

    /// The Pod's annotations, likewise
    #[arg(long, value_name = "FILE")]
    pub pod_annotations_file: Option<PathBuf>,
}
