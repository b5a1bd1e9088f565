//! All three containers, asked again and again while a browser watches.
//!
//! The two others are asked at the same time; what the server knows about itself is read from memory. A container that does
//! not answer is down, and its last answer stays, so that a viewer sees what is known and how old it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lifecycle::blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::flags::{Actions, Flags};
use crate::info::PodInfo;
use crate::kubelet::KubeletFile;
use crate::lag::{Counts, Lag};
use crate::local::{Counters, Listing, LocalServer};
use crate::peer::Peer;
use crate::snapshot::{
    Changes, Container, FORMAT, Log, Release, Requests, Said, Sink, Snapshot, State, Sync,
};
use crate::status::{Agent, Puller};

/// What requests per second are counted over.
const WINDOW: Duration = Duration::from_secs(2);
/// Releases with more files are not compared file by file.
const COMPARED_MAX: usize = 20_000;

/// What there is to look at, and what was seen so far.
#[derive(Debug)]
pub(crate) struct Poller {
    own: Arc<dyn LocalServer>,
    shutdown: CancellationToken,
    started: SystemTime,
    actions: Actions,
    info: PodInfo,
    kubelet: KubeletFile,
    puller: Peer<Puller>,
    agent: Peer<Agent>,
    lag: Lag,
    /// The release that is served.
    listing: Option<Listing>,
    /// What the release that is served now has other than the one before.
    changes: Option<Changes>,
    answered: VecDeque<(Instant, u64)>,
}

impl Poller {
    /// Has seen nothing yet.
    pub(crate) fn new(
        flags: &Flags,
        own: Arc<dyn LocalServer>,
        shutdown: CancellationToken,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        Self {
            own,
            shutdown,
            started: SystemTime::now(),
            actions: flags.actions(),
            puller: Peer::new(Client::new(flags.pod_page_puller)),
            agent: Peer::new(Client::new(flags.pod_page_agent)),
            info: PodInfo::new(flags, variable),
            kubelet: KubeletFile::new(flags.pod_events_file.clone()),
            lag: Lag::default(),
            listing: None,
            changes: None,
            answered: VecDeque::new(),
        }
    }

    /// Looks once.
    pub(crate) async fn poll(&mut self) -> Snapshot {
        let written = self.own.counters().lines_written;
        let (puller, agent) = tokio::join!(self.puller.poll(), self.agent.poll());
        self.info.refresh().await;
        self.kubelet.refresh().await;
        let release = self.release().await;
        if let (State::Up, Some(status)) = (agent.state, &self.agent.last) {
            self.lag.look(counts(written, status, &agent));
        }
        // Read again: what was written in the meantime is on its way.
        let counters = self.own.counters();
        let requests = self.requests(counters);
        let log = Log {
            written: counters.lines_written,
            dropped: counters.lines_dropped,
            waiting: self.lag.lines(counters.lines_written),
            sinks: self.agent.last.as_ref().map(sinks).unwrap_or_default(),
        };
        Snapshot {
            format: FORMAT,
            actions: match self.actions {
                Actions::On => &["sync"],
                Actions::Off => &[],
            },
            pod: self.info.pod.clone(),
            containers: [puller, self.own_container(), agent],
            kubelet: self.kubelet.last.clone(),
            release,
            sync: self.puller.last.as_ref().map(sync),
            requests,
            log,
        }
    }

    /// No browser watches: what is only worth something from one poll to the next is let go.
    pub(crate) fn pause(&mut self) {
        self.puller.hang_up();
        self.agent.hang_up();
        self.listing = None;
        self.changes = None;
        self.answered.clear();
    }

    fn own_container(&self) -> Container {
        let container = self.own.container();
        let draining = self.shutdown.is_cancelled();
        let reason = self.own.readiness().err();
        Container {
            name: container.name,
            admin: self.own.admin_port(),
            state: State::Up,
            last: Some(Said {
                version: container.version.to_owned(),
                started: humantime::format_rfc3339_millis(self.started).to_string(),
                ready: reason.is_none() && !draining,
                draining,
            }),
            reason,
            restarts: 0,
        }
    }

    async fn release(&mut self) -> Option<Release> {
        let served = self.own.served()?;
        if self.listing.as_ref().is_none_or(|listing| listing.release != served.release) {
            let own = Arc::clone(&self.own);
            let comparable = served.files <= COMPARED_MAX;
            let now = if comparable { blocking(move || own.listing()).await } else { None };
            self.changes = self.listing.as_ref().zip(now.as_ref()).map(|(before, now)| compare(before, now));
            self.listing = now;
        }
        let publication = self.puller.last.as_ref().and_then(|status| status.publication.as_ref());
        let publication = publication.filter(|one| one.release == served.release);
        Some(Release {
            published: humantime::format_rfc3339_millis(served.published).to_string(),
            files: served.files,
            fetched_files: publication.map(|one| one.fetched_files),
            changes: self.changes.clone(),
            id: served.release,
        })
    }

    fn requests(&mut self, counters: Counters) -> Requests {
        let now = Instant::now();
        let classes = counters.answers;
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
    let behind = |sink: &crate::status::Sink| sink.failing.is_some() || sink.unconfirmed_bytes != Some(0);
    // What a sink has refused is not under way, either.
    let done = |sink: &crate::status::Sink| {
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
        waiting: status.waiting,
        last: status.last_sync.as_ref().map(|last| last.ended.clone()),
        result: outcome.map(|outcome| outcome.result.clone()),
        error: outcome.and_then(|outcome| outcome.error.clone()),
        failures: status.failures_in_a_row,
    }
}

/// What `now` has other than `before`.
fn compare(before: &Listing, now: &Listing) -> Changes {
    let mut changes = Changes::default();
    for (path, digest) in &now.files {
        match before.files.get(path) {
            Some(known) if known == digest => {}
            Some(_) => changes.changed.push(path.clone()),
            None => changes.added.push(path.clone()),
        }
    }
    let gone = before.files.keys().filter(|path| !now.files.contains_key(*path));
    changes.removed = gone.cloned().collect();
    let kinds = [&mut changes.added, &mut changes.changed, &mut changes.removed];
    changes.count = kinds.iter().map(|paths| paths.len()).sum();
    for paths in kinds {
        paths.sort_unstable();
        paths.truncate(Changes::NAMED);
    }
    changes
}
