//! What the container says of itself, on `/readyz` and `/status`.

use std::sync::Arc;

use lifecycle::admin::Report;
use serde_json::{Value, json};

use crate::content::editions::Editions;
use crate::content::root::{Content, ContentRoot};
use crate::memory::Budget;
use crate::metrics::Metrics;
use crate::routes::faults::{Fault, Faults};

/// The server, as its admin port sees it.
#[derive(Debug)]
pub(crate) struct Status {
    /// What is served.
    pub(crate) root: Arc<ContentRoot>,
    /// What was counted.
    pub(crate) metrics: Arc<Metrics>,
    /// What memory is used for.
    pub(crate) budget: Arc<Budget>,
    /// With `--manifest`, what is given out.
    pub(crate) editions: Option<Arc<Editions>>,
    /// Where faults may be asked for.
    pub(crate) faults: Option<Faults>,
}

impl Report for Status {
    fn readiness(&self) -> Result<(), String> {
        if self.faults.as_ref().is_some_and(|faults| faults.now() == Fault::Unready) {
            return Err("unready, because a fault was asked for".to_owned());
        }
        match &*self.root.content() {
            Content::Waiting(reason) => Err(reason.clone()),
            Content::Release(_) | Content::Live(_) => Ok(()),
        }
    }

    fn status(&self) -> Value {
        let mut content = match &*self.root.content() {
            Content::Waiting(reason) => json!({"kind": "waiting", "reason": reason}),
            Content::Live(live) => json!({"kind": "directory", "held_bytes": live.held()}),
            Content::Release(generation) => json!({
                "kind": "release",
                "release": generation.release.id.as_str(),
                "files": generation.index.len(),
                "held_bytes": generation.held,
            }),
        };
        if let Some(refused) = self.root.refused() {
            content["refused"] = json!({"release": refused.release.as_str(), "reason": refused.reason});
        }
        json!({
            "root": self.root.path(),
            "content": content,
            "fault": self.faults.as_ref().map(|faults| faults.now().name()),
            "memory": self.budget.status(),
            "swaps": self.metrics.swaps.get(),
            "connections": self.metrics.connections.get(),
            "manifest_refused": self.editions.as_ref().and_then(|editions| editions.refused()),
            "manifest_waiters": self.metrics.manifest_waiters.get(),
            "requests_in_flight": self.metrics.in_flight.get(),
            "access_log": {
                "lines": self.metrics.access_log_lines.get(),
                "dropped": self.metrics.access_log_dropped.get(),
            },
        })
    }
}
