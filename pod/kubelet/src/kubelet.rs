//! What a kubelet does for a Pod, on plain child processes: start the containers in order, probe them, start a dead one
//! again after the back-off, stop them in order within one grace period, and kill what does not stop.
//!
//! Every container runs in a process group of its own. Otherwise Ctrl-C, which the terminal sends to the whole
//! foreground group, would stop all of them at once, and the order would be lost.

use std::io;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use lifecycle::exit::{Exit, Failure};
use lifecycle::healthcheck::Healthcheck;
use rustix::process::{Signal, kill_process};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::console::{Prefix, Stream};
use crate::process::ContainerProcess;
use crate::spec::{ContainerSpec, PodSpec, Startup, StopOrder};

/// How often a startup probe asks.
const PROBE_PERIOD: Duration = Duration::from_millis(50);
/// What is left of the grace period for a container whose turn to stop comes last: at least this, as the kubelet has it.
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// What has been asked of the Pod so far, by the person at the terminal or by a container that cannot run at all.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopRequests {
    /// Stop, in order.
    pub(crate) stop: CancellationToken,
    /// Stop, at once.
    pub(crate) kill: CancellationToken,
    refused: Arc<OnceLock<(&'static str, Exit)>>,
}

impl StopRequests {
    /// The container that refused its configuration when it was first started, if one did.
    ///
    /// # Errors
    /// With the exit code that the container gave.
    pub(crate) fn refusal(&self) -> Result<(), Failure> {
        match self.refused.get() {
            None => Ok(()),
            Some((name, exit)) => {
                let reason = format!("{name} refuses its configuration: its last line above says why");
                Err(Failure::new(*exit, reason))
            }
        }
    }
}

/// A Pod whose containers run and are started again when they die.
#[derive(Debug)]
pub(crate) struct Kubelet {
    containers: Vec<Supervised>,
    stop_order: StopOrder,
    grace: Duration,
    requests: StopRequests,
    /// Set when the Pod begins to stop: the one deadline that all its containers share.
    deadline: Arc<OnceLock<Instant>>,
}

/// One container under supervision.
#[derive(Debug)]
struct Supervised {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Kubelet {
    /// A kubelet without containers.
    pub(crate) fn new(requests: StopRequests) -> Self {
        Self {
            containers: Vec::new(),
            stop_order: StopOrder::Together,
            grace: Duration::ZERO,
            requests,
            deadline: Arc::default(),
        }
    }

    /// Starts the Pod's containers one after the other, each as soon as the one before it lets it. Ends early, with
    /// what runs by then, when the Pod is to stop.
    ///
    /// # Errors
    /// Where a binary cannot be started at all.
    pub(crate) async fn start(&mut self, spec: PodSpec, prefixes: Vec<Prefix>) -> io::Result<()> {
        (self.stop_order, self.grace) = (spec.stop_order, spec.grace);
        for (container, prefix) in spec.containers.into_iter().zip(prefixes) {
            let first = ContainerProcess::spawn(&container, &prefix)?;
            let (stop, started) = (CancellationToken::new(), CancellationToken::new());
            let supervisor = Supervisor {
                container,
                prefix,
                grace: self.grace,
                stop: stop.clone(),
                started: started.clone(),
                requests: self.requests.clone(),
                deadline: Arc::clone(&self.deadline),
            };
            self.containers.push(Supervised { stop, task: tokio::spawn(supervisor.run(first)) });
            tokio::select! {
                () = started.cancelled() => {}
                () = self.requests.stop.cancelled() => return Ok(()),
            }
        }
        Ok(())
    }

    /// Stops the containers in the Pod's order, all within one grace period, and waits for each.
    pub(crate) async fn stop(self) {
        // Set once: a Pod does not begin to stop twice.
        let _already = self.deadline.set(Instant::now() + self.grace);
        if self.stop_order == StopOrder::Together {
            self.containers.iter().for_each(|container| container.stop.cancel());
        }
        for container in self.containers.into_iter().rev() {
            container.stop.cancel();
            // A supervisor does not end before its container has.
            drop(container.task.await);
        }
    }
}

/// Keeps one container running until it is told to stop.
struct Supervisor {
    container: ContainerSpec,
    prefix: Prefix,
    grace: Duration,
    stop: CancellationToken,
    /// Cancelled when the next container may start.
    started: CancellationToken,
    requests: StopRequests,
    deadline: Arc<OnceLock<Instant>>,
}

/// Why a container's process has to end, or has ended.
enum End {
    Asked,
    Died(io::Result<ExitStatus>),
    /// Its startup probe failed.
    NeverReady(Duration),
}

impl Supervisor {
    async fn run(self, mut process: ContainerProcess) {
        let mut backoff = Backoff::default();
        let mut first = true;
        loop {
            let began = Instant::now();
            match self.watch(&mut process).await {
                End::Asked => return self.end(process).await,
                End::Died(status) => {
                    self.tell(&format!("ended: {}", describe(&status)));
                    process.finish().await;
                    if first && self.refused(&status) {
                        return;
                    }
                }
                End::NeverReady(budget) => {
                    self.tell(&format!("startup probe failed: not ready within {budget:?}"));
                    self.end(process).await;
                }
            }
            first = false;
            match self.next(&mut backoff, began.elapsed()).await {
                Some(next) => process = next,
                None => return,
            }
        }
    }

