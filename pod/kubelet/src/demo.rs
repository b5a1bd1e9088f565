//! The content manager and the Pod, from the first line to the last.

use std::fs::OpenOptions;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use lifecycle::exit::{Exit, Failure, OrExit as _};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::binaries::Binaries;
use crate::event::{EventFile, EventLog};
use crate::flags::{Flags, Sidecars};
use crate::kubelet::{Kubelet, StopRequests};
use crate::restart_policy::RestartPolicy;
use crate::spec::{self, PodSpec};
use crate::terminal::{Speaker, Terminal};
use crate::timeline;
use crate::volumes::VolumesDir;
use crate::watcher::Watcher;

/// Everything that is needed to run, made and not started yet.
pub(crate) struct Demo {
    terminal: Arc<Terminal>,
    watcher: Watcher,
    events: EventLog,
    dir: VolumesDir,
    outside: PodSpec,
    inside: PodSpec,
}

impl Demo {
    pub(crate) fn prepare(flags: &Flags, binaries: &Binaries) -> Result<Self, Failure> {
        try_timeline(flags)?;
        let terminal = Arc::new(Terminal::new(flags));
        let watcher = Watcher::start().or_exit(Exit::Internal)?;
        let (dir, volumes) = VolumesDir::create(flags, &watcher, &terminal)?;
        let content = flags.source.is_none().then(|| shown(&flags.content));
        let file = EventFile { path: volumes.podinfo.events.clone(), content };
        let events = EventLog::new(Arc::clone(&terminal), Some(file));
        let outside = spec::content_manager(flags, binaries);
        let inside = spec::pod(flags, binaries, &volumes);
        Ok(Self { terminal, watcher, events, dir, outside, inside })
    }

    /// Runs until a signal comes, or until the Pod has completed.
    pub(crate) async fn run(self, flags: &Flags) -> Result<(), Failure> {
        let Self { terminal, watcher, events, dir, outside, inside } = self;
        let requests = StopRequests::default();
        listen_for_signals(&requests).or_exit(Exit::Internal)?;
        let toggle = signal(SignalKind::user_defined1()).or_exit(Exit::Internal)?;
        let kubelet = || Kubelet::new(requests.clone(), events.clone(), watcher.clone());

        let mut content_manager = ContentManager { spec: outside, kubelet: None };
        let mut pod = kubelet();
        let mut started = content_manager.start(kubelet()).await;
        let mut outcome = Ok(());
        if started.is_ok() {
            started = pod.start(inside).await.or_exit(Exit::Internal);
        }
        if started.is_ok() && !requests.stop.is_cancelled() {
            terminal.block(&banner(flags, &events));
            terminal.say(Speaker::POD, &format!("the Pod is up: {}", site(flags)));
            tokio::select! {
                biased;
                () = requests.stop.cancelled() => {}
                () = pod.completed() => {
                    let failed = events.failed();
                    let phase = if failed.is_some() { "failed" } else { "succeeded" };
                    terminal.say(Speaker::POD, &format!("all but sidecars have ended: the Pod has {phase}"));
                    outcome = failed.map_or(Ok(()), |(container, status)| {
                        Err(Failure::new(Exit::Failed, format!("the Pod has failed: {container} ended: {status}")))
                    });
                }
                never = content_manager.toggle_at(toggle, &terminal, kubelet) => match never {},
            }
        }
        terminal.say(
            Speaker::POD,
            match flags.sidecars {
                Sidecars::Native => "stopping: web-server first, log-agent last",
                Sidecars::Classic => "stopping: all containers at once",
            },
        );
        pod.stop().await;
        content_manager.stop().await;
        terminal.finish();
        let drawn = draw_timeline(flags, &events);
        dir.leave(&terminal);
        terminal.flush();
        started.and_then(|()| requests.refusal()).and(outcome).and(drawn)
    }
}

/// The external content manager. It is a Pod of its own, so that it can come and go.
struct ContentManager {
    spec: PodSpec,
    kubelet: Option<Kubelet>,
}

impl ContentManager {
    async fn start(&mut self, mut kubelet: Kubelet) -> Result<(), Failure> {
        let started = kubelet.start(self.spec.clone()).await.or_exit(Exit::Internal);
        self.kubelet = Some(kubelet);
        started
    }

    async fn stop(&mut self) {
        if let Some(kubelet) = self.kubelet.take() {
            kubelet.stop().await;
        }
    }

    /// Stops it at a signal, and starts it at the next. With `--source` there is none to stop.
    async fn toggle_at(
        &mut self,
        mut toggle: Signal,
        terminal: &Terminal,
        kubelet: impl Fn() -> Kubelet,
    ) -> std::convert::Infallible {
        while toggle.recv().await.is_some() {
            if self.spec.containers.is_empty() {
                terminal.say(Speaker::POD, "the content manager is another's: --source names it");
            } else if self.kubelet.is_some() {
                self.stop().await;
                terminal.say(Speaker::POD, "the content manager is away, until the next SIGUSR1");
            } else if let Err(error) = self.start(kubelet()).await {
                terminal.say(Speaker::POD, &format!("the content manager cannot be started: {error}"));
            }
        }
        std::future::pending().await
    }
}

