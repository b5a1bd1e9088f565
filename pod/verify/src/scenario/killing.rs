//! Any container may die at any time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::log::{seen, unique_tag};
use crate::engine::{Containers, Engine, Name};
use crate::wait::within;

const BACK: Duration = Duration::from_secs(15);
const DELIVERY: Duration = Duration::from_secs(30);
/// Between two requests. Engines keep only so many megabytes of what a container prints, and their kills take seconds.
const PACE: Duration = Duration::from_millis(5);
/// Requests between two deaths, so that each falls into traffic.
const SPACING: usize = 50;
/// The server hands a line to the kernel right after the answer, off the request's path. What it answered in its very
/// last moment may therefore have no line; what has a line is never lost.
const UNWRITTEN: Duration = Duration::from_millis(50);

/// SIGKILL each container in turn under load: it comes back, every answered request reaches the sink (but for those of
/// the server's last moment, see `UNWRITTEN`), and no answer is ever wrong.
pub fn kill_any_container(pod: &dyn Engine) -> Result<()> {
    let load = Load { pod, tag: unique_tag(), answered: AtomicUsize::new(0), over: AtomicBool::new(false) };
    let (traffic, kill_asked) = std::thread::scope(|scope| {
        let running = scope.spawn(|| load.run());
        let killed = kill_each(&load);
        load.over.store(true, Ordering::SeqCst);
        let traffic = running.join().map_err(|_| anyhow::anyhow!("the load generator panicked"))??;
        anyhow::Ok((traffic, killed?))
    })?;

    // An engine may take its time to carry out a kill and to report it; the first request that fails tells the moment.
    let Traffic { answered, failed } = traffic;
    let died = failed.into_iter().find(|failed| failed.noticed >= kill_asked).map(|failed| failed.asked);
    let last_moment = |at| {
        let before = died.and_then(|died| died.checked_duration_since(at));
        before.is_some_and(|before| before < UNWRITTEN)
    };
    let missing = || {
        let seen = seen(pod, &load.tag);
        let unseen = answered.iter().filter(|(query, at)| !seen.contains_key(query) && !last_moment(*at));
        unseen.map(|(query, _)| query.clone()).collect::<Vec<_>>()
    };
    let all =
        within(DELIVERY, "every answered request is at the sink", || missing().is_empty().then_some(()));
    all.with_context(|| {
        format!("{} of {} are missing: {:?} …", missing().len(), answered.len(), missing().first())
    })
}

/// The name of the row, which engines without Services give in [`Containers::beyond`].
pub const DEAD_SIDECAR: &str = "dead_sidecar_takes_the_pod_out_of_its_service";
/// Until the kubelet has reported a death, and every node has heard of it.
const UNREADY_NOW: Duration = Duration::from_secs(15);
/// Deaths within this time bring the kubelet's back-off about.
const UNREADY: Duration = Duration::from_secs(60);
/// The kubelet's back-off after the third death is 20 s, and doubles.
const READY_AGAIN: Duration = Duration::from_secs(180);

/// What `docs/contract.md` says in section 7: a sidecar that is down makes the Pod unready, so its Service sends no one there,
/// although web-server is well. Once the kubelet has restarted the sidecar, the Pod is back.
pub fn a_dead_sidecar_takes_the_pod_out_of_its_service(pod: &dyn Containers) -> Result<()> {
    let through_service = || pod.get_through_service("/info");
    within(READY_AGAIN, "the Service answers", || (through_service().ok()? == Some(200)).then_some(()))?;
    let mut kills = 0;
    let begun = Instant::now();
    // The first restarts come at once. From then on the sidecar stays down for its back-off.
    loop {
        pod.kill(Name::LogAgent).context("cannot kill log-agent")?;
        kills += 1;
        let down =
            within(UNREADY_NOW, "the Service refuses", || through_service().ok()?.is_none().then_some(()));
        if down.is_ok() {
            break;
        }
        ensure!(
            begun.elapsed() < UNREADY,
            "log-agent was killed {kills} times, and the Service still answered"
        );
        within(BACK, "log-agent runs again", || pod.get_inside(Name::LogAgent.admin_port(), "/livez").ok())?;
    }
    let answer =
        pod.get_inside(9876, "/info").context("web-server is well, and must answer within the Pod")?;
    ensure!(answer.status() == 200, "/info within the Pod answers {}", answer.start);
    within(READY_AGAIN, "the Service answers again", || (through_service().ok()? == Some(200)).then_some(()))
}

/// Kills all three, and tells when the server's death was asked for.
fn kill_each(load: &Load<'_>) -> Result<Instant> {
    let mut server_killed = Instant::now();
    for name in Name::ALL {
        load.wait_for_more()?;
        pod_is_ready(load.pod, name)?;
        if name == Name::WebServer {
            server_killed = Instant::now();
        }
        load.pod.kill(name).with_context(|| format!("cannot kill {}", name.as_str()))?;
        load.wait_for_more().with_context(|| format!("after the death of {}", name.as_str()))?;
        pod_is_ready(load.pod, name)?;
    }
    Ok(server_killed)
}

fn pod_is_ready(pod: &dyn Engine, name: Name) -> Result<()> {
    within(BACK, &format!("{} is ready", name.as_str()), || {
        pod.get_inside(name.admin_port(), "/readyz").ok().filter(|answer| answer.status() == 200)
    })?;
    Ok(())
}

/// Requests one after the other, each with a query of its own.
struct Load<'a> {
    pod: &'a dyn Engine,
    tag: String,
    answered: AtomicUsize,
    over: AtomicBool,
}

/// What became of the requests.
#[derive(Default)]
struct Traffic {
    /// The queries of those that got a whole answer, and when.
    answered: Vec<(String, Instant)>,
    /// The others.
    failed: Vec<Failed>,
}

/// A request that got no answer. The error can come back long after the death that caused it, so the beginning tells when the
/// server was gone.
struct Failed {
    asked: Instant,
    noticed: Instant,
}

impl Load<'_> {
    /// Asks until it is over.
    fn run(&self) -> Result<Traffic> {
        let mut traffic = Traffic::default();
        for number in 0.. {
            if self.over.load(Ordering::SeqCst) {
                break;
            }
            let query = format!("{}={number}", self.tag);
            let asked = Instant::now();
            // A request that the server's death cuts off has no answer, and may or may not have a line.
            if let Ok(answer) = self.pod.get(&format!("/?{query}")) {
                ensure!(answer.status() == 200, "/?{query} answers {}", answer.start);
                ensure!(answer.text().contains("</html>"), "/?{query} answers half a page");
                traffic.answered.push((query, Instant::now()));
                self.answered.fetch_add(1, Ordering::SeqCst);
            } else {
                traffic.failed.push(Failed { asked, noticed: Instant::now() });
            }
            std::thread::sleep(PACE);
        }
        Ok(traffic)
    }

    fn wait_for_more(&self) -> Result<()> {
        let from = self.answered.load(Ordering::SeqCst);
        within(BACK, "requests are answered", || {
            (self.answered.load(Ordering::SeqCst) >= from + SPACING).then_some(())
        })
    }
}
