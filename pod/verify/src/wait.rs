//! Waiting for a condition with a deadline, where a timeout is a result and not a panic.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Waits until `probe` finds something, at most for `budget`.
pub(crate) fn within<T>(budget: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return Ok(found);
        }
        if start.elapsed() > budget {
            bail!("waited {budget:?} in vain: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