fn site(flags: &Flags) -> String {
    if flags.ip == Ipv4Addr::LOCALHOST {
        return format!("http://localhost:{}/", flags.port);
    }
    format!("http://{}/", flags.addr(0))
}

/// What there is to see, and two things to try.
fn banner(flags: &Flags, events: &EventLog) -> Vec<String> {
    let site = site(flags);
    let pids = events.pids();
    let pid = |container: &str| pids.iter().find(|(name, _)| *name == container).map_or(0, |(_, pid)| *pid);
    let mut lines = vec![
        String::new(),
        format!("  {:15} {site}", "site"),
        format!("  {:15} {site}live.html", "live page"),
    ];
    lines.extend(pids.iter().map(|(name, pid)| format!("  {name:15} pid {pid}")));
    let edit = match &flags.source {
        Some(source) => format!("change what {source} lists, and reload"),
        None => format!("edit {}/index.html, and reload", shown(&flags.content)),
    };
    lines.push(String::new());
    lines.push(format!("  try   {edit}"));
    if flags.restart_policy == RestartPolicy::Always {
        lines.push(format!("  try   kill -9 {}: web-server comes back", pid("web-server")));
    }
    if flags.source.is_none() {
        let own = std::process::id();
        lines.push(format!("  try   kill -USR1 {own}: the content manager goes away, or comes back"));
    }
    lines.push("  stop  Ctrl-C; a second one does not wait".to_owned());
    lines.push(String::new());
    lines
}

/// The folder as it is shortest from here: relative where it is this folder or beneath it, for commands that are typed here.
fn shown(folder: &Path) -> String {
    let Ok(full) = folder.canonicalize() else { return folder.display().to_string() };
    // Both are resolved, so that a symbolic link on the way here does not matter.
    let here = std::env::current_dir().and_then(|here| here.canonicalize()).unwrap_or_default();
    match full.strip_prefix(here) {
        Ok(beneath) if beneath == Path::new("") => ".".to_owned(),
        Ok(beneath) => beneath.display().to_string(),
        Err(_) => full.display().to_string(),
    }
}

/// Opens the file of `--timeline`, and makes it where there is none: what happens until the end is not drawn in vain. What is in it stays.
fn try_timeline(flags: &Flags) -> Result<(), Failure> {
    let Some(file) = &flags.timeline else { return Ok(()) };
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(file);
    opened.map(drop).with_context(|| format!("--timeline {}", file.display())).or_exit(Exit::Io)
}

fn draw_timeline(flags: &Flags, events: &EventLog) -> Result<(), Failure> {
    let Some(file) = &flags.timeline else { return Ok(()) };
    let written = std::fs::write(file, timeline::svg(&events.all()));
    written.with_context(|| format!("--timeline {}", file.display())).or_exit(Exit::Io)
}

/// The first signal stops the Pod in order, a second one kills it: no child may outlive us, however impatient the person is.
fn listen_for_signals(requests: &StopRequests) -> std::io::Result<()> {
    let hangup = (!hangup_is_ignored()).then(SignalKind::hangup);
    for kind in [SignalKind::interrupt(), SignalKind::terminate()].into_iter().chain(hangup) {
        let mut signals = signal(kind)?;
        let StopRequests { stop, kill, .. } = requests.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if stop.is_cancelled() { kill.cancel() } else { stop.cancel() }
            }
        });
    }
    Ok(())
}

/// Whether this process was started with SIGHUP ignored (proc(5), `SigIgn`), as `nohup` does: then the Pod outlives its terminal.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The lowest bit is signal 1, SIGHUP.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::event::What;

    #[test]
    fn the_site_is_where_a_browser_finds_it() {
        for (ip, url) in [
            ("127.0.0.1", "http://localhost:9876/"),
            ("127.0.0.2", "http://127.0.0.2:9876/"),
            ("::1", "http://[::1]:9876/"),
        ] {
            assert_eq!(site(&Flags::parse_from(["kubelet", "--ip", ip])), url);
        }
    }

    #[test]
    fn the_banner_fits_into_80_columns() {
        // A folder beneath the one that tests run in: how long the path of the clone is does not matter here.
        let flags = Flags::parse_from(["kubelet", "--ip", "127.100.100.100", "--content", "tests/scenarios"]);
        let events = EventLog::new(Arc::new(Terminal::new(&flags)), None);
        events.record("content-manager", What::Started { pid: 4_194_304 });
        for line in banner(&flags, &events) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn the_content_is_named_as_it_is_shortest_from_here() {
        assert_eq!(shown(Path::new(".")), ".");
        assert_eq!(shown(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")), "tests/scenarios");
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(shown(elsewhere.path()), elsewhere.path().canonicalize().unwrap().display().to_string());
    }
}
