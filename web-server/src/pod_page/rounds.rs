//! All three containers, looked at again and again while somebody watches.
//!
//! The neighbours are asked at the same time; what this server knows of itself it reads from memory. A neighbour that does
//! not answer is down, and what it said last stays, so that a viewer sees what is known and how old it is.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lifecycle::admin::Report as _;
use lifecycle::blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lag::{Counts, Lag};
use super::neighbour::Neighbour;
use super::snapshot::{
    Changes, Container, FORMAT, Log, Release, Requests, Said, Sink, Snapshot, State, Sync,
};
use super::status::{Agent, Puller};
use super::told::Told;
use super::watched::Watched;
use super::{Actions, Flags};
use crate::CONTAINER;
use crate::content::digest::Digest;
use crate::content::generation::Generation;
use crate::content::root::Content;
use crate::status::Status as ServerStatus;

/// What requests per second are counted over.
const WINDOW: Duration = Duration::from_secs(2);
/// Releases with more files are not compared file by file.
const COMPARED_MAX: usize = 20_000;

/// This server, from inside.
#[derive(Debug)]
pub(crate) struct Own {
    /// What it says of itself.
    pub(crate) status: Arc<ServerStatus>,
    /// Its admin port.
    pub(crate) admin: u16,
    /// Cancelled when it drains.
    pub(crate) shutdown: CancellationToken,
}

/// What there is to look at, and what was seen so far.
#[derive(Debug)]
pub(crate) struct Rounds {
    own: Own,
    started: SystemTime,
    actions: Actions,
    told: Told,
    puller: Watched<Puller>,
    agent: Watched<Agent>,
    lag: Lag,
    site: Option<Arc<Content>>,
    /// What the release that is served now has other than the one before.
    changes: Option<Changes>,
    answered: VecDeque<(Instant, u64)>,
}

impl Rounds {
    /// Has seen nothing yet.
    pub(crate) fn new(flags: Flags, own: Own, variable: impl Fn(&str) -> Option<String>) -> Self {
        Self {
            own,
            started: SystemTime::now(),
            actions: flags.actions,
            puller: Watched::new(Neighbour::new(flags.puller)),
            agent: Watched::new(Neighbour::new(flags.agent)),
            told: Told::new(flags, variable),
            lag: Lag::default(),
            site: None,
            changes: None,
            answered: VecDeque::new(),
        }
    }

    /// Looks once.
    pub(crate) async fn look(&mut self) -> Snapshot {
        let written = self.own.status.metrics.access_log_lines.get();
        let (puller, agent) = tokio::join!(self.puller.look(), self.agent.look());
        self.told.refresh().await;
        let release = self.release().await;
        if let (State::Up, Some(status)) = (agent.state, &self.agent.last) {
            self.lag.look(counts(written, status, &agent));
        }
        let requests = self.requests();
        // Read again: what was written in the meantime is on its way.
        let written = self.own.status.metrics.access_log_lines.get();
        let log = Log {
            written,
            dropped: self.own.status.metrics.access_log_dropped.get(),
            waiting: self.lag.lines(written),
            sinks: self.agent.last.as_ref().map(sinks).unwrap_or_default(),
        };
        Snapshot {
            format: FORMAT,
            actions: match self.actions {
                Actions::On => &["sync"],
                Actions::Off => &[],
            },
            pod: self.told.pod.clone(),
            containers: [puller, self.own_container(), agent],
            release,
            sync: self.puller.last.as_ref().map(sync),
            requests,
            log,
        }
    }

    /// Nobody watches: what is only worth something from one round to the next is let go.
    pub(crate) fn rest(&mut self) {
        self.puller.hang_up();
        self.agent.hang_up();
        self.site = None;
        self.changes = None;
        self.answered.clear();
    }

    fn own_container(&self) -> Container {
        let draining = self.own.shutdown.is_cancelled();
        let reason = self.own.status.readiness().err();
        Container {
            name: CONTAINER.name,
            admin: self.own.admin,
            state: State::Up,
            last: Some(Said {
                version: CONTAINER.version.to_owned(),
                started: humantime::format_rfc3339_millis(self.started).to_string(),
                ready: reason.is_none() && !draining,
                draining,
            }),
            reason,
            restarts: 0,
        }
    }

