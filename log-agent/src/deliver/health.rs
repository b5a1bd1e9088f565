//! How a sink is doing, for the log, for `/readyz` and for `/status`.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

/// While a sink fails, it is said again this often.
const REMIND: Duration = Duration::from_secs(60);

/// How a sink is doing; shared with the admin server.
#[derive(Debug, Default)]
pub(crate) struct Health {
    state: Mutex<HealthState>,
}

#[derive(Debug, Default)]
struct HealthState {
    failing: Option<Failing>,
    confirmed_chunks: u64,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    said: Instant,
    attempts: u64,
    reason: String,
}

impl Health {
    /// How long it has been failing, and why.
    pub(crate) fn failing(&self) -> Option<(Duration, String)> {
        let state = self.state.lock();
        state.failing.as_ref().map(|failing| (failing.since.elapsed(), failing.reason.clone()))
    }

    pub(crate) fn status(&self) -> Value {
        let state = self.state.lock();
        let failing = state.failing.as_ref().map(|failing| {
            json!({
                "for_seconds": failing.since.elapsed().as_secs_f64(),
                "attempts": failing.attempts,
                "reason": failing.reason,
            })
        });
        json!({"confirmed_chunks": state.confirmed_chunks, "failing": failing})
    }

    /// The attempts since it began to fail, and whether it is time to say so.
    pub(super) fn fail(&self, reason: &str) -> (u64, bool) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let Some(failing) = &mut state.failing else {
            state.failing = Some(Failing { since: now, said: now, attempts: 1, reason: reason.to_owned() });
            return (1, true);
        };
        failing.attempts += 1;
        // Another reason is news; the same one only now and then.
        let say = failing.reason != reason || failing.said.elapsed() >= REMIND;
        reason.clone_into(&mut failing.reason);
        if say {
            failing.said = now;
        }
        (failing.attempts, say)
    }

    /// It confirms: what has just ended, where it had been failing.
    pub(super) fn recover(&self) -> Option<(u64, Duration)> {
        let failing = self.state.lock().failing.take();
        failing.map(|failing| (failing.attempts, failing.since.elapsed()))
    }

    pub(super) fn count_chunk(&self) {
        self.state.lock().confirmed_chunks += 1;
    }
}
