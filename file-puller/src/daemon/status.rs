//! What the puller says of itself: to the kubelet in `/readyz`, to people in `/status`.

use std::time::{Duration, Instant, SystemTime};

use lifecycle::admin::Report;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::content::ReleaseId;
use crate::source::SourceUrl;
use crate::sync::{Outcome, Publication, Revision, SyncError};

/// Shared by the loop, which writes it, and the admin server, which reads it.
#[derive(Debug)]
pub(crate) struct Status {
    source: SourceUrl,
    volume: String,
    max_staleness: Option<Duration>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    release: Option<ReleaseId>,
    revision: Option<Revision>,
    published: Option<SystemTime>,
    publication: Option<Publication>,
    in_step: Instant,
    last_sync: Option<LastSync>,
    failures: u32,
    next_sync: Option<SystemTime>,
    /// The source holds a question until there is a change.
    is_waiting: bool,
}

#[derive(Debug)]
struct LastSync {
    ended: SystemTime,
    took: Duration,
    result: Value,
}

impl Status {
    /// The state at start: `release` is what an earlier run published, if it did.
    pub(crate) fn new(
        source: SourceUrl,
        volume: String,
        max_staleness: Option<Duration>,
        release: Option<ReleaseId>,
    ) -> Self {
        let state = State {
            release,
            revision: None,
            published: None,
            publication: None,
            in_step: Instant::now(),
            last_sync: None,
            failures: 0,
            next_sync: None,
            is_waiting: false,
        };
        Self { source, volume, max_staleness, state: Mutex::new(state) }
    }

    pub(crate) fn sync_finished(&self, outcome: &Result<Outcome, SyncError>, took: Duration) {
        let mut state = self.state.lock();
        match outcome {
            Ok(Outcome::Published(publication)) => {
                state.release = Some(publication.release.clone());
                state.published = Some(SystemTime::now());
                state.publication = Some(publication.clone());
            }
            Ok(Outcome::Unchanged(release)) => state.release = Some(release.clone()),
            Err(_) => {}
        }
        if outcome.is_ok() {
            state.in_step = Instant::now();
        }
        let result = describe(outcome, state.release.as_ref());
        state.last_sync = Some(LastSync { ended: SystemTime::now(), took, result });
    }

    /// Notes what the published release is in its source.
    pub(crate) fn follows(&self, revision: &Revision) {
        self.state.lock().revision = Some(revision.clone());
    }

    /// What is said about a sync that ended.
    pub(crate) fn describe(&self, outcome: &Result<Outcome, SyncError>) -> Value {
        describe(outcome, self.state.lock().release.as_ref())
    }

    /// Notes when the next sync will be, and how many before it have failed.
    pub(crate) fn waiting(&self, wait: Duration, failures: u32) {
        let mut state = self.state.lock();
        state.next_sync = SystemTime::now().checked_add(wait);
        state.is_waiting = false;
        state.failures = failures;
    }

    /// Notes that the source holds a question, so that the time of the next sync is unknown; or that it no longer does.
    pub(crate) fn held(&self, is_held: bool) {
        let mut state = self.state.lock();
        state.next_sync = None;
        state.is_waiting = is_held;
    }
}

/// How a sync ended, as `POST /sync` answers it.
fn describe(outcome: &Result<Outcome, SyncError>, release: Option<&ReleaseId>) -> Value {
    match outcome {
        Ok(Outcome::Published(published)) => {
            let mut result = publication(published);
            result["result"] = json!("published");
            result
        }
        Ok(Outcome::Unchanged(release)) => json!({"result": "unchanged", "release": release.as_str()}),
        Err(error) => json!({
            "result": "failed",
            "release": release.map(ReleaseId::as_str),
            "reason": error.reason(),
            "error": error.to_string(),
        }),
    }
}

fn publication(publication: &Publication) -> Value {
    json!({
        "release": publication.release.as_str(),
        "files": publication.files,
        "bytes": publication.bytes,
        "fetched_files": publication.fetched_files,
        "fetched_bytes": publication.fetched_bytes,
    })
}

impl Report for Status {
    fn readiness(&self) -> Result<(), String> {
        let state = self.state.lock();
        if state.release.is_none() {
            let why = state.last_sync.as_ref().and_then(|last| last.result["error"].as_str());
            return Err(match why {
                None => "no release published yet".to_owned(),
                Some(why) => format!("no release published yet: {why}"),
            });
        }
        let age = state.in_step.elapsed();
        match self.max_staleness {
            Some(limit) if age >= limit => {
                // Whole seconds are exact enough, and short.
                let [age, limit] =
                    [Duration::from_secs(age.as_secs()), limit].map(humantime::format_duration);
                Err(format!("content was last in step {age} ago, beyond --max-staleness {limit}"))
            }
            _ => Ok(()),
        }
    }

    fn status(&self) -> Value {
        let state = self.state.lock();
        let time = |time: SystemTime| humantime::format_rfc3339_micros(time).to_string();
        let mut status = json!({
            "source": self.source.to_string(),
            "volume": self.volume,
            "release": state.release.as_ref().map(ReleaseId::as_str),
            "published": state.published.map(time),
            // What was done for the release that `published` is the time of; later syncs change `last_sync` alone.
            "publication": state.publication.as_ref().map(publication),
            "staleness_seconds": state.in_step.elapsed().as_secs(),
            "failures_in_a_row": state.failures,
            "next_sync": state.next_sync.map(time),
            "waiting": state.is_waiting,
            "last_sync": state.last_sync.as_ref().map(|last| json!({
                "ended": time(last.ended),
                "seconds": last.took.as_secs_f64(),
                "outcome": last.result,
            })),
        });
        if let Some((kind, name)) = state.revision.as_ref().map(Revision::parts) {
            status[kind] = json!(name);
        }
        status
    }
}
