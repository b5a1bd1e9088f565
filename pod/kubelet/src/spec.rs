//! This Pod, declared as data, the way a manifest declares it: containers, the volumes they share, and their order.
//!
//! `deploy/kubernetes/` says the same in YAML. What a kubelet then does with such a declaration is `kubelet.rs`.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::binaries::Binaries;
use crate::flags::{Flags, Sidecars};
use crate::restart_policy::RestartPolicy;
use crate::volumes::Volumes;

/// When a container is stopped, relative to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopOrder {
    /// One at a time, the last started first.
    Reverse,
    /// All at once.
    Together,
}

/// One container.
#[derive(Debug, Clone)]
pub(crate) struct ContainerSpec {
    /// Its name in the Pod, before every line that it prints.
    pub(crate) name: &'static str,
    /// Its image, so to speak.
    pub(crate) binary: PathBuf,
    /// Its command line.
    pub(crate) args: Vec<OsString>,
    /// Its whole environment.
    pub(crate) env: Vec<(&'static str, String)>,
    /// Where its probes are answered; none for a container without probes.
    pub(crate) admin: Option<SocketAddr>,
    /// A startup probe: how long its `/readyz` may take to answer 200 for the first time. The next container waits for that; without
    /// a probe, only until this one's process runs.
    pub(crate) startup_probe: Option<Duration>,
    /// A liveness probe, asked from the first success of the startup probe on; without a startup probe, from the start on.
    pub(crate) liveness_probe: Option<LivenessProbe>,
    /// Whether it is started again when it ends by itself.
    pub(crate) restart_policy: RestartPolicy,
    /// A preStop hook that sleeps for so long, before SIGTERM is sent.
    pub(crate) pre_stop: Option<Duration>,
}

/// How often a container's `/livez` is asked, and how many failures in a row end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LivenessProbe {
    pub(crate) period: Duration,
    /// An answer that takes longer is a failure.
    pub(crate) timeout: Duration,
    pub(crate) failure_threshold: u32,
}

impl Default for LivenessProbe {
    /// What Kubernetes takes where a manifest says nothing, as ours do (Probe v1 core).
    fn default() -> Self {
        Self { period: Duration::from_secs(10), timeout: Duration::from_secs(1), failure_threshold: 3 }
    }
}

/// A Pod: containers in the order in which they are started.
#[derive(Debug, Clone)]
pub(crate) struct PodSpec {
    /// First started first.
    pub(crate) containers: Vec<ContainerSpec>,
    /// How they are stopped.
    pub(crate) stop_order: StopOrder,
    /// How long they may take to stop, all together.
    pub(crate) grace: Duration,
}

/// The budget of file-puller's startup probe, as in the Kubernetes manifests.
const STARTUP_BUDGET: Duration = Duration::from_secs(300);

/// A loopback address that no Pod has.
const APART: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 255, 255, 254));

/// The page without which a release is held back.
const HOME: &str = "index.html";

/// The external content manager. It is no part of the Pod; the demo runs one unless it is told of another.
pub(crate) fn content_manager(flags: &Flags, binaries: &Binaries) -> PodSpec {
    // IPv6 has one loopback address, and where there is no IPv4 there is no other.
    let apart = if flags.ip.is_ipv6() { flags.ip } else { APART };
    let container = Args::default()
        .flag("--root", &flags.content)
        .flag("--listen", flags.addr(4).to_string())
        // The content manager stands for a server elsewhere, and has no probes. Its admin server gets an address of its own, because the
        // kernel may choose a port of the Pod's where `ip_local_port_range` includes one.
        .flag("--admin-addr", SocketAddr::new(apart, 0).to_string())
        .word("--manifest")
        // Desktops show no file events on some bind mounts; an edit must not wait longer than the labs say.
        .flag("--rescan", "2s")
        .container("content-manager", binaries.path("web-server"), None);
    let containers = if flags.source.is_none() { vec![container] } else { Vec::new() };
    PodSpec { containers, stop_order: StopOrder::Together, grace: flags.grace }
}

/// The Pod itself.
pub(crate) fn pod(flags: &Flags, binaries: &Binaries, volumes: &Volumes) -> PodSpec {
    let sidecars = [log_agent(flags, binaries, volumes), file_puller(flags, binaries, volumes)];
    let sidecars = sidecars.map(|sidecar| ContainerSpec {
        restart_policy: match flags.sidecars {
            Sidecars::Native => RestartPolicy::Always,
            Sidecars::Classic => flags.restart_policy,
        },
        ..sidecar
    });
    let main = web_server(flags, binaries, volumes);
    let main = ContainerSpec { restart_policy: flags.restart_policy, ..main };
    let containers = sidecars.into_iter().chain([main]).collect();
    let stop_order = match flags.sidecars {
        Sidecars::Native => StopOrder::Reverse,
        Sidecars::Classic => StopOrder::Together,
    };
    PodSpec { containers, stop_order, grace: flags.grace }
}

/// Keeps the content volume in step with the content manager.
fn file_puller(flags: &Flags, binaries: &Binaries, volumes: &Volumes) -> ContainerSpec {
    let source = flags.source.clone().unwrap_or_else(|| format!("http://{}/manifest.json", flags.addr(4)));
    let mut args = Args::default();
    // A gate to be tried: what the site begins with it must go on having. What another content manager has is not known here.
    if flags.source.is_none() && flags.content.join(HOME).is_file() {
        args = args.flag("--require", HOME);
    }
    let mut container = args
        .flag("--source", source)
        .flag("--volume", &volumes.content)
        .flag("--period", format!("{}ms", flags.period.as_millis()))
        .flag("--admin-addr", flags.addr(2).to_string())
        .container("file-puller", binaries.path("file-puller"), Some(flags.addr(2)));
    container.startup_probe = startup_probe(flags);
    container
}

