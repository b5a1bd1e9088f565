//! Waiting for a condition with a deadline, where a timeout is a result and not a panic.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// Waits until `probe` finds something, at most for `budget`.
pub(crate) fn within<T>(budget: Duration, what: &str, probe: impl FnMut() -> Option<T>) -> Result<T> {
    testkit::wait::within(budget, probe).with_context(|| format!("waited {budget:?} in vain: {what}"))
}
