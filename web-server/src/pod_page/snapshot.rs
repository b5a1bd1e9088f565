//! What the Pod page shows, as it goes over the wire (docs/contract.md, `pod-page/1`).
//!
//! Times are RFC 3339 and ages are left to the reader, so that a snapshot changes only when something has happened.

use std::collections::BTreeMap;

use serde::Serialize;

/// What this is, for whoever reads it.
pub const FORMAT: &str = "pod-page/1";

/// The Pod, at one instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// [`FORMAT`].
    pub format: &'static str,
    /// What may be asked for from this machine.
    pub actions: &'static [&'static str],
    /// Which Pod.
    pub pod: Pod,
    /// In the order of the content's way to the log.
    pub containers: [Container; 3],
    /// What is served; none before the first release, or where a plain directory is.
    pub release: Option<Release>,
    /// How file-puller gets on.
    pub sync: Option<Sync>,
    /// What was answered since web-server started.
    pub requests: Requests,
    /// The access log's way.
    pub log: Log,
}

/// What the downward API says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pod {
    /// `metadata.name`.
    pub name: Option<String>,
    /// `metadata.namespace`.
    pub namespace: Option<String>,
    /// `metadata.uid`.
    pub uid: Option<String>,
    /// `spec.nodeName`.
    pub node: Option<String>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
}

/// Whether a container answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does.
    Up,
    /// It does not.
    Down,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Container {
    /// Its name.
    pub name: &'static str,
    /// Its admin port.
    pub admin: u16,
    /// Whether it answers.
    pub state: State,
    /// Why it does not.
    pub reason: Option<String>,
    /// What it said last, of itself.
    #[serde(flatten)]
    pub last: Option<Said>,
    /// Times that it was seen to have been started anew; what happened while nobody watched counts once.
    pub restarts: u32,
}

/// What a container says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Said {
    /// Of the program.
    pub version: String,
    /// When its process began.
    pub started: String,
    /// Whether it can do its job.
    pub ready: bool,
    /// Whether it was told to stop.
    pub draining: bool,
}

/// What is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Release {
    /// Its id.
    pub id: String,
    /// When its link was made.
    pub published: String,
    /// How many it has.
    pub files: usize,
    /// How many file-puller had to fetch for it.
    pub fetched_files: Option<u64>,
    /// What is other than in the release before, where that was seen.
    pub changes: Option<Changes>,
}

/// Paths, of each kind at most [`Changes::NAMED`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// In this release and not in the one before.
    pub added: Vec<String>,
    /// In both, with other content.
    pub changed: Vec<String>,
    /// In the one before only.
    pub removed: Vec<String>,
    /// How many there are of all kinds.
    pub count: usize,
}

impl Changes {
    /// As many as fit into a sentence.
    pub const NAMED: usize = 5;
}

/// How file-puller gets on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sync {
    /// The content manager, without credentials.
    pub source: Option<String>,
    /// When it will be asked next.
    pub next: Option<String>,
    /// When the last sync ended.
    pub last: Option<String>,
    /// How: `published`, `unchanged` or `failed`.
    pub result: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// Syncs that have failed since the last one that did not.
    pub failures: u32,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Requests {
    /// In the last two seconds, where somebody watched for that long.
    pub per_second: Option<f64>,
    /// By status class.
    pub classes: BTreeMap<&'static str, u64>,
}

/// The access log's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Log {
    /// Lines, since web-server started.
    pub written: u64,
    /// Lines that could not be written.
    pub dropped: u64,
    /// Lines that are written and not confirmed, where that can be told.
    pub waiting: Option<u64>,
    /// As log-agent last saw them.
    pub sinks: Vec<Sink>,
}

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sink {
    /// Its URL without credentials.
    pub name: String,
    /// Lines that it has confirmed, since log-agent started.
    pub shipped: Option<u64>,
    /// Bytes that wait for it, as of log-agent's last look.
    pub waiting_bytes: Option<i64>,
    /// Bytes that it will never get, since log-agent started.
    pub lost_bytes: Option<u64>,
    /// Why it does not confirm.
    pub failing: Option<String>,
}
