//! What a kubelet does for a Pod, on plain child processes: start the containers in order, probe them, start a dead one
//! again after the back-off, end and restart one that hangs, stop them in order within one grace period, and kill what does not stop.
//!
//! Every container runs in a process group of its own. Otherwise Ctrl-C, which the terminal sends to the whole
//! foreground group, would stop all of them at once, and the order would be lost.

use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use lifecycle::Ignore as _;
use lifecycle::exit::{Exit, Failure};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::event::{EventLog, What, Why};
use crate::probe;
use crate::process::ContainerProcess;
use crate::spec::{ContainerSpec, PodSpec, StopOrder};
use crate::watcher::Watcher;

/// What is left of the grace period for a container whose turn to stop comes last: at least this, as the kubelet has it.
const LEAST_GRACE: Duration = Duration::from_secs(2);
/// How long the start of a Pod may stand still before a line says what it waits for.
const REPORT_AFTER: Duration = Duration::from_secs(1);

/// What has been asked of the Pod so far, by the person at the terminal or by a container that cannot run at all.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopRequests {
    /// Stop, in order.
    pub(crate) stop: CancellationToken,
    /// Stop, at once.
    pub(crate) kill: CancellationToken,
    refused: Arc<OnceLock<Refusal>>,
}

/// A container that refused its configuration when it was first started.
#[derive(Debug)]
struct Refusal {
    container: &'static str,
    exit: Exit,
    last_line: String,
}

impl StopRequests {
    /// The first container that refused its configuration, if one did: its exit code, and its reason.
    pub(crate) fn refusal(&self) -> Result<(), Failure> {
        let Some(Refusal { container, exit, last_line }) = self.refused.get() else { return Ok(()) };
        // A container's last line begins with its name.
        let reason = last_line
            .strip_prefix(container)
            .map_or(&**last_line, |rest| rest.trim_start_matches([':', ' ']));
        Err(Failure::new(*exit, format!("{container} refuses its configuration: {reason}")))
    }
}

/// A Pod whose containers run and are started again when they die.
#[derive(Debug)]
pub(crate) struct Kubelet {
    containers: Vec<Supervised>,
    stop_order: StopOrder,
    shared: Shared,
}

/// What all containers of a Pod have in common.
#[derive(Debug, Clone)]
struct Shared {
    grace: Duration,
    requests: StopRequests,
    events: EventLog,
    watcher: Watcher,
    /// Set when the Pod begins to stop.
    deadline: Arc<OnceLock<Instant>>,
    /// Cancelled when the Pod begins to stop: from then on no container is ended for a probe.
    stopping: CancellationToken,
}

/// One container under supervision.
#[derive(Debug)]
struct Supervised {
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// Whether the Pod is over without it. A native sidecar only accompanies others.
    sidecar: bool,
}

impl Kubelet {
    /// A kubelet without containers.
    pub(crate) fn new(requests: StopRequests, events: EventLog, watcher: Watcher) -> Self {
        let (deadline, stopping) = (Arc::default(), CancellationToken::new());
        let shared = Shared { grace: Duration::ZERO, requests, events, watcher, deadline, stopping };
        Self { containers: Vec::new(), stop_order: StopOrder::Together, shared }
    }

