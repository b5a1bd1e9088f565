//! All three containers, asked again and again while a browser watches.
//!
//! The two others are asked at the same time; what the server knows about itself is read from memory. A container that does
//! not answer is down, and its last answer stays, so that a viewer sees what is known and how old it is.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lifecycle::blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::flags::{Flags, RunsOn};
use crate::info::PodInfo;
use crate::kubelet::KubeletFile;
use crate::local::{Counters, Listing, LocalServer};
use crate::log_files::{Confirmed, Found, LogFiles};
use crate::peer::Peer;
use crate::snapshot::{
    Changes, Container, FORMAT, Log, Probes, Release, Requests, Said, Sink, Snapshot, State, Sync, rfc3339,
};
use crate::status::{self, Agent, Puller, Status as _};

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
    actions: &'static [&'static str],
    runs_on: Option<RunsOn>,
    info: PodInfo,
    kubelet: KubeletFile,
    puller: Peer<Puller>,
    agent: Peer<Agent>,
    log_files: Option<LogFiles>,
    /// What the log's files held when they were looked at last.
    found: Option<Found>,
    /// What earlier processes of log-agent have said of each sink.
    earlier: Earlier,
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
        let log_files = own.access_log().map(LogFiles::new);
        // Every container of a cluster has this variable.
        let cluster = || variable("KUBERNETES_SERVICE_HOST").map(|_| RunsOn::Kubernetes);
        let runs_on = flags.pod_runs_on.or_else(cluster);
        Self {
            own,
            shutdown,
            started: SystemTime::now(),
            actions: if flags.pod_page_actions { &["sync"] } else { &[] },
            puller: Peer::new(Client::new(flags.pod_page_puller)),
            agent: Peer::new(Client::new(flags.pod_page_agent)),
            info: PodInfo::new(flags, variable),
            kubelet: KubeletFile::new(flags.pod_events_file.clone()),
            log_files,
            found: None,
            earlier: Earlier::default(),
            runs_on,
            listing: None,
            changes: None,
            answered: VecDeque::new(),
        }
    }

    /// Looks once.
    pub(crate) async fn poll(&mut self) -> Snapshot {
        let (mut puller, mut agent) = tokio::join!(self.puller.poll(), self.agent.poll());
        self.info.refresh().await;
        self.kubelet.refresh().await;
        let release = self.release().await;
        let mut own = self.own_container();
        for container in [&mut puller, &mut own, &mut agent] {
            container.restarts = self.kubelet.restarts(container.name).unwrap_or(container.restarts);
        }
        if let Some(status) = &self.agent.last {
            self.earlier.note(status);
        }
        self.count_lines().await;
        let counters = self.own.counters();
        let requests = self.requests(counters);
        let log = self.log(counters);
        Snapshot {
            format: FORMAT,
            actions: self.actions,
            runs_on: self.runs_on,
            pod: self.info.pod.clone(),
            containers: [puller, own, agent],
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
        let probed = self.own.probed();
        Container {
            name: container.name,
            admin: self.own.admin_port(),
            state: State::Up,
            last: Some(Said {
                version: container.version.to_owned(),
                started: rfc3339(self.started),
                ready: reason.is_none() && !draining,
                draining,
            }),
            reason,
            restarts: 0,
            probes: Some(Probes { asked: probed.asked, last: probed.last.map(rfc3339) }),
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
            published: rfc3339(served.published),
            files: served.files,
            fetched_files: publication.map(|one| one.fetched_files),
            changes: self.changes.clone(),
            id: served.release,
        })
    }

    /// Counts the lines in the log's files. Where log-agent has not looked at them yet, what was known before stays.
    async fn count_lines(&mut self) {
        let Some(files) = &mut self.log_files else { return };
        let sinks = self
            .agent
            .last
            .as_ref()
            .map(|status| status.sinks.iter().map(|sink| confirmed(status, sink)).collect::<Vec<_>>());
        match files.count(sinks.unwrap_or_default()).await {
            Ok(mut found) => {
                let before = self.found.take().map(|before| before.confirmed).unwrap_or_default();
                for (now, before) in found.confirmed.iter_mut().zip(before) {
                    *now = now.or(before);
                }
                self.found = Some(found);
            }
            Err(error) => tracing::debug!(%error, "the access log cannot be counted: what was known stays"),
        }
    }

    fn log(&self, counters: Counters) -> Log {
        let found = self.found.as_ref();
        let written = found.map_or(counters.lines_written, |found| found.lines);
        let done = |at: usize| found.and_then(|found| *found.confirmed.get(at)?);
        let sinks = self.agent.last.iter().flat_map(|status| &status.sinks).enumerate();
        let sinks: Vec<(Option<u64>, Sink)> = sinks
            .map(|(at, sink)| {
                let earlier = self.earlier.of(&sink.sink);
                let refused = earlier.refused + sink.refused_records.unwrap_or_default();
                let shown = Sink {
                    name: sink.sink.clone(),
                    // What a sink has refused it is done with, and does not have.
                    shipped: match found {
                        Some(_) => done(at).map(|lines| lines.saturating_sub(refused)),
                        None => sink.confirmed_records,
                    },
                    waiting_bytes: sink.unconfirmed_bytes,
                    lost_bytes: sink.lost_bytes.map(|bytes| bytes + earlier.bytes),
                    failing: sink.failing.as_ref().map(|failing| failing.reason.clone()),
                };
                (done(at), shown)
            })
            .collect();
        let slowest = sinks.iter().map(|(done, _)| *done).min().flatten();
        Log {
            written,
            dropped: counters.lines_dropped,
            waiting: slowest.map(|done| written.saturating_sub(done)),
            sinks: sinks.into_iter().map(|(_, sink)| sink).collect(),
        }
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
        let classes = self.found.as_ref().map_or(classes, |found| found.classes);
        Requests { per_second, classes: names.into_iter().zip(classes).collect() }
    }
}

