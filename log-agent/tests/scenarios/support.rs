//! A directory with logs, an agent that follows them, and a receiver that notes what it confirmed.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;
use testkit::http::Message;
use testkit::process::anonymous_bytes;
use testkit::{Answer, Process, Upstream, wait_until};

/// The agent that is tested: the one that was built with the tests, or that of `LOG_AGENT_BINARY`, such as an image's.
pub(crate) fn binary() -> String {
    std::env::var("LOG_AGENT_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_log-agent").to_owned())
}

/// Logs and state of one agent.
pub(crate) struct Room {
    dir: TempDir,
}

impl Room {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.path("logs").join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// How many bytes the newest checkpoint on the disk says that a sink has confirmed, of all files together.
    pub(crate) fn checkpointed(&self, sink: &str) -> u64 {
        let slot = |slot| {
            let text = std::fs::read_to_string(self.state().join(format!("checkpoint.{slot}.json"))).ok()?;
            serde_json::from_str::<Value>(text.lines().next()?).ok()
        };
        let newest = (0..2).filter_map(slot).max_by_key(|document| document["generation"].as_u64());
        let files = newest.and_then(|document| document["files"].as_array().cloned()).unwrap_or_default();
        files.iter().filter_map(|file| file["confirmed"][sink]["offset"].as_u64()).sum()
    }

    /// An agent for `logs/*.log*` and one sink.
    pub(crate) fn agent(&self, sink: &str, more: &[&str]) -> Process {
        Process::start_command(self.command("logs/*.log*", &[sink], more))
    }

    pub(crate) fn command(&self, include: &str, sinks: &[&str], more: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("--include").arg(self.path(include)).arg("--state-dir").arg(self.state());
        for sink in sinks {
            command.args(["--sink", sink]);
        }
        command.args(more);
        command
    }
}

/// What an agent may take, whatever becomes of its sinks.
pub(crate) trait Bounded {
    /// Memory, open files, and disk beside the files themselves.
    fn expect_bounded(&self, room: &Room);
}

/// The scorecard's bound for resident memory, less the 11 MiB that the program's file takes of it in a test's build. That part depends
/// on the optimisation, and is not counted.
pub(crate) const MEMORY: u64 = (24 - 11) * 1024 * 1024;

impl Bounded for Process {
    #[track_caller]
    fn expect_bounded(&self, room: &Room) {
        let memory = anonymous_bytes(self.id());
        assert!(memory < MEMORY, "{memory} bytes of memory");
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap();
        let open: Vec<_> = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).collect();
        // Each file of the logs, and a few of its own.
        let followed = std::fs::read_dir(room.path("logs")).unwrap().count();
        assert!(open.len() <= followed + 30, "{} open files: {open:?}", open.len());
        let kept = std::fs::read_dir(room.state()).into_iter().flatten();
        let kept: u64 = kept.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
        assert!(kept < 1_000_000, "{kept} bytes of state");
    }
}

/// A file opened for appending, as a server holds its log.
pub(crate) fn append(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

/// Appends numbered lines, each in one write.
pub(crate) fn write_numbers(file: &mut File, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        file.write_all(format!("line {number}\n").as_bytes()).unwrap();
    }
}

/// Appends text in one write.
pub(crate) fn write(path: &Path, text: impl AsRef<[u8]>) {
    append(path).write_all(text.as_ref()).unwrap();
}

/// What a receiver does with a request that it got whole.
pub(crate) enum Verdict {
    /// Keeps its records and says so.
    Confirm,
    /// Keeps nothing.
    Refuse(Answer),
    /// Keeps its records, and the answer is lost on its way.
    LoseTheAnswer,
}

