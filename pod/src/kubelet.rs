//! What a kubelet does for a Pod, on plain child processes: start the containers in order, start a dead one again after
//! the back-off, stop them in order, and kill what does not stop within its grace.
//!
//! Every container runs in a process group of its own. Otherwise Ctrl-C, which the terminal sends to the whole
//! foreground group, would stop all of them at once, and the order would be lost.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use lifecycle::healthcheck::Healthcheck;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::console::{Stream, Voice};
use crate::spec::{ContainerSpec, PodSpec, Startup, StopOrder};

/// How often a startup probe asks.
const PROBE_PERIOD: Duration = Duration::from_millis(50);

/// A Pod whose containers run and are started again when they die.
#[derive(Debug)]
pub struct Kubelet {
    containers: Vec<Supervised>,
    stop_order: StopOrder,
    kill: CancellationToken,
}

/// One container under supervision.
#[derive(Debug)]
struct Supervised {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Kubelet {
    /// A kubelet without containers; cancelling `kill` ends whatever runs at once.
    pub fn new(stop_order: StopOrder, kill: CancellationToken) -> Self {
        Self { containers: Vec::new(), stop_order, kill }
    }

    /// Starts the Pod's containers one after the other, each as soon as the one before it lets it. Ends early, with
    /// what runs by then, when `shutdown` is cancelled.
    ///
    /// # Errors
    /// Where a binary cannot be started at all.
    pub async fn start(
        &mut self,
        spec: PodSpec,
        voices: Vec<Voice>,
        shutdown: &CancellationToken,
    ) -> io::Result<()> {
        for (container, voice) in spec.containers.into_iter().zip(voices) {
            let gate = (container.startup, container.admin);
            let stop = CancellationToken::new();
            let first = spawn(&container, &voice)?;
            let supervisor = Supervisor {
                container,
                voice: voice.clone(),
                grace: spec.grace,
                stop: stop.clone(),
                kill: self.kill.clone(),
            };
            self.containers.push(Supervised { stop, task: tokio::spawn(supervisor.run(first)) });
            if let (Startup::Ready(budget), admin) = gate {
                let probe = tokio::time::timeout(budget, ready(admin));
                tokio::select! {
                    outcome = probe => if outcome.is_err() {
                        voice.say(Stream::Stderr, &format!("startup probe: not ready after {budget:?}; going on without it"));
                    },
                    () = shutdown.cancelled() => return Ok(()),
                }
            }
        }
        Ok(())
    }

    /// Stops the containers in the Pod's order, and waits for each.
    pub async fn stop(self) {
        if self.stop_order == StopOrder::Together {
            self.containers.iter().for_each(|container| container.stop.cancel());
        }
        for container in self.containers.into_iter().rev() {
            container.stop.cancel();
            // A supervisor that panicked has nothing left to stop: its child is killed when it is dropped.
            drop(container.task.await);
        }
    }
}

/// Keeps one container running until it is told to stop.
struct Supervisor {
    container: ContainerSpec,
    voice: Voice,
    grace: Duration,
    stop: CancellationToken,
    kill: CancellationToken,
}

impl Supervisor {
    async fn run(self, mut child: Child) {
        let mut backoff = Backoff::default();
        loop {
            let started = Instant::now();
            tokio::select! {
                status = child.wait() => self.tell(&format!("ended: {}", describe(status))),
                () = self.stop.cancelled() => return self.end(child).await,
                () = self.kill.cancelled() => return self.end(child).await,
            }
            match self.next(backoff.after_death(started.elapsed())).await {
                Some(next) => child = next,
                None => return,
            }
        }
    }

    /// The container's next life, after the back-off; none if the Pod stops first.
    async fn next(&self, wait: Duration) -> Option<Child> {
        if wait.is_zero() {
            self.tell("starting again at once");
        } else {
            self.tell(&format!("back-off: starting again in {} s", wait.as_secs()));
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {},
                () = self.stop.cancelled() => return None,
                () = self.kill.cancelled() => return None,
            }
            match spawn(&self.container, &self.voice) {
                Ok(child) => return Some(child),
                Err(error) => {
                    self.tell(&format!("cannot start {}: {error}", self.container.binary.display()));
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// SIGTERM, the grace period, SIGKILL.
    async fn end(&self, mut child: Child) {
        signal(&child, Signal::TERM);
        tokio::select! {
            status = child.wait() => return self.tell(&format!("stopped: {}", describe(status))),
            () = tokio::time::sleep(self.grace) => self.tell("did not stop within its grace period: killed"),
            () = self.kill.cancelled() => self.tell("killed"),
        }
        if let Err(error) = child.kill().await {
            self.tell(&format!("cannot be killed: {error}"));
        }
    }

    fn tell(&self, line: &str) {
        self.voice.say(Stream::Stderr, &format!("[kubelet] {line}"));
    }
}

fn spawn(container: &ContainerSpec, voice: &Voice) -> io::Result<Child> {
    let mut child = Command::new(&container.binary)
        .args(&container.args)
        .envs(container.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(voice.clone().repeat(stdout, Stream::Stdout));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(voice.clone().repeat(stderr, Stream::Stderr));
    }
    voice.say(Stream::Stderr, &format!("[kubelet] started, pid {}", child.id().unwrap_or_default()));
    Ok(child)
}

fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // An error means that it has ended by itself in this very moment, which is what was wanted.
        let _gone = kill_process(pid, signal);
    }
}

/// Waits until the container that answers probes at `admin` is ready.
async fn ready(admin: std::net::SocketAddr) {
    let probe = Healthcheck { admin_addr: admin };
    loop {
        let asked = probe.clone();
        if let Ok(Ok(())) = tokio::task::spawn_blocking(move || asked.ask()).await {
            return;
        }
        tokio::time::sleep(PROBE_PERIOD).await;
    }
}

fn describe(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => format!("its status is unknown: {error}"),
    }
}