/// To a tenth, which is what people read.
fn rate(count: u64, over: Duration) -> Option<f64> {
    let count = f64::from(u32::try_from(count).ok()?);
    (over >= WINDOW / 2).then(|| (count / over.as_secs_f64() * 10.0).round() / 10.0)
}

/// Which bytes of the log's files a sink is done with, as log-agent says. A file whose name was taken from it is none of the log's.
fn confirmed(status: &Agent, sink: &status::Sink) -> Confirmed {
    let named = status.files.iter().filter(|file| file.named);
    let offsets =
        named.filter_map(|file| Some((file.path.file_name()?.to_owned(), *file.confirmed.get(&sink.sink)?)));
    offsets.collect()
}

/// What log-agent can only say of its own process: refused lines and lost bytes, of the processes that were seen before this one.
#[derive(Debug, Default)]
struct Earlier {
    /// When the process that spoke last was started.
    started: String,
    /// By sink, of the processes before that one, and of it.
    sinks: HashMap<String, (Losses, Losses)>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Losses {
    refused: u64,
    bytes: u64,
}

impl Earlier {
    fn note(&mut self, status: &Agent) {
        let started = &status.common().said.started;
        if self.started != *started {
            self.started.clone_from(started);
            for (sum, latest) in self.sinks.values_mut() {
                let Losses { refused, bytes } = std::mem::take(latest);
                sum.refused += refused;
                sum.bytes += bytes;
            }
        }
        for sink in &status.sinks {
            let losses = Losses {
                refused: sink.refused_records.unwrap_or_default(),
                bytes: sink.lost_bytes.unwrap_or_default(),
            };
            self.sinks.entry(sink.sink.clone()).or_default().1 = losses;
        }
    }

    /// Of a sink, before the present process.
    fn of(&self, sink: &str) -> Losses {
        self.sinks.get(sink).map(|(sum, _)| *sum).unwrap_or_default()
    }
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