    async fn release(&mut self) -> Option<Release> {
        let site = self.own.status.root.content();
        if let Some(before) = self.site.replace(Arc::clone(&site))
            && !Arc::ptr_eq(&before, &site)
        {
            let now = Arc::clone(&site);
            // A comparison that fails is one that is not shown.
            self.changes = blocking(move || compare(&before, &now)).await;
        }
        let Content::Release(generation) = &*site else { return None };
        let publication = self.puller.last.as_ref().and_then(|status| status.publication.as_ref());
        let publication = publication.filter(|one| one.release == generation.release.as_str());
        Some(Release {
            id: generation.release.as_str().to_owned(),
            published: humantime::format_rfc3339_millis(generation.published).to_string(),
            files: generation.len(),
            fetched_files: publication.map(|one| one.fetched_files),
            changes: self.changes.clone(),
        })
    }

    fn requests(&mut self) -> Requests {
        let now = Instant::now();
        let classes = self.own.status.metrics.answered_by_class();
        let total = classes.iter().sum();
        while self.answered.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.answered.pop_front();
        }
        let per_second = self.answered.front().and_then(|(at, before)| rate(total - before, now - *at));
        self.answered.push_back((now, total));
        let names = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        Requests { per_second, classes: names.into_iter().zip(classes).collect() }
    }
}

/// To a tenth, which is what people read.
fn rate(count: u64, over: Duration) -> Option<f64> {
    let count = f64::from(u32::try_from(count).ok()?);
    (over >= WINDOW / 2).then(|| (count / over.as_secs_f64() * 10.0).round() / 10.0)
}

fn counts(written: u64, status: &Agent, agent: &Container) -> Counts {
    let behind = |sink: &super::status::Sink| sink.failing.is_some() || sink.unconfirmed_bytes != Some(0);
    // What a sink has refused is not under way, either.
    let done = |sink: &super::status::Sink| {
        Some(sink.confirmed_records?.saturating_add(sink.refused_records.unwrap_or(0)))
    };
    Counts {
        written,
        done: status.sinks.iter().filter_map(done).min().unwrap_or_default(),
        behind: status.sinks.is_empty() || status.sinks.iter().any(behind),
        agent_started: agent.last.as_ref().map(|said| said.started.clone()).unwrap_or_default(),
    }
}

fn sinks(status: &Agent) -> Vec<Sink> {
    let sinks = status.sinks.iter().map(|sink| Sink {
        name: sink.sink.clone(),
        shipped: sink.confirmed_records,
        waiting_bytes: sink.unconfirmed_bytes,
        lost_bytes: sink.lost_bytes,
        failing: sink.failing.as_ref().map(|failing| failing.reason.clone()),
    });
    sinks.collect()
}

fn sync(status: &Puller) -> Sync {
    let outcome = status.last_sync.as_ref().map(|last| &last.outcome);
    Sync {
        source: status.source.clone(),
        next: status.next_sync.clone(),
        last: status.last_sync.as_ref().map(|last| last.ended.clone()),
        result: outcome.map(|outcome| outcome.result.clone()),
        error: outcome.and_then(|outcome| outcome.error.clone()),
        failures: status.failures_in_a_row,
    }
}

fn compare(before: &Content, now: &Content) -> Option<Changes> {
    let (Content::Release(before), Content::Release(now)) = (before, now) else { return None };
    if before.len().max(now.len()) > COMPARED_MAX {
        return None;
    }
    let table = |generation: &Generation| -> HashMap<String, Digest> {
        generation.listing().map(|file| (file.path, file.digest)).collect()
    };
    let (mut before, mut changes) = (table(before), Changes::default());
    for (path, digest) in table(now) {
        match before.remove(&path) {
            Some(known) if known == digest => {}
            Some(_) => changes.changed.push(path),
            None => changes.added.push(path),
        }
    }
    changes.removed = before.into_keys().collect();
    let kinds = [&mut changes.added, &mut changes.changed, &mut changes.removed];
    changes.count = kinds.iter().map(|paths| paths.len()).sum();
    for paths in kinds {
        paths.sort_unstable();
        paths.truncate(Changes::NAMED);
    }
    Some(changes)
}
