//! Probes: a container's own `/readyz`, asked from its start to its end, and its `/livez`.
//!
//! A kubelet asks a Pod's own address, where no other program is. On this machine's another one may take the port after it was found
//! free, and answer 200 to anything; so the first yes counts only from a process of the container.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lifecycle::healthcheck::{Healthcheck, ProbeFailure, livez};
use rustix::process::Pid;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::event::{EventLog, What};
use crate::ports;
use crate::spec::LivenessProbe;

/// How often a container is asked that has not been ready yet.
const STARTUP_PERIOD: Duration = Duration::from_millis(50);
/// How often one is asked that has: `periodSeconds` of a readiness probe.
const PERIOD: Duration = Duration::from_secs(2);
/// How long a container may be on its way before its reason is worth a line.
const REPORT_AFTER: Duration = Duration::from_secs(1);

/// Asks until it is dropped, and tells the event log of every change. `started` is cancelled at the first answer that is a yes.
pub(crate) async fn watch(
    name: &'static str,
    admin: SocketAddr,
    group: Option<Pid>,
    started: &CancellationToken,
    events: &EventLog,
) {
    let begun = Instant::now();
    let probe = Healthcheck { admin_addr: admin };
    let mut last = None;
    let mut period = STARTUP_PERIOD;
    loop {
        let asked = probe.clone();
        // Once it has the port, it keeps it until its end.
        let unknown = group.filter(|_| !started.is_cancelled());
        let now = lifecycle::blocking(move || {
            let (_, ready) = asked.probe();
            ready.map_err(|failure| match failure {
                ProbeFailure::NoAnswer(error) => unanswered(admin, &error),
                ProbeFailure::Answer { reason, .. } => reason,
            })?;
            let known = unknown.map_or(Ok(()), |group| ports::is_of(group, admin));
            known.map_err(|other| format!("{other} answers on {admin} in its place"))
        })
        .await;
        let worth_a_line = now.is_ok() || last.is_some() || begun.elapsed() > REPORT_AFTER;
        if worth_a_line && last.as_ref() != Some(&now) {
            events.record(name, now.clone().map_or_else(What::NotReady, |()| What::Ready));
            last = Some(now.clone());
        }
        if now.is_ok() {
            started.cancel();
            period = PERIOD;
        }
        tokio::time::sleep(period).await;
    }
}

/// Asks whether the container is alive, until it has failed to say so as often in a row as it may. Tells the event log of each failure.
///
/// The first question comes after a period: a process that has just been started need not listen yet.
pub(crate) async fn until_not_alive(
    name: &'static str,
    admin: SocketAddr,
    probe: LivenessProbe,
    events: &EventLog,
) {
    let mut turns = tokio::time::interval_at(tokio::time::Instant::now() + probe.period, probe.period);
    // A kubelet that was stopped itself, such as with Ctrl-Z, does not make up for the questions that it has missed.
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = 0;
    while failures < probe.failure_threshold {
        turns.tick().await;
        match lifecycle::blocking(move || livez(admin, probe.timeout)).await {
            Ok(()) => failures = 0,
            Err(failure) => {
                failures += 1;
                let reason = match failure {
                    ProbeFailure::NoAnswer(error) => unanswered(admin, &error),
                    ProbeFailure::Answer { status, reason } => format!("{status} {reason}"),
                };
                let threshold = probe.failure_threshold;
                events.record(name, What::LivenessProbeFailed { failures, threshold, reason });
            }
        }
    }
}

/// Why a probe has no answer. One that is only late says so itself.
fn unanswered(admin: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => error.to_string(),
        _ => format!("{admin} does not answer: {error}"),
    }
}