    /// Starts the Pod's containers one after the other, each as soon as the one before it lets it. Ends early, with
    /// what runs by then, when the Pod is to stop. An error means that a binary cannot be started at all.
    pub(crate) async fn start(&mut self, spec: PodSpec) -> io::Result<()> {
        (self.stop_order, self.shared.grace) = (spec.stop_order, spec.grace);
        let mut containers = spec.containers.into_iter().peekable();
        while let Some(container) = containers.next() {
            let name = container.name;
            let first = ContainerProcess::spawn(&container, self.shared.events.terminal())?;
            let (stop, started) = (CancellationToken::new(), CancellationToken::new());
            let sidecar = spec.stop_order == StopOrder::Reverse && containers.peek().is_some();
            let shared = self.shared.clone();
            let supervisor = Supervisor { container, stop: stop.clone(), started: started.clone(), shared };
            self.containers.push(Supervised { stop, task: tokio::spawn(supervisor.run(first)), sidecar });
            let waiting = async {
                tokio::time::sleep(REPORT_AFTER).await;
                if let Some(next) = containers.peek() {
                    self.shared.events.record(next.name, What::Waits(name));
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = started.cancelled() => {}
                () = self.shared.requests.stop.cancelled() => return Ok(()),
                () = waiting => {}
            }
        }
        Ok(())
    }

    /// Waits until no container but sidecars is left that runs or will run again: the Pod has `Succeeded` or `Failed`.
    pub(crate) async fn completed(&mut self) {
        for container in self.containers.iter_mut().filter(|container| !container.sidecar) {
            // A panic of a supervisor ends the process.
            (&mut container.task).await.ignore();
        }
    }

    /// Stops the containers in the Pod's order, all within one grace period, and waits for each.
    pub(crate) async fn stop(self) {
        // Set once: a Pod does not begin to stop twice.
        self.shared.deadline.set(Instant::now() + self.shared.grace).ignore();
        self.shared.stopping.cancel();
        if self.stop_order == StopOrder::Together {
            self.containers.iter().for_each(|container| container.stop.cancel());
        }
        for container in self.containers.into_iter().rev() {
            container.stop.cancel();
            if !container.task.is_finished() {
                // A supervisor does not end before its container has; a panic ends the process.
                container.task.await.ignore();
            }
        }
    }
}

/// Keeps one container running until it is told to stop.
struct Supervisor {
    container: ContainerSpec,
    stop: CancellationToken,
    /// Cancelled when the next container may start.
    started: CancellationToken,
    shared: Shared,
}

/// Why a container's process has to end, or has ended.
enum End {
    Requested,
    Died(ExitStatus),
    StartupProbeFailed(Duration),
    LivenessProbeFailed,
}

impl Supervisor {
    async fn run(self, mut process: ContainerProcess) {
        let mut backoff = Backoff::default();
        let mut first = true;
        loop {
            let began = Instant::now();
            self.tell_of(&process);
            let end = self.watch(&mut process).await;
            match end {
                End::Requested => {
                    self.end(process).await;
                    return;
                }
                End::Died(status) => {
                    let last_line = process.last_line(&self.shared.requests.kill).await;
                    self.tell(What::Ended(status));
                    if first && self.refused(status, last_line) {
                        return;
                    }
                    if !self.container.restart_policy.restarts(status) {
                        return self.stays_ended(status);
                    }
                }
                End::StartupProbeFailed(_) | End::LivenessProbeFailed => {
                    if let End::StartupProbeFailed(budget) = end {
                        self.tell(What::StartupProbeFailed(budget));
                    }
                    let status = self.end(process).await;
                    // The Pod may have begun to stop meanwhile.
                    if self.is_asked() {
                        return;
                    }
                    if !self.container.restart_policy.restarts_after_failed_probe() {
                        return self.stays_ended(status);
                    }
                }
            }
            first = false;
            match self.next(&mut backoff, began.elapsed()).await {
                Some(next) => process = next,
                None => return,
            }
        }
    }

    /// Probes the container and waits for whatever ends it.
    async fn watch(&self, process: &mut ContainerProcess) -> End {
        let probe = self.container.startup_probe;
        if probe.is_none() {
            self.started.cancel();
        }
        // Each process has to start again, whatever the one before it has come to.
        let ready = CancellationToken::new();
        let late = async {
            match probe {
                Some(budget) if tokio::time::timeout(budget, ready.cancelled()).await.is_err() => budget,
                _ => {
                    self.started.cancel();
                    std::future::pending().await
                }
            }
        };
        let hangs = async {
            let (Some(admin), Some(liveness)) = (self.container.admin, self.container.liveness_probe) else {
                return std::future::pending().await;
            };
            if probe.is_some() {
                ready.cancelled().await;
            }
            let asked = probe::until_not_alive(self.container.name, admin, liveness, &self.shared.events);
            match self.shared.stopping.run_until_cancelled(asked).await {
                Some(()) => {}
                None => std::future::pending().await,
            }
        };
        let group = process.pid();
        let probes = async {
            match self.container.admin {
                Some(admin) => {
                    probe::watch(self.container.name, admin, group, &ready, &self.shared.events).await;
                }
                // As in a cluster: without a readiness probe, a container is ready as soon as it runs.
                None => self.tell(What::Ready),
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            () = self.asked() => End::Requested,
            status = process.wait() => match status {
                Ok(status) => End::Died(status),
                // Not a child of ours: no system call of this program can lead to that.
                Err(_no_child) => std::future::pending().await,
            },
            budget = late => End::StartupProbeFailed(budget),
            () = hangs => End::LivenessProbeFailed,
            end = probes => end,
        }
    }

    async fn asked(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.shared.requests.kill.cancelled() => {}
        }
    }

    fn is_asked(&self) -> bool {
        self.stop.is_cancelled() || self.shared.requests.kill.is_cancelled()
    }