/// Notes what it confirmed, in the order in which it came.
pub(crate) struct Receiver {
    pub(crate) upstream: Upstream,
    records: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        Self::that(|_| Verdict::Confirm)
    }

    /// One that judges every request.
    pub(crate) fn that(judge: impl Fn(&Message) -> Verdict + Send + Sync + 'static) -> Self {
        let records = Arc::<Mutex<Vec<Value>>>::default();
        let upstream = Upstream::start(handler(&records, judge));
        Self { upstream, records }
    }

    /// From now on judges like this.
    pub(crate) fn change(&self, judge: impl Fn(&Message) -> Verdict + Send + Sync + 'static) {
        self.upstream.answer(handler(&self.records, judge));
    }

    pub(crate) fn sink(&self) -> String {
        format!("ndjson+{}", self.upstream.url("/logs"))
    }

    pub(crate) fn records(&self) -> Vec<Value> {
        self.records.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.records.lock().unwrap().len()
    }

    /// The texts of all records, in the order in which they came.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.records().iter().map(|record| record["body"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The ids of all records.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        self.records().iter().map(|record| record["id"].to_string()).collect()
    }

    /// Waits until exactly these texts have come, in this order.
    #[track_caller]
    pub(crate) fn expect(&self, bodies: &[&str]) {
        wait_until(&format!("{bodies:?} arrive"), || {
            let got = self.bodies();
            assert!(got.len() <= bodies.len(), "too many: {got:?}");
            got == bodies
        });
    }

    /// Waits until each of the numbered lines has come; then the records are what a correct agent sends: none twice, in
    /// order.
    #[track_caller]
    pub(crate) fn expect_numbers(&self, count: usize) {
        wait_until(&format!("{count} lines arrive"), || self.count() >= count);
        let expected: Vec<_> = (0..count).map(|number| format!("line {number}")).collect();
        let got = self.bodies();
        assert!(
            got == expected,
            "{} records, first difference: {:?}",
            got.len(),
            difference(&got, &expected)
        );
    }

    /// Waits until each of the numbered lines has come, duplicates allowed: but a duplicate has the id of the first.
    #[track_caller]
    pub(crate) fn expect_each_number(&self, count: usize) {
        let numbers = || self.bodies().iter().filter_map(|body| number(body)).collect::<BTreeSet<_>>();
        wait_until(&format!("{count} different lines arrive"), || numbers().len() >= count);
        assert!(numbers().into_iter().eq(0..count));
        assert_eq!(self.ids().len(), count, "a line that is sent again has the id that it had");
    }
}

fn difference(got: &[String], expected: &[String]) -> Option<(usize, String)> {
    let at = got.iter().zip(expected).position(|(got, expected)| got != expected)?;
    Some((at, got[at].clone()))
}

pub(crate) fn number(body: &str) -> Option<usize> {
    body.strip_prefix("line ").and_then(|number| number.parse().ok())
}

fn handler(
    records: &Arc<Mutex<Vec<Value>>>,
    judge: impl Fn(&Message) -> Verdict + Send + Sync + 'static,
) -> impl Fn(&Message) -> Answer + Send + Sync + 'static {
    let records = Arc::clone(records);
    move |request| {
        let verdict = judge(request);
        if matches!(verdict, Verdict::Confirm | Verdict::LoseTheAnswer) {
            let new =
                request.text().lines().map(|line| serde_json::from_str(line).expect("a record is JSON"));
            records.lock().unwrap().extend(new);
        }
        match verdict {
            Verdict::Confirm => Answer::new(204, "").with("X-Kept", "yes"),
            Verdict::Refuse(answer) => answer,
            Verdict::LoseTheAnswer => Answer::raw(|_| {}),
        }
    }
}

/// The value of a metric's line that begins with `name`, summed over its labels.
pub(crate) fn metric(agent: &Process, name: &str) -> f64 {
    let text = testkit::http::get(agent.addr("admin"), "/metrics").text().to_owned();
    let lines = text.lines().filter(|line| !line.starts_with('#') && line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Like `/status`.
pub(crate) fn status(agent: &Process) -> Value {
    testkit::http::get(agent.addr("admin"), "/status").json()
}

/// The drain's verdict: how many bytes were left.
pub(crate) fn drained(agent: &Process) -> u64 {
    let event = agent.event("drained", |event| event["message"] == "drained");
    event["remaining_bytes"].as_u64().unwrap()
}
