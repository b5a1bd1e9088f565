//! How often `/livez` and `/readyz` were asked, and when last: what shows a student that a kubelet goes on asking.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// The count. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Probes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    asked: AtomicU64,
    /// In milliseconds since 1970.
    last: AtomicU64,
}

/// The count at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed {
    /// Probes that were answered, whatever the answer.
    pub asked: u64,
    /// When the last one was; none before the first.
    pub last: Option<SystemTime>,
}

impl Probes {
    /// A probe is answered.
    pub(super) fn count(&self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.last.store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.0.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn so_far(&self) -> Probed {
        let asked = self.0.asked.load(Ordering::Relaxed);
        let last = UNIX_EPOCH + Duration::from_millis(self.0.last.load(Ordering::Relaxed));
        Probed { asked, last: (asked > 0).then_some(last) }
    }
}

impl Probed {
    /// As `/status` has it.
    pub(super) fn to_json(self) -> Value {
        json!({"asked": self.asked, "last": self.last.map(|at| humantime::format_rfc3339_millis(at).to_string())})
    }
}
