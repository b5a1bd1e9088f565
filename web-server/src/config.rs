//! What the command line decides. What the lesson's image took from bare environment variables is read in
//! [`crate::lesson`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lifecycle::units;

use crate::access_log::Format;

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

    /// What /info and /endpoint0 call this service's version; without this flag the variables VERSION and
    /// SIMPLE_SERVICE_VERSION are asked [default: 0.5.0]
    #[arg(long, value_name = "VERSION")]
    pub service_version: Option<String>,

    /// Answers /env with the environment, secrets in it included
    #[arg(long)]
    pub expose_env: bool,
}
