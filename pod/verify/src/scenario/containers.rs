//! What only containers can show.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::log::{seen, unique_tag};
use crate::engine::{Confinement, Containers, Name};
use crate::wait::within;

/// The user that every image names.
const USER: u32 = 65532;
/// From the end of the Pod to the last record's arrival; the agent has then already confirmed it.
const DELIVERY: Duration = Duration::from_secs(5);

/// The lesson's last command answers what the lesson shows.
pub fn twocontainers(pod: &dyn Containers) -> Result<()> {
    let answer = pod.in_shell("curl -s localhost:9876/info").context("cannot ask from the shell")?;
    let expected = r#"{"host": "localhost:9876", "version": "0.5.0", "from": "127.0.0.1"}"#;
    ensure!(answer == expected, "the shell prints {answer:?}, not {expected:?}");
    Ok(())
}

/// Each container runs as an unprivileged user, can write only to its volumes, and can become nothing more.
pub fn read_only_root_non_root(pod: &dyn Containers) -> Result<()> {
    let expected = Confinement { user: USER, read_only_root: true, capabilities: 0 };
    for name in Name::ALL {
        let confinement =
            pod.confinement(name).with_context(|| format!("{} does not tell", name.as_str()))?;
        ensure!(confinement == expected, "{}: {confinement:?}", name.as_str());
    }
    Ok(())
}

/// The server ends first and the log agent last, so that the last request's line is at the sink. The Pod is gone afterwards.
pub fn pod_shutdown_order(pod: &dyn Containers) -> Result<()> {
    let tag = unique_tag();
    let last = pod.get(&format!("/?{tag}=last"))?;
    ensure!(last.status() == 200, "the last request is answered {}", last.start);
    let begun = Instant::now();
    let ended = pod.stop().context("cannot stop the Pod")?;
    let order = [Name::WebServer, Name::FilePuller, Name::LogAgent];
    ensure!(ended == order, "they ended in the order {ended:?}, {:?} after the stop began", begun.elapsed());
    within(DELIVERY, "the last request is at the sink", || (!seen(pod, &tag).is_empty()).then_some(()))
}