    /// Probes the container until it has started, and then waits for whatever ends it.
    async fn watch(&self, process: &mut ContainerProcess) -> End {
        let probe = self.startup_probe();
        tokio::pin!(probe);
        let mut probing = true;
        loop {
            tokio::select! {
                biased;
                () = self.asked() => return End::Asked,
                status = process.wait() => return End::Died(status),
                passed = &mut probe, if probing => match passed {
                    Ok(()) => {
                        probing = false;
                        self.started.cancel();
                    }
                    Err(budget) => return End::NeverReady(budget),
                },
            }
        }
    }

    /// Until the container may be called started, or its budget is spent.
    async fn startup_probe(&self) -> Result<(), Duration> {
        match self.container.startup {
            Startup::Immediate => Ok(()),
            Startup::Ready(budget) => {
                tokio::time::timeout(budget, ready(self.container.admin)).await.map_err(|_| budget)
            }
        }
    }

    async fn asked(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.requests.kill.cancelled() => {}
        }
    }

    /// The container's next process, after the back-off; none if the Pod stops first.
    async fn next(&self, backoff: &mut Backoff, ran: Duration) -> Option<ContainerProcess> {
        let mut wait = backoff.after_death(ran);
        loop {
            if wait.is_zero() {
                self.tell("starting again at once");
            } else {
                self.tell(&format!("back-off: starting again in {} s", wait.as_secs()));
            }
            tokio::select! {
                biased;
                () = self.asked() => return None,
                () = tokio::time::sleep(wait) => {}
            }
            match ContainerProcess::spawn(&self.container, &self.prefix) {
                Ok(process) => return Some(process),
                Err(error) => {
                    self.tell(&format!("cannot start {}: {error}", self.container.binary.display()));
                }
            }
            wait = backoff.after_death(Duration::ZERO);
        }
    }

    /// A container that refuses its flags will refuse them every time: that is for the person at the terminal to mend, and
    /// hidden in a crash loop nobody would see it.
    fn refused(&self, status: &io::Result<ExitStatus>) -> bool {
        let exit = match status.as_ref().ok().and_then(ExitStatus::code) {
            Some(code) if code == Exit::Usage as i32 => Exit::Usage,
            Some(code) if code == Exit::Refused as i32 => Exit::Refused,
            _ => return false,
        };
        // The first to refuse is the one that is told of.
        let _later = self.requests.refused.set((self.container.name, exit));
        self.requests.stop.cancel();
        true
    }

    /// SIGTERM, what is left of the grace period, SIGKILL.
    async fn end(&self, mut process: ContainerProcess) {
        let now = Instant::now();
        let deadline = self.deadline.get().copied().unwrap_or(now + self.grace).max(now + LEAST_GRACE);
        if let Some(pid) = process.pid() {
            // An error means that it has ended by itself in this very moment, which is what was wanted.
            let _gone = kill_process(pid, Signal::TERM);
        }
        tokio::select! {
            biased;
            status = process.wait() => self.tell(&format!("stopped: {}", describe(&status))),
            () = self.requests.kill.cancelled() => self.kill(&mut process, "killed").await,
            () = tokio::time::sleep_until(deadline.into()) => {
                self.kill(&mut process, "did not stop within the grace period: killed").await;
            }
        }
        process.finish().await;
    }

    async fn kill(&self, process: &mut ContainerProcess, why: &str) {
        self.tell(why);
        if let Err(error) = process.kill().await {
            self.tell(&format!("cannot be killed: {error}"));
        }
    }

    fn tell(&self, line: &str) {
        self.prefix.say(Stream::Stderr, &format!("[kubelet] {line}"));
    }
}

/// Waits until the container that answers probes at `admin` is ready.
async fn ready(admin: SocketAddr) {
    let probe = Healthcheck { admin_addr: admin };
    loop {
        let asked = probe.clone();
        if let Ok(Ok(())) = tokio::task::spawn_blocking(move || asked.ask()).await {
            return;
        }
        tokio::time::sleep(PROBE_PERIOD).await;
    }
}

fn describe(status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => format!("its status is unknown: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use testkit::wait::DEADLINE;

    use super::*;

    /// A container that notes each of its lives in `diary` and does nothing else, ready never.
    fn hermit(diary: &Path, budget: Duration) -> ContainerSpec {
        ContainerSpec {
            name: "hermit",
            binary: "/bin/sh".into(),
            args: vec!["-c".into(), format!("echo born >> {}; exec sleep 600", diary.display()).into()],
            env: vec![("PATH", "/usr/bin:/bin".to_owned())],
            admin: SocketAddr::from(([127, 0, 0, 1], 1)),
            startup: Startup::Ready(budget),
        }
    }

    /// As in a cluster: a startup probe that fails ends the container, the back-off follows, and the next container waits.
    #[tokio::test]
    async fn a_container_that_never_starts_is_started_again_and_holds_up_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let (first, next) = (dir.path().join("first"), dir.path().join("next"));
        let containers =
            vec![hermit(&first, Duration::from_millis(200)), hermit(&next, Duration::from_secs(600))];
        let spec = PodSpec { containers, stop_order: StopOrder::Reverse, grace: Duration::from_secs(5) };
        let prefixes = vec![Prefix::new("first", 0, 5), Prefix::new("next", 1, 5)];

        let requests = StopRequests::default();
        let mut kubelet = Kubelet::new(requests.clone());
        let twice = async {
            while std::fs::read_to_string(&first).unwrap_or_default().lines().count() < 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            requests.stop.cancel();
        };
        let both = async { tokio::join!(kubelet.start(spec, prefixes), twice) };
        let (started, ()) = tokio::time::timeout(DEADLINE, both).await.expect("it is started a second time");
        started.unwrap();
        assert!(!next.exists(), "the next container was started before the first was ready");
        tokio::time::timeout(DEADLINE, kubelet.stop()).await.expect("it stops");
    }
}