/// Native sidecars are waited for, so that the server starts on a volume that has content; and then the server is, so that
/// the Pod is up when we say so.
fn startup_probe(flags: &Flags) -> Option<Duration> {
    (flags.sidecars == Sidecars::Native).then_some(STARTUP_BUDGET)
}

/// Serves the content volume and writes the access log.
fn web_server(flags: &Flags, binaries: &Binaries, volumes: &Volumes) -> ContainerSpec {
    let mut args = Args::default();
    if flags.enable_faults {
        args = args.word("--enable-faults");
    }
    let mut container = args
        .flag("--root", volumes.content.join("current"))
        .flag("--listen", flags.addr(0).to_string())
        .flag("--access-log", volumes.logs.join("access.log"))
        .flag("--admin-addr", flags.addr(1).to_string())
        // The live page, and its button: users of this machine may press it.
        .word("--pod-page")
        .word("--pod-page-actions")
        .flag("--pod-page-puller", flags.addr(2).to_string())
        .flag("--pod-page-agent", flags.addr(3).to_string())
        .flag("--pod-labels-file", &volumes.podinfo.labels)
        .flag("--pod-annotations-file", &volumes.podinfo.annotations)
        .flag("--pod-events-file", &volumes.podinfo.events)
        .flag("--pod-runs-on", "demo")
        .container("web-server", binaries.path("web-server"), Some(flags.addr(1)));
    container.startup_probe = startup_probe(flags);
    container.env = volumes.podinfo.variables();
    container
}

/// Ships the access log.
fn log_agent(flags: &Flags, binaries: &Binaries, volumes: &Volumes) -> ContainerSpec {
    let mut args = Args::default()
        .flag("--include", format!("{}/access.log*", literal(&volumes.logs)))
        .flag("--state-dir", &volumes.state)
        .flag("--admin-addr", flags.addr(3).to_string());
    for sink in &flags.sinks {
        args = args.flag("--sink", sink);
    }
    let mut container = args.container("log-agent", binaries.path("log-agent"), Some(flags.addr(3)));
    container.env = volumes.podinfo.variables();
    container.pre_stop = flags.agent_pre_stop;
    container
}

/// A path as a pattern for log-agent that matches nothing else. A comma would end the pattern even where it is escaped, so `?` stands
/// for it, which matches any single character.
fn literal(path: &Path) -> String {
    let mut pattern = String::new();
    // The folder of the volumes has a path in UTF-8.
    for character in path.to_string_lossy().chars() {
        match character {
            '*' | '?' | '[' | ']' => pattern.extend(['[', character, ']']),
            ',' => pattern.push('?'),
            _ => pattern.push(character),
        }
    }
    pattern
}

/// A command line in the making.
#[derive(Default)]
struct Args(Vec<OsString>);

impl Args {
    fn flag(self, name: &str, value: impl Into<OsString>) -> Self {
        let mut args = self.word(name);
        args.0.push(value.into());
        args
    }

    fn word(mut self, word: &str) -> Self {
        self.0.push(word.into());
        self
    }

    fn container(self, name: &'static str, binary: PathBuf, admin: Option<SocketAddr>) -> ContainerSpec {
        ContainerSpec {
            name,
            binary,
            args: self.0,
            env: Vec::new(),
            admin,
            startup_probe: None,
            liveness_probe: admin.map(|_| LivenessProbe::default()),
            restart_policy: RestartPolicy::Always,
            pre_stop: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    /// It did once, where the kernel chooses from all ports: file-puller could not listen on 9878, and `POST /sync` got 404 there.
    #[test]
    fn the_content_managers_admin_server_never_takes_a_port_of_the_pod() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["file-puller", "web-server", "log-agent"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let binaries = Binaries::find(Some(dir.path())).unwrap();
        let flags = Flags::parse_from(["kubelet", "--ip", "127.0.0.2"]);
        let args = content_manager(&flags, &binaries).containers.remove(0).args;
        let admin = args.iter().skip_while(|arg| *arg != "--admin-addr").nth(1).unwrap();
        let admin: SocketAddr = admin.to_str().unwrap().parse().unwrap();
        assert!(admin.ip().is_loopback() && admin.ip() != flags.ip, "{admin}");
    }

    /// The demo's liveness probes are Kubernetes' defaults because the manifests name no figures.
    #[test]
    fn the_manifests_leave_the_figures_of_the_liveness_probes_to_kubernetes() {
        for base in ["native", "classic"] {
            let manifest = format!("../../deploy/kubernetes/base-{base}/deployment.yaml");
            let manifest =
                std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(manifest)).unwrap();
            let indent = |line: &str| line.len() - line.trim_start().len();
            let lines: Vec<&str> = manifest.lines().collect();
            let probes = lines.iter().enumerate().filter(|(_, line)| line.trim() == "livenessProbe:");
            let probes: Vec<_> = probes
                .map(|(at, probe)| {
                    let fields = lines.iter().skip(at + 1).take_while(|line| indent(line) > indent(probe));
                    fields.map(|line| line.trim()).collect::<Vec<_>>()
                })
                .collect();
            assert_eq!(probes.len(), 3, "{base}");
            for fields in probes {
                assert!(
                    matches!(fields[..], [only] if only.starts_with("httpGet: {path: /livez, ")),
                    "{fields:?}"
                );
            }
        }
    }
}
