//! What the Pod page shows, as it goes over the wire (docs/contract.md, `pod-page/1`).
//!
//! Times are RFC 3339 and ages are left to the reader, so that a snapshot changes only when something has happened.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::flags::RunsOn;

/// What this is, for its readers.
pub(crate) const FORMAT: &str = "pod-page/1";

/// The Pod, at one instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Snapshot {
    /// [`FORMAT`].
    pub(crate) format: &'static str,
    /// What may be asked for from this machine.
    pub(crate) actions: &'static [&'static str],
    /// What keeps the containers running, where that is known.
    pub(crate) runs_on: Option<RunsOn>,
    /// Which Pod.
    pub(crate) pod: Pod,
    /// In the order of the content's way to the log.
    pub(crate) containers: [Container; 3],
    /// What the kubelet has done to them; only under `cargo demo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kubelet: Option<Kubelet>,
    /// What is served; none before the first release, or where a plain directory is.
    pub(crate) release: Option<Release>,
    /// How file-puller gets on.
    pub(crate) sync: Option<Sync>,
    /// What was answered since web-server started.
    pub(crate) requests: Requests,
    /// The access log's way.
    pub(crate) log: Log,
}

/// What the downward API says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Pod {
    /// `metadata.name`.
    pub(crate) name: Option<String>,
    /// `metadata.namespace`.
    pub(crate) namespace: Option<String>,
    /// `metadata.uid`.
    pub(crate) uid: Option<String>,
    /// `spec.nodeName`.
    pub(crate) node: Option<String>,
    /// `metadata.labels`.
    pub(crate) labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What a kubelet tells about its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kubelet {
    /// Its process: a signal to it ends the Pod.
    #[serde(rename = "kubelet_pid")]
    pub(crate) pid: u32,
    /// The processes that run now, by container, for people who want to kill one.
    #[serde(default)]
    pub(crate) pids: BTreeMap<String, u32>,
    /// The content manager's folder, for people who want to change a page.
    pub(crate) content: Option<String>,
    /// The latest last.
    pub(crate) events: Vec<Event>,
}

/// Something that has happened to a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// When, RFC 3339.
    pub(crate) at: String,
    /// To which container.
    pub(crate) container: String,
    /// What, in one word.
    // The name in the JSON, which the contract fixes.
    #[expect(clippy::struct_field_names, reason = "the contract calls it so")]
    pub(crate) event: String,
    /// What, for people.
    pub(crate) text: String,
    /// The process that was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<u32>,
    /// How a process has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<i32>,
    /// The signal that has ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signal: Option<i32>,
    /// The back-off before the next start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after_seconds: Option<u64>,
}

/// A moment, as it is written everywhere here.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// The present.
pub(crate) fn now() -> String {
    rfc3339(SystemTime::now())
}

/// Whether a container answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// It does.
    Up,
    /// It does not.
    Down,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Container {
    pub(crate) name: &'static str,
    pub(crate) admin: u16,
    /// Whether it answers.
    pub(crate) state: State,
    /// Why it does not.
    pub(crate) reason: Option<String>,
    /// What it said last, of itself.
    #[serde(flatten)]
    pub(crate) last: Option<Said>,
    /// Times that it was started again: as the kubelet counts where its events are known; otherwise as was seen from one start time
    /// to the next, while a browser watched.
    pub(crate) restarts: u32,
    /// How often its probes were asked since it was started.
    pub(crate) probes: Option<Probes>,
}

/// How often a container was asked how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probes {
    /// Answers so far, whatever they were.
    pub(crate) asked: u64,
    /// When the last one was given, RFC 3339.
    pub(crate) last: Option<String>,
}

/// What a container says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said {
    /// Of the program.
    pub(crate) version: String,
    /// When its process began.
    pub(crate) started: String,
    /// Whether it can do its job.
    pub(crate) ready: bool,
    /// Whether it was told to stop.
    pub(crate) draining: bool,
}

/// What is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Release {
    pub(crate) id: String,
    /// When its link was made.
    pub(crate) published: String,
    /// How many it has.
    pub(crate) files: usize,
    /// How many file-puller had to fetch for it.
    pub(crate) fetched_files: Option<u64>,
    /// What is other than in the release before, where that was seen.
    pub(crate) changes: Option<Changes>,
}

/// Paths, of each kind at most [`Changes::NAMED`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Changes {
    /// In this release and not in the one before.
    pub(crate) added: Vec<String>,
    /// In both, with other content.
    pub(crate) changed: Vec<String>,
    /// In the one before only.
    pub(crate) removed: Vec<String>,
    /// How many there are of all kinds.
    pub(crate) count: usize,
}

impl Changes {
    /// As many as fit into a sentence.
    pub(crate) const NAMED: usize = 5;
}

/// How file-puller gets on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Sync {
    /// The content manager, without credentials.
    pub(crate) source: Option<String>,
    /// When it will be asked next.
    pub(crate) next: Option<String>,
    /// It was asked, and will answer when there is a change.
    pub(crate) waiting: bool,
    /// When the last sync ended.
    pub(crate) last: Option<String>,
    /// How: `published`, `unchanged` or `failed`.
    pub(crate) result: Option<String>,
    /// Why it failed.
    pub(crate) error: Option<String>,
    /// Syncs that have failed since the last one that did not.
    pub(crate) failures: u32,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Requests {
    /// In the last two seconds, where a page watched for that long.
    pub(crate) per_second: Option<f64>,
    /// By status class: of the lines in the access log, or since web-server started where there is no log in a file.
    pub(crate) classes: BTreeMap<&'static str, u64>,
}

/// The access log's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Log {
    /// Lines in the log's files, or since web-server started where there are none.
    pub(crate) written: u64,
    /// Lines that could not be written, since web-server started.
    pub(crate) dropped: u64,
    /// Lines that are written and not confirmed, where that can be told.
    pub(crate) waiting: Option<u64>,
    /// As log-agent last saw them.
    pub(crate) sinks: Vec<Sink>,
}

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Sink {
    /// Its URL without credentials.
    pub(crate) name: String,
    /// Lines in the log's files that it has confirmed, or since log-agent started where there are none.
    pub(crate) shipped: Option<u64>,
    /// Bytes that wait for it, as of log-agent's last look.
    pub(crate) waiting_bytes: Option<i64>,
    /// Bytes that it will never get, since log-agent was first seen.
    pub(crate) lost_bytes: Option<u64>,
    /// Why it does not confirm.
    pub(crate) failing: Option<String>,
}
