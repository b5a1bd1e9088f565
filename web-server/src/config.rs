//! The command line. The bare environment variables of the lesson's image are read in `routes::lesson`; only `PORT0`, which
//! moves the port, is read here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use ipnet::IpNet;
use lifecycle::exit::{Exit, Failure};
use lifecycle::units;

use crate::access_log::Format;
use crate::content::header_policy::{CacheRule, ExtraHeader, LineList};
use crate::content::media_type::TypeRule;
use crate::content::path::ContentPath;
use crate::content::path_glob::PathGlob;
use crate::http::cors::Origin;
use crate::http::trusted_proxies::network;
use crate::memory;

/// Where content is served without `--listen` and `PORT0`.
const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), 9876);

/// The flags that are this container's own.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// What is served: a link to a release (`<volume>/current`), a ConfigMap volume, or a plain directory, which may be
    /// edited in place. While it does not exist, content is answered 503
    #[arg(long, value_name = "DIR")]
    pub(crate) root: PathBuf,

    /// Address that content is served on; without this flag, the variable PORT0 alone moves the port
    /// [default: `[::]:9876`, which is all addresses of both families]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,

    /// File for one line per response, or - for stdout; without this flag no access log is written
    #[arg(long, value_name = "PATH|-")]
    pub(crate) access_log: Option<PathBuf>,

    /// How a line of the access log is written
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    pub(crate) access_log_format: Format,

    /// Size at which the access log is rotated: access.log becomes access.log.1, and so on
    #[arg(long, value_name = "SIZE", default_value = "10MiB", value_parser = units::size)]
    pub(crate) access_log_max_size: u64,

    /// Age at which the access log is rotated, at the next line; without this flag size alone counts
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub(crate) access_log_max_age: Option<Duration>,

    /// How many rotated access logs are kept
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub(crate) access_log_keep: u32,

    /// Memory limit of the whole process, for content, connections and answers under way. The limit of the container (its cgroup)
    /// holds instead where that is lower, or where this flag is not given; without either there is no limit
    #[arg(long, value_name = "SIZE", value_parser = memory_limit)]
    pub(crate) memory_limit: Option<u64>,

    /// Memory for the bodies of smaller files, within the memory limit; the rest is read from the volume at each request
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = units::size)]
    pub(crate) cache_size: u64,

    /// How long an asset that the next release has no more is still given out, for pages that were loaded before; pages
    /// themselves never are
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = units::duration)]
    pub(crate) stale_assets_for: Duration,

    /// Cache-Control of the files that a glob matches, such as '*.css=public, max-age=3600'; the first that matches counts,
    /// other files are revalidated each time. May be repeated (one a line in the variable)
    #[arg(long, value_name = "GLOB=VALUE")]
    pub(crate) cache_control: Vec<LineList<CacheRule>>,

    /// Header for every answer that is content, such as 'Referrer-Policy: no-referrer'. May be repeated (one a line in the
    /// variable)
    #[arg(long, value_name = "NAME: VALUE")]
    pub(crate) header: Vec<LineList<ExtraHeader>>,

    /// Lists directories that have no index.html: HTML, or JSON for who accepts only that
    #[arg(long)]
    pub(crate) autoindex: bool,

    /// Threads that serve connections, each with its own share of them
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,

    /// Connections served at once; for one more the connection is closed that has been silent longest, and where all are being
    /// answered, one whose client has taken nothing for half a second. Without one it waits for 2 s, and gets 503. Memory may allow
    /// fewer
    #[arg(long, value_name = "COUNT", default_value_t = 8192, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub(crate) max_connections: usize,

    /// How long a client may take to send a request's head
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = units::positive_duration)]
    pub(crate) header_timeout: Duration,

    /// How long a connection may idle between requests
    #[arg(long, value_name = "DURATION", default_value = "75s", value_parser = units::duration)]
    pub(crate) idle_timeout: Duration,

    /// How long a client may take nothing of what is being sent to it
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = units::positive_duration)]
    pub(crate) send_timeout: Duration,

    /// Plays the content manager: serves the manifest of the root at /manifest.json, and what it names. Of a volume that
    /// file-puller wrote it is the release's own manifest with its signature
    #[arg(long)]
    pub(crate) manifest: bool,

    /// Longest time that a puller's request is held which prefers to wait for another manifest; keep it below the timeouts of
    /// proxies in between
    #[arg(long, value_name = "DURATION", default_value = "55s", value_parser = units::duration)]
    pub(crate) max_wait: Duration,

    /// How long a plain directory has to be quiet before its edits are in the manifest, so that files which are saved together
    /// are published together
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = units::duration)]
    pub(crate) quiet_period: Duration,

    /// How often a plain directory is walked for its manifest, for edits that file events do not show, as on NFS and on a
    /// desktop's bind mounts
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = units::positive_duration)]
    pub(crate) rescan: Duration,

    /// Networks of the proxies whose X-Forwarded-For or Forwarded is believed, such as 10.0.0.0/8,fd00::/8; without this flag
    /// the client is who opened the connection
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',', value_parser = network)]
    pub(crate) trusted_proxies: Vec<IpNet>,

    /// Page for single-page applications, such as /index.html: the answer to a navigation that leads to no file, where the path
    /// has no extension
    #[arg(long, value_name = "PATH", value_parser = page_path)]
    pub(crate) fallback: Option<ContentPath>,

    /// Answers /about with about.html where there is no file of that name
    #[arg(long)]
    pub(crate) clean_urls: bool,

    /// Content-Type of the files that a glob matches, such as '*.geojson=application/geo+json'; the first that matches counts,
    /// other files have the type of their extension. May be repeated (one a line in the variable)
    #[arg(long, value_name = "GLOB=TYPE")]
    pub(crate) content_type: Vec<LineList<TypeRule>>,

    /// Origins whose scripts may read the content, such as `https://app.example`, or * for all (CORS)
    #[arg(long, value_name = "ORIGIN,...", value_delimiter = ',')]
    pub(crate) cors: Vec<Origin>,

    /// Follows the rules in a _redirects file of the content, as Netlify writes it. Who writes the content then decides about
    /// redirects, too
    #[arg(long)]
    pub(crate) redirects: bool,

    /// Leaves requests for the paths that a glob matches out of the access log, such as /health, unless they fail. May be
    /// repeated (one a line in the variable)
    #[arg(long, value_name = "GLOB")]
    pub(crate) log_exclude: Vec<LineList<PathGlob>>,

    /// Serves content under the names of the lesson's endpoints, too
    #[arg(long)]
    pub(crate) no_lesson: bool,

    /// For labs: lets neighbours in the Pod make this server unready, failing, delayed or crash, by
    /// POST /faults/unready and so on, on the admin port; POST /faults/none ends it
    #[arg(long)]
    pub(crate) enable_faults: bool,

    /// What /info and /endpoint0 call this service's version; without this flag the variables VERSION and
    /// SIMPLE_SERVICE_VERSION are asked [default: 0.5.0]
    #[arg(long, value_name = "VERSION")]
    pub(crate) service_version: Option<String>,

    /// Answers /env with the environment, secrets in it included
    #[arg(long)]
    pub(crate) expose_env: bool,
}