    /// Its restart policy is satisfied.
    fn stays_ended(&self, status: ExitStatus) {
        self.tell(What::StaysEnded(self.container.restart_policy, status));
        // What waits for it may go on, as after a container that was ready.
        self.started.cancel();
    }

    /// The container's next process, after the back-off; none if the Pod stops first.
    async fn next(&self, backoff: &mut Backoff, ran: Duration) -> Option<ContainerProcess> {
        let mut wait = backoff.after_death(ran);
        loop {
            self.tell(What::Restarts(wait));
            tokio::select! {
                biased;
                () = self.asked() => return None,
                () = tokio::time::sleep(wait) => {}
            }
            match ContainerProcess::spawn(&self.container, self.shared.events.terminal()) {
                Ok(process) => return Some(process),
                Err(error) => {
                    self.tell(What::CannotStart(format!("{}: {error}", self.container.binary.display())));
                }
            }
            wait = backoff.after_death(Duration::ZERO);
        }
    }

    /// A container that refuses its flags will refuse them every time: that is for the person at the terminal to mend, and
    /// hidden in a crash loop it would not be seen.
    fn refused(&self, status: ExitStatus, last_line: String) -> bool {
        let exit = match status.code() {
            Some(code) if code == Exit::Usage as i32 => Exit::Usage,
            Some(code) if code == Exit::Refused as i32 => Exit::Refused,
            _ => return false,
        };
        // The first container to refuse is the one that is reported.
        self.shared
            .requests
            .refused
            .set(Refusal { container: self.container.name, exit, last_line })
            .ignore();
        self.shared.requests.stop.cancel();
        true
    }

    /// The preStop hook, SIGTERM, what is left of the grace period, SIGKILL.
    async fn end(&self, mut process: ContainerProcess) -> ExitStatus {
        let now = Instant::now();
        let deadline =
            self.shared.deadline.get().copied().unwrap_or(now + self.shared.grace).max(now + LEAST_GRACE);
        if let Some(hook) = self.container.pre_stop {
            self.tell(What::PreStop(hook));
            tokio::select! {
                () = tokio::time::sleep_until((now + hook).min(deadline).into()) => {}
                () = self.shared.requests.kill.cancelled() => {}
            }
        }
        self.tell(What::Stopping);
        process.terminate();
        let killed = tokio::select! {
            biased;
            status = process.wait() => {
                process.last_line(&self.shared.requests.kill).await;
                // An error is that of a process that is no child of ours, which it is.
                let status = status.unwrap_or_default();
                self.tell(What::Stopped(status));
                return status;
            }
            () = self.shared.requests.kill.cancelled() => Why::Impatience,
            () = tokio::time::sleep_until(deadline.into()) => Why::GracePeriod,
        };
        self.tell(What::Killed(killed));
        // As above.
        let status = process.kill().await.unwrap_or_default();
        process.last_line(&self.shared.requests.kill).await;
        status
    }

    fn tell_of(&self, process: &ContainerProcess) {
        if let Some(pid) = process.pid() {
            self.shared.watcher.guard(pid);
            self.tell(What::Started { pid: pid.as_raw_nonzero().get().unsigned_abs() });
        }
    }

