//! What the agent says of itself on its admin port.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lifecycle::admin::Report;
use serde_json::{Value, json};

use crate::metrics::Metrics;
use crate::sink::Health;

/// A sink that has failed for this long makes the agent unready. Shorter outages are what the files are a buffer for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Shared between the loop, which writes it, and the admin server, which reads it.
#[derive(Debug, Default)]
pub struct Status {
    sinks: Vec<(String, Arc<Health>)>,
    metrics: Metrics,
    files: Mutex<Value>,
}

impl Status {
    /// Of these sinks, and of what is counted for them.
    pub fn new(sinks: Vec<(String, Arc<Health>)>, metrics: Metrics) -> Self {
        Self { sinks, metrics, files: Mutex::new(json!([])) }
    }

    /// Replaces what is known of the files.
    pub fn set_files(&self, files: Value) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    /// The sink that has been failing longest.
    pub fn worst(&self) -> Option<(&str, Duration, String)> {
        let failing = self.sinks.iter().filter_map(|(name, health)| {
            health.failing().map(|(outage, reason)| (name.as_str(), outage, reason))
        });
        failing.max_by_key(|(_, outage, _)| *outage)
    }
}

impl Report for Status {
    fn readiness(&self) -> Result<(), String> {
        match self.worst() {
            Some((sink, outage, reason)) if outage >= PATIENCE => {
                Err(format!("sink {sink} has not confirmed for {}: {reason}", seconds(outage)))
            }
            _ => Ok(()),
        }
    }

    fn status(&self) -> Value {
        let sinks: Vec<_> = self
            .sinks
            .iter()
            .map(|(name, health)| {
                let mut status = health.status();
                status["sink"] = json!(name);
                status["confirmed_records"] = json!(self.metrics.confirmed_records(name));
                status["unconfirmed_bytes"] = json!(self.metrics.unconfirmed_bytes(name));
                status["lost_bytes"] = json!(self.metrics.lost_bytes(name));
                status
            })
            .collect();
        json!({"sinks": sinks, "files": *self.files.lock().unwrap_or_else(PoisonError::into_inner)})
    }
}

/// For people: whole seconds.
pub(crate) fn seconds(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}
