//! Waiting for a condition with a deadline.

use std::time::{Duration, Instant};

/// Long enough for a loaded machine; a test that passes never waits this long.
pub const DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(what, || condition().then_some(()));
}

/// Waits until `probe` finds something, and returns it.
#[track_caller]
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, probe).unwrap_or_else(|| panic!("waited {DEADLINE:?} in vain: {what}"))
}

/// Waits until `probe` finds something, at most for `limit`.
pub fn within<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let found = probe();
        if found.is_some() || start.elapsed() > limit {
            return found;
        }
        std::thread::sleep(POLL);
    }
}