    fn tell(&self, what: What) {
        self.shared.events.record(self.container.name, what);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::SocketAddr;
    use std::os::unix::process::ExitStatusExt as _;
    use std::path::Path;

    use clap::Parser as _;
    use testkit::wait::DEADLINE;
    use testkit::{Answer, Upstream};

    use super::*;
    use crate::flags::Flags;
    use crate::restart_policy::RestartPolicy;
    use crate::spec::LivenessProbe;
    use crate::terminal::Terminal;

    /// A container that notes each of its lives in `diary` and does nothing else, ready never.
    fn hermit(diary: &Path, budget: Duration) -> ContainerSpec {
        hermit_at(SocketAddr::from(([127, 0, 0, 1], 1)), diary, budget)
    }

    /// Likewise, with the address that its probes ask.
    fn hermit_at(admin: SocketAddr, diary: &Path, budget: Duration) -> ContainerSpec {
        ContainerSpec {
            name: "hermit",
            binary: "/bin/sh".into(),
            args: vec!["-c".into(), "echo born >> \"$0\"; exec sleep 600".into(), diary.into()],
            env: vec![("PATH", "/usr/bin:/bin".to_owned())],
            admin: Some(admin),
            startup_probe: Some(budget),
            liveness_probe: None,
            restart_policy: RestartPolicy::Always,
            pre_stop: None,
        }
    }

    fn pod(containers: Vec<ContainerSpec>) -> PodSpec {
        PodSpec { containers, stop_order: StopOrder::Reverse, grace: Duration::from_secs(5) }
    }

    fn kubelet(requests: &StopRequests) -> Kubelet {
        let terminal = Arc::new(Terminal::new(&Flags::parse_from(["kubelet"])));
        Kubelet::new(requests.clone(), EventLog::new(terminal, None), Watcher::start().unwrap())
    }

    #[tokio::test]
    async fn a_stranger_that_answers_on_a_containers_port_does_not_make_it_ready() {
        let dir = tempfile::tempdir().unwrap();
        let stranger = Upstream::start(|_| {
            Answer::Raw(Box::new(|stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok\n").unwrap();
            }))
        });
        let budget = Duration::from_secs(600);
        let (first, next) = (dir.path().join("first"), dir.path().join("next"));
        let containers = vec![hermit_at(stranger.addr(), &first, budget), hermit(&next, budget)];
        let requests = StopRequests::default();
        let mut kubelet = kubelet(&requests);
        let events = kubelet.shared.events.clone();
        let told = async {
            let says = |event: &crate::event::Event| match &event.what {
                What::NotReady(reason) => reason.contains("in its place"),
                What::Ready => panic!("the stranger counts"),
                _ => false,
            };
            while !events.all().iter().any(says) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            requests.stop.cancel();
        };
        let both = async { tokio::join!(kubelet.start(pod(containers)), told) };
        let (started, ()) = tokio::time::timeout(DEADLINE, both).await.expect("it is said");
        started.unwrap();
        assert!(!next.exists(), "the next container was started");
        tokio::time::timeout(DEADLINE, kubelet.stop()).await.expect("it stops");
    }

    /// A liveness probe that is soon over.
    const QUICK: LivenessProbe = LivenessProbe {
        period: Duration::from_millis(20),
        timeout: Duration::from_secs(5),
        failure_threshold: 3,
    };

    /// A container without a startup probe, and what answers in its place: `/readyz` always, `/livez` while it is alive.
    fn hermit_that_answers(
        diary: &Path,
        alive: impl FnMut() -> bool + Send + 'static,
        restart_policy: RestartPolicy,
    ) -> (ContainerSpec, Upstream) {
        let alive = parking_lot::Mutex::new(alive);
        let upstream = Upstream::start(move |request| {
            let no = request.target() == "/livez" && !alive.lock()();
            let answer = if no { "500 Stuck\r\n\r\nstuck" } else { "200 OK\r\n\r\nok" };
            Answer::raw(move |stream| writeln!(stream, "HTTP/1.1 {answer}").unwrap())
        });
        let mut container = hermit_at(upstream.addr(), diary, Duration::ZERO);
        (container.startup_probe, container.liveness_probe) = (None, Some(QUICK));
        container.restart_policy = restart_policy;
        (container, upstream)
    }

