//! What `cargo demo` can be told.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use lifecycle::Container;
use lifecycle::exit::{Exit, Failure};
use lifecycle::units;

/// Who we are to the shared flag parser: variables are `DEMO_PORT` and so on.
pub(crate) const DEMO: Container =
    Container { name: "demo", admin_port: 0, version: env!("CARGO_PKG_VERSION") };

/// Runs the Pod on bare processes: content manager → file-puller → volume → web-server → log → log-agent
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "cargo demo")]
pub(crate) struct Flags {
    /// The Pod's address; two Pods on one machine take two, such as 127.0.0.1 and 127.0.0.2
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    pub(crate) ip: IpAddr,

    /// First of five ports: web-server, its admin, file-puller's, log-agent's, and the content manager
    #[arg(long, value_name = "PORT", default_value_t = 9876, value_parser = clap::value_parser!(u16).range(1..=65531))]
    pub(crate) port: u16,

    /// What the content manager serves: edit it while the Pod runs
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/content"))]
    pub(crate) content: PathBuf,

    /// Sync from this content manager, instead of running one over the content folder
    #[arg(long, value_name = "URL", conflicts_with = "content")]
    pub(crate) source: Option<String>,

    /// How often file-puller asks the content manager
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = units::duration)]
    pub(crate) period: Duration,

    /// Where log-agent ships to, besides or instead of this terminal
    #[arg(long = "sink", value_name = "URL", default_value = "stdout:")]
    pub(crate) sinks: Vec<String>,

    /// Keep the volumes after the Pod has stopped, in a temporary folder or in DIR
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    #[expect(clippy::option_option, reason = "clap's type for a flag whose value may be left out")]
    pub(crate) keep_dir: Option<Option<PathBuf>>,

    /// Start and stop order: `native` sidecars as Kubernetes 1.29 and later has them, or `classic` containers, all at once
    #[arg(long, value_name = "KIND", default_value = "native")]
    pub(crate) sidecars: Sidecars,

    /// How long the containers may take to stop, all together, before they are killed
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = units::duration)]
    pub(crate) grace: Duration,

    /// Run the binaries in DIR instead of the ones that `cargo demo` has built
    #[arg(long, value_name = "DIR")]
    pub(crate) binaries: Option<PathBuf>,
}

/// What the two helpers are to the kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sidecars {
    /// Started before the web server, one after the other, and stopped after it in reverse order.
    Native,
    /// Plain containers beside it: no order at start, none at stop.
    Classic,
}

impl Flags {
    /// The address `offset` ports after the first.
    pub(crate) fn addr(&self, offset: u16) -> SocketAddr {
        SocketAddr::new(self.ip, self.port + offset)
    }

    /// Sees that every port is free before anything is started.
    ///
    /// # Errors
    /// Exit code 69 where a port is taken, 74 where the address is not ours to bind; both name who wanted it and the flags that
    /// move it.
    pub(crate) fn check_ports(&self) -> Result<(), Failure> {
        let users = [
            "web-server",
            "web-server's admin",
            "file-puller's admin",
            "log-agent's admin",
            "content manager",
        ];
        // Where the content manager is somewhere else, its port here is nobody's business.
        let needed = if self.source.is_none() { 5 } else { 4 };
        for (offset, user) in (0..).zip(users).take(needed) {
            let addr = self.addr(offset);
            if let Err(error) = std::net::TcpListener::bind(addr) {
                let what = format!("cannot listen on {addr} for the {user}");
                return Err(if error.kind() == ErrorKind::AddrInUse {
                    let other = (self.port % 50_000) + 100;
                    let reason = format!(
                        "{what}: the port is taken; move all five ports with --port {other}, or the whole Pod with --ip 127.0.0.2"
                    );
                    Failure::new(Exit::Unavailable, reason)
                } else {
                    Failure::new(Exit::Io, format!("{what}: {error}; choose others with --ip and --port"))
                });
            }
        }
        Ok(())
    }
}
