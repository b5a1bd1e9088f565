//! What `cargo demo` can be told.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifecycle::Container;
use lifecycle::exit::{Exit, Failure};
use lifecycle::units;

use crate::restart_policy::RestartPolicy;

/// Who we are to the shared flag parser: variables are `DEMO_PORT` and so on.
pub(crate) const DEMO: Container =
    Container { name: "demo", admin_port: 0, version: env!("CARGO_PKG_VERSION") };

/// Runs the Pod on bare processes: content manager → file-puller → volume → web-server → log → log-agent
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "cargo demo", bin_name = "cargo demo")]
pub(crate) struct Flags {
    /// The Pod's address; two Pods on one machine take two, such as 127.0.0.1 and 127.0.0.2
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    pub(crate) ip: IpAddr,

    /// First of five ports: web-server, its admin, file-puller's, log-agent's, and the content manager
    #[arg(long, value_name = "PORT", default_value_t = 9876, value_parser = clap::value_parser!(u16).range(1..=65531))]
    pub(crate) port: u16,

    /// What the content manager serves: edit it while the Pod runs
    #[arg(long, value_name = "DIR", default_value_os_t = sample_site())]
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

    /// Keep the volumes after the Pod has stopped, in a temporary folder or in DIR, which only one demo at a time may use
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    #[expect(clippy::option_option, reason = "clap's type for a flag whose value may be left out")]
    pub(crate) keep_dir: Option<Option<PathBuf>>,

    /// Start and stop order: `native` sidecars as Kubernetes 1.29 and later has them, or `classic` containers, all at once
    #[arg(long, value_name = "KIND", default_value = "native")]
    pub(crate) sidecars: Sidecars,

    /// What becomes of a container that ends by itself; native sidecars are always started again. Once the others have ended for
    /// good, so does the demo: with exit code 0 where the Pod has succeeded, and 1 where it has failed
    #[arg(long, value_name = "POLICY", default_value = "Always", ignore_case = true)]
    pub(crate) restart_policy: RestartPolicy,

    /// How long the containers may take to stop, all together, before they are killed
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = units::duration)]
    pub(crate) grace: Duration,

    /// Let log-agent wait before its SIGTERM, within the grace period, as a preStop hook that sleeps does
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub(crate) agent_pre_stop: Option<Duration>,

    /// Let web-server be made unready, failing, slow or dead: POST localhost:9877/faults/unready, failing, delayed, crash, none
    #[arg(long)]
    pub(crate) enable_faults: bool,

    /// Show the records that log-agent ships, instead of counting them on a terminal
    #[arg(long)]
    pub(crate) records: bool,

    /// Show all that the containers say, whole
    #[arg(long)]
    pub(crate) verbose: bool,

    /// Draw what happened to each container, from the Pod's start to its end, into FILE
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) timeline: Option<PathBuf>,

    /// Run the binaries in DIR instead of the ones that `cargo demo` has built
    #[arg(long, value_name = "DIR")]
    pub(crate) binaries: Option<PathBuf>,

    /// No argument goes without a flag; one that does is most likely a value that lacks its `=`.
    #[arg(hide = true)]
    pub(crate) stray: Vec<String>,
}

/// What the two helpers are to the kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sidecars {
    /// Started before the web server, one after the other, and stopped after it in reverse order.
    Native,
    /// Plain containers beside it: no order at start, none at stop.
    Classic,
}

/// The sample site in the repository that this was built in.
fn sample_site() -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    repository.unwrap_or(Path::new(".")).join("deploy/content")
}

impl Flags {
    /// Sees what no parser can see of a single flag. Exit code 64 for a value without a flag, 78 for a folder that is none.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if let Some(stray) = self.stray.first() {
            let hint = match &self.keep_dir {
                Some(None) => format!("did you mean --keep-dir={stray}?"),
                _ => "see --help".to_owned(),
            };
            return Err(Failure::new(Exit::Usage, format!("unexpected argument '{stray}'; {hint}")));
        }
        let folders = [("--content", Some(&self.content)), ("--binaries", self.binaries.as_ref())];
        for (flag, folder) in folders {
            let wanted = !(flag == "--content" && self.source.is_some());
            if let Some(folder) = folder.filter(|folder| wanted && !folder.is_dir()) {
                let problem =
                    if folder.exists() { "this is a file, not a folder" } else { "there is no such folder" };
                return Err(Failure::new(Exit::Refused, format!("{flag} {}: {problem}", folder.display())));
            }
        }
        Ok(())
    }

    /// The address `offset` ports after the first.
    pub(crate) fn addr(&self, offset: u16) -> SocketAddr {
        SocketAddr::new(self.ip, self.port + offset)
    }
}