    /// Runs the container until `enough` of its events; what these were, without the start and what readiness says.
    async fn events_of(container: ContainerSpec, enough: impl Fn(&What) -> bool) -> Vec<What> {
        let mut kubelet = kubelet(&StopRequests::default());
        let events = kubelet.shared.events.clone();
        kubelet.start(pod(vec![container])).await.unwrap();
        let all = async {
            loop {
                let all: Vec<What> = events.all().into_iter().map(|event| event.what).collect();
                if all.iter().any(&enough) {
                    break all;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let mut all = tokio::time::timeout(DEADLINE, all).await.expect("it happens");
        tokio::time::timeout(DEADLINE, kubelet.stop()).await.expect("it stops");
        all.retain(|what| !matches!(what, What::Ready | What::NotReady(_)));
        all
    }

    fn not_alive(failures: u32) -> What {
        What::LivenessProbeFailed { failures, threshold: 3, reason: "500 stuck".to_owned() }
    }

    /// As in a cluster: so many failures in a row, SIGTERM, and another process after the back-off, of which the first is none.
    #[tokio::test]
    async fn a_container_that_hangs_is_ended_and_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let diary = dir.path().join("diary");
        // A yes in between begins the count anew.
        let mut alive = [true, false, false, true].into_iter();
        let alive = move || alive.next().unwrap_or(false);
        let (container, _upstream) = hermit_that_answers(&diary, alive, RestartPolicy::OnFailure);
        let events = events_of(container, |what| matches!(what, What::Restarts(_))).await;
        let expected = [
            not_alive(1),
            not_alive(2),
            not_alive(1),
            not_alive(2),
            not_alive(3),
            What::Stopping,
            What::Stopped(ExitStatus::from_raw(15)),
            What::Restarts(Duration::ZERO),
        ];
        assert_eq!(events.get(1..=expected.len()), Some(&expected[..]), "{events:?}");
    }

    #[tokio::test]
    async fn a_container_that_hangs_and_is_never_restarted_stays_ended() {
        let dir = tempfile::tempdir().unwrap();
        let diary = dir.path().join("diary");
        let (container, _upstream) = hermit_that_answers(&diary, || false, RestartPolicy::Never);
        let events = events_of(container, |what| matches!(what, What::StaysEnded(..))).await;
        let killed = ExitStatus::from_raw(15);
        assert_eq!(events.last(), Some(&What::StaysEnded(RestartPolicy::Never, killed)), "{events:?}");
        assert_eq!(std::fs::read_to_string(&diary).unwrap().lines().count(), 1);
    }

    /// As in a cluster. Here the sidecar that seems to hang would otherwise be restarted in the middle of the Pod's end.
    #[tokio::test]
    async fn once_the_pod_stops_no_liveness_probe_ends_a_container() {
        let dir = tempfile::tempdir().unwrap();
        let (first, next) = (dir.path().join("first"), dir.path().join("next"));
        let stops = CancellationToken::new();
        let stopping = stops.clone();
        let alive = move || !stopping.is_cancelled();
        let (sidecar, _upstream) = hermit_that_answers(&first, alive, RestartPolicy::Always);
        let mut slow = hermit(&next, Duration::ZERO);
        (slow.startup_probe, slow.admin) = (None, None);
        let script = "trap 'sleep 0.5; kill $!; exit' TERM; echo born > \"$0\"; sleep 600 & wait";
        slow.args = vec!["-c".into(), script.into(), next.clone().into()];
        let mut kubelet = kubelet(&StopRequests::default());
        let events = kubelet.shared.events.clone();
        kubelet.start(pod(vec![sidecar, slow])).await.unwrap();
        tokio::time::timeout(DEADLINE, async {
            while !next.exists() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("it traps");
        stops.cancel();
        tokio::time::timeout(DEADLINE, kubelet.stop()).await.expect("it stops");
        let ended = |event: &crate::event::Event| matches!(event.what, What::Restarts(_));
        assert!(!events.all().iter().any(ended), "{:?}", events.all());
    }

    /// Nothing listens on its port for a second, fifty periods of its liveness probe.
    #[tokio::test]
    async fn a_slow_start_is_not_taken_for_a_container_that_hangs() {
        let dir = tempfile::tempdir().unwrap();
        let diary = dir.path().join("diary");
        let mut container = hermit(&diary, Duration::from_secs(600));
        container.liveness_probe = Some(QUICK);
        let requests = StopRequests::default();
        let mut kubelet = kubelet(&requests);
        let events = kubelet.shared.events.clone();
        let late = async {
            while !events.all().iter().any(|event| matches!(event.what, What::NotReady(_))) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            requests.stop.cancel();
        };
        let both = async { tokio::join!(kubelet.start(pod(vec![container])), late) };
        tokio::time::timeout(DEADLINE, both).await.expect("it is late").0.unwrap();
        tokio::time::timeout(DEADLINE, kubelet.stop()).await.expect("it stops");
        let failed =
            events.all().into_iter().find(|event| matches!(event.what, What::LivenessProbeFailed { .. }));
        assert!(failed.is_none(), "{failed:?}");
        assert_eq!(std::fs::read_to_string(&diary).unwrap().lines().count(), 1);
    }

    /// As in a cluster: a startup probe that fails ends the container, the back-off follows, and the next container waits.
    #[tokio::test]
    async fn a_container_that_never_starts_is_started_again_and_holds_up_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let (first, next) = (dir.path().join("first"), dir.path().join("next"));
        let containers =
            vec![hermit(&first, Duration::from_millis(200)), hermit(&next, Duration::from_secs(600))];
        let requests = StopRequests::default();
        let mut kubelet = kubelet(&requests);
        let twice = async {
            while std::fs::read_to_string(&first).unwrap_or_default().lines().count() < 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            requests.stop.cancel();
        };
        let both = async { tokio::join!(kubelet.start(pod(containers)), twice) };
        let (started, ()) = tokio::time::timeout(DEADLINE, both).await.expect("it is started a second time");
        started.unwrap();
        assert!(!next.exists(), "the next container was started before the first was ready");
        tokio::time::timeout(DEADLINE, kubelet.stop()).await.expect("it stops");
    }
}
