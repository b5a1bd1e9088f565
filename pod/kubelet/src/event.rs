//! What the kubelet does and sees: one event after the other, for the terminal, for the live page, and for the timeline.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use lifecycle::Ignore as _;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::restart_policy::RestartPolicy;
use crate::terminal::{Speaker, Terminal};

/// How many events are kept. A Pod that is watched by a person has some dozens; a crash loop has one a second at most.
const KEPT: usize = 1_000;

/// What has happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// The container before it is not ready.
    Waits(&'static str),
    Started {
        pid: u32,
    },
    /// Its binary cannot be run.
    CannotStart(String),
    Ready,
    NotReady(String),
    /// Not ready in time: it is ended, and started again.
    StartupProbeFailed(Duration),
    /// It has not answered that it is alive, so many times in a row; at the threshold it is ended, and started again.
    LivenessProbeFailed {
        failures: u32,
        threshold: u32,
        reason: String,
    },
    /// It has ended without being asked.
    Ended(ExitStatus),
    /// It will be started again, after this time.
    Restarts(Duration),
    /// It has ended, and its restart policy is satisfied with that.
    StaysEnded(RestartPolicy, ExitStatus),
    /// Its preStop hook sleeps for so long.
    PreStop(Duration),
    /// SIGTERM was sent.
    Stopping,
    /// It has ended as it was asked.
    Stopped(ExitStatus),
    /// SIGKILL was sent.
    Killed(Why),
}

/// Why a container was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// A second Ctrl-C.
    Impatience,
    GracePeriod,
}

/// One event.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) at: SystemTime,
    pub(crate) container: &'static str,
    pub(crate) what: What,
}

impl fmt::Display for What {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waits(name) => write!(out, "waits until {name} is ready"),
            Self::Started { pid } => write!(out, "started, pid {pid}"),
            Self::CannotStart(error) => write!(out, "cannot start: {error}"),
            Self::Ready => out.write_str("ready"),
            Self::NotReady(reason) => write!(out, "not ready: {reason}"),
            Self::StartupProbeFailed(budget) => {
                write!(out, "startup probe failed: not ready within {budget:?}")
            }
            Self::LivenessProbeFailed { failures, threshold, reason } => {
                write!(out, "liveness probe failed, {failures} of {threshold}: {reason}")
            }
            Self::Ended(status) => write!(out, "ended: {status}"),
            Self::Restarts(Duration::ZERO) => out.write_str("starting again at once"),
            Self::Restarts(wait) => write!(out, "back-off: starting again in {} s", wait.as_secs()),
            Self::StaysEnded(policy, _) => write!(out, "not started again: restart policy {policy:?}"),
            Self::PreStop(hook) => write!(out, "preStop hook: sleeps for {hook:?}"),
            Self::Stopping => out.write_str("asked to stop: SIGTERM"),
            Self::Stopped(status) => write!(out, "stopped: {status}"),
            Self::Killed(Why::Impatience) => out.write_str("killed"),
            Self::Killed(Why::GracePeriod) => out.write_str("did not stop within the grace period: killed"),
        }
    }
}

impl Event {
    /// As `kubelet-events/1` in `docs/contract.md` has it.
    fn to_json(&self) -> Value {
        let at = humantime::format_rfc3339_millis(self.at).to_string();
        let mut json = json!({"at": at, "container": self.container, "event": self.what.name(), "text": self.what.to_string()});
        match &self.what {
            What::Started { pid } => json["pid"] = (*pid).into(),
            What::Ended(status) | What::Stopped(status) => {
                use std::os::unix::process::ExitStatusExt as _;
                json["exit_code"] = status.code().into();
                json["signal"] = status.signal().into();
            }
            What::Restarts(wait) => json["after_seconds"] = wait.as_secs().into(),
            _ => {}
        }
        json
    }
}

impl What {
    /// One word, for programs.
    fn name(&self) -> &'static str {
        match self {
            Self::Waits(_) => "waits",
            Self::Started { .. } => "started",
            Self::CannotStart(_) => "cannot-start",
            Self::Ready => "ready",
            Self::NotReady(_) => "not-ready",
            Self::StartupProbeFailed(_) => "startup-probe-failed",
            Self::LivenessProbeFailed { .. } => "liveness-probe-failed",
            Self::Ended(_) => "ended",
            Self::Restarts(_) => "restarts",
            Self::StaysEnded(..) => "stays-ended",
            Self::PreStop(_) => "pre-stop",
            Self::Stopping => "stopping",
            Self::Stopped(_) => "stopped",
            Self::Killed(_) => "killed",
        }
    }
}

