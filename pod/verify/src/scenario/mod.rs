//! The scorecard's rows, written once for every engine: each one is a function that drives a running Pod and either
//! returns or says in one line what it saw instead.
//!
//! - [`content`]: from the content manager to the browser
//! - [`log`]: from a request to the log sink
//! - [`network`]: one address, one port space
//! - [`killing`]: any container may die at any time
//! - [`containers`]: what only containers can show
//!
//! A scenario leaves the Pod as healthy as it found it, so that several can run one after the other on one Pod.

pub mod containers;
pub mod content;
pub mod killing;
pub mod log;
pub mod network;

use anyhow::{Context as _, Result, bail};

use crate::engine::{Containers, Engine};

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

/// What a scenario for containers is.
pub type ContainerScenario = fn(&dyn Containers) -> Result<()>;

/// Those that only containers can show; the last one is the end of the Pod.
pub const ON_CONTAINERS: [(&str, ContainerScenario); 4] = [
    ("twocontainers", containers::twocontainers),
    (killing::DEAD_SIDECAR, killing::a_dead_sidecar_takes_the_pod_out_of_its_service),
    ("read_only_root_non_root", containers::read_only_root_non_root),
    ("pod_shutdown_order", containers::pod_shutdown_order),
];

/// The body of a page that must be there.
fn page(pod: &dyn Engine, path: &str) -> Result<String> {
    let answer = pod.get(path).with_context(|| format!("GET {path}"))?;
    if answer.status() != 200 {
        bail!("GET {path} answers {}", answer.start);
    }
    Ok(answer.text().to_owned())
}
