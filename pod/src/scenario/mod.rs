//! The scorecard's rows, written once for every engine: each one is a function that drives a running Pod and either
//! returns or says in one line what it saw instead.
//!
//! - [`content`]: from the content manager to the browser
//! - [`log`]: from a request to the log sink
//! - [`network`]: one address, one port space
//! - [`killing`]: any container may die at any time
//!
//! A scenario leaves the Pod as healthy as it found it, so that several can run one after the other on one Pod.

pub mod content;
pub mod killing;
pub mod log;
pub mod network;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::engine::Engine;

/// What every scenario is.
pub type Scenario = fn(&dyn Engine) -> Result<()>;

/// Those that leave the Pod running, by the scorecard's names.
pub const ALL: [(&str, Scenario); 6] = [
    ("edit_reaches_the_browser", content::edit_reaches_the_browser),
    ("content_manager_outage_keeps_serving", content::content_manager_outage_keeps_serving),
    ("every_request_is_in_the_log_once", log::every_request_is_in_the_log_once),
    ("ports_do_not_clash", network::ports_do_not_clash),
    ("info_from_a_neighbour", network::info_from_a_neighbour),
    ("kill_any_container", killing::kill_any_container),
];

/// Waits until `probe` finds something, at most for `budget`.
fn within<T>(budget: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
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

/// The body of a page that must be there.
fn page(pod: &dyn Engine, path: &str) -> Result<String> {
    let answer = pod.get(path).with_context(|| format!("GET {path}"))?;
    if answer.status() != 200 {
        bail!("GET {path} answers {}", answer.start);
    }
    Ok(answer.text().to_owned())
}