/// All events so far. Every clone is the same log.
#[derive(Debug, Clone)]
pub(crate) struct EventLog {
    terminal: Arc<Terminal>,
    file: Option<EventFile>,
    events: Arc<Mutex<Vec<Event>>>,
    /// The first container that has failed for good: known however long the others run on.
    failed: Arc<OnceLock<(&'static str, ExitStatus)>>,
}

impl EventLog {
    /// A log that writes what it has to `file` at every event, in one step, for the live page.
    pub(crate) fn new(terminal: Arc<Terminal>, file: Option<EventFile>) -> Self {
        Self { terminal, file, events: Arc::default(), failed: Arc::default() }
    }

    /// Something has happened to a container.
    pub(crate) fn record(&self, container: &'static str, what: What) {
        self.terminal.say(Speaker::container(container), &what.to_string());
        if let What::StaysEnded(_, status) = &what
            && !status.success()
        {
            // The first one counts.
            self.failed.set((container, *status)).ignore();
        }
        let mut events = self.events.lock();
        if events.len() == KEPT {
            events.remove(0);
        }
        events.push(Event { at: SystemTime::now(), container, what });
        if let Some(file) = &self.file {
            // The page then shows what it had; the Pod does not depend on it.
            file.write(&events).ignore();
        }
    }

    /// The containers that run, in the order in which they were started, and their process ids.
    pub(crate) fn pids(&self) -> Vec<(&'static str, u32)> {
        let mut running: Vec<(&'static str, u32)> = Vec::new();
        for event in self.events.lock().iter() {
            match event.what {
                What::Started { pid } => running.push((event.container, pid)),
                What::Ended(_) | What::Stopped(_) | What::Killed(_) => {
                    running.retain(|(name, _)| *name != event.container);
                }
                _ => {}
            }
        }
        running
    }

    /// The container that makes the Pod, whose containers have all ended for good, a `Failed` one, and how it ended; none where the
    /// Pod has `Succeeded`.
    pub(crate) fn failed(&self) -> Option<(&'static str, ExitStatus)> {
        self.failed.get().copied()
    }

    /// The events that are kept, oldest first.
    pub(crate) fn all(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    /// Where what the containers say goes.
    pub(crate) fn terminal(&self) -> &Arc<Terminal> {
        &self.terminal
    }
}

/// The file that the live page reads.
#[derive(Debug, Clone)]
pub(crate) struct EventFile {
    pub(crate) path: PathBuf,
    /// The content manager's folder; none where the content manager is another machine's.
    pub(crate) content: Option<String>,
}

impl EventFile {
    /// Replaces the file in one step.
    fn write(&self, events: &[Event]) -> io::Result<()> {
        let events: Vec<Value> = events.iter().map(Event::to_json).collect();
        let (kubelet_pid, content) = (std::process::id(), &self.content);
        let document = json!({"format": "kubelet-events/1", "kubelet_pid": kubelet_pid, "content": content, "events": events});
        let beside = self.path.with_extension("new");
        std::fs::write(&beside, document.to_string())?;
        std::fs::rename(beside, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use clap::Parser as _;

    use super::*;

    #[test]
    fn what_the_kubelet_says_itself_fits_into_80_columns() {
        let long = Duration::from_secs(300);
        for what in [
            What::Waits("content-manager"),
            What::Started { pid: 4_194_304 },
            What::StartupProbeFailed(long),
            What::LivenessProbeFailed { failures: 3, threshold: 3, reason: "no answer within 1s".to_owned() },
            // SIGSEGV, with a core dump.
            What::Ended(ExitStatus::from_raw(0x8b)),
            What::Restarts(long),
            What::StaysEnded(RestartPolicy::OnFailure, ExitStatus::default()),
            What::PreStop(long),
            What::Stopping,
            What::Killed(Why::GracePeriod),
        ] {
            // Time and name take 26.
            assert!(what.to_string().len() <= 54, "{what}");
        }
    }

    #[test]
    fn a_pod_has_failed_however_long_its_other_containers_run_on() {
        let flags = crate::flags::Flags::parse_from(["kubelet"]);
        let events = EventLog::new(Arc::new(Terminal::new(&flags)), None);
        assert!(events.failed().is_none());
        let killed = ExitStatus::from_raw(9);
        events.record("web-server", What::StaysEnded(RestartPolicy::Never, killed));
        for _ in 0..KEPT {
            events.record("log-agent", What::Ready);
        }
        assert_eq!(events.failed(), Some(("web-server", killed)));
    }

    #[test]
    fn an_event_for_programs_has_what_they_need_as_numbers() {
        let event = |what| Event { at: SystemTime::UNIX_EPOCH, container: "web-server", what }.to_json();
        let killed = event(What::Ended(ExitStatus::from_raw(9)));
        assert_eq!((&killed["signal"], &killed["exit_code"]), (&9.into(), &Value::Null));
        assert_eq!(killed["text"], "ended: signal: 9 (SIGKILL)");
        assert_eq!(killed["at"], "1970-01-01T00:00:00.000Z");
        assert_eq!(event(What::Restarts(Duration::from_secs(10)))["after_seconds"], 10);
    }
}