/// A limit that the program can serve in.
fn memory_limit(text: &str) -> Result<u64, String> {
    let limit = units::size(text)?;
    let least = memory::LEAST / (1024 * 1024);
    if limit < memory::LEAST {
        return Err(format!(
            "web-server needs {least} MiB at least (deploy/README.md, Memory, has the formula)"
        ));
    }
    Ok(limit)
}

fn page_path(text: &str) -> Result<ContentPath, String> {
    let path = ContentPath::from_target(text).ok().filter(ContentPath::may_be_redirected);
    path.ok_or_else(|| format!("{text} is no path of a page; write it like /index.html"))
}

/// Where to listen: what the flag says, or else any address at the port in the variable `PORT0`, or else port 9876.
///
/// # Errors
/// Exit code 64 where `PORT0` is no port.
pub fn listen_addr(
    flag: Option<SocketAddr>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<SocketAddr, Failure> {
    let mut addr = flag.unwrap_or(DEFAULT_LISTEN);
    if flag.is_none()
        && let Some(port) = variable("PORT0")
    {
        addr.set_port(port.parse().map_err(|_| {
            Failure::new(Exit::Usage, format!("PORT0={port} is no port; give a number up to 65535"))
        })?);
    }
    Ok(addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn port0_moves_the_port_unless_the_flag_says_where() {
        let flag = "127.0.0.1:1".parse().ok();
        assert_eq!(listen_addr(None, lookup(&[])).unwrap().to_string(), "[::]:9876");
        assert_eq!(listen_addr(None, lookup(&[("PORT0", "80")])).unwrap().to_string(), "[::]:80");
        assert_eq!(listen_addr(flag, lookup(&[("PORT0", "80")])).unwrap().to_string(), "127.0.0.1:1");
        assert!(listen_addr(None, lookup(&[("PORT0", "http")])).is_err());
    }
}
