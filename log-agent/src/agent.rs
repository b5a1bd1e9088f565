//! The loop that everything happens in, on one thread: what was heard is looked at, what can be read is read, what was
//! confirmed is noted, and what was noted is checkpointed.
//!
//! Files are read on the loop itself. They are on a local disk and have just been written, so they are in the page cache;
//! a turn reads one chunk per sink at most, and probes are answered between turns.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::admin::{self, Admin};
use lifecycle::exit::{Exit, Failure, OrExit as _};
use lifecycle::signals::Signals;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::CONTAINER;
use crate::catalog::Catalog;
use crate::checkpoint::StateDir;
use crate::config::{Config, Until};
use crate::dead_letter::DeadLetters;
use crate::discover::Discovery;
use crate::drain;
use crate::enrich::SharedResource;
use crate::ledger::Ledger;
use crate::metrics::{BySink, Metrics};
use crate::pipeline::{Delivered, Next, Pipeline};
use crate::position::SourceSeq;
use crate::saver::{Saver, Wish};
use crate::sink::{Records, Roots, Settings, SharedKey, Sink, SinkUrl};
use crate::source::{Joining, Life, Reader};
use crate::status::Status;

/// How often files near their end are looked at.
const ENDING: Duration = Duration::from_millis(500);

/// Follows, ships and checkpoints until it is told to stop, or until the end of the files.
///
/// # Errors
/// 69 where the state directory is held by another, or where a sink did not take everything in time; 74 where the state
/// directory cannot be used; 70 for a defect of our own.
pub async fn run(config: Config, admin: TcpListener, signals: Signals) -> Result<(), Failure> {
    allow_many_files();
    let mut state = StateDir::open(&config.state_dir)?;
    let metrics = Metrics::default();
    let mut registry = admin::registry(&CONTAINER);
    metrics.register(&mut registry);

    let names: Vec<String> = config.sinks.iter().map(SinkUrl::name).collect();
    let ledger = Ledger::new(names.clone(), metrics.clone());
    let catalog = Catalog::new(names.clone(), state.load(), config.rotate_wait, ledger.clone());
    let resource = SharedResource::new(config.resource.clone(), config.pod_files.clone());
    let settings = Settings {
        compression: config.compression,
        roots: Roots::read(config.ca_file.as_deref())?,
        shared_key: config.forward_shared_key_file.as_deref().map(SharedKey::read).transpose()?,
    };
    let dead_letters = DeadLetters::new(&config.state_dir);
    let (mut pipelines, mut healths) = (Vec::new(), Vec::new());
    for (index, url) in config.sinks.iter().enumerate() {
        let records = Records {
            resource: resource.clone(),
            dead_letters: dead_letters.clone(),
            ledger: ledger.clone(),
        };
        let sink = Sink::new(index, url, &settings, records, metrics.clone())?;
        healths.push((sink.name().to_owned(), sink.health()));
        pipelines.push(Pipeline::new(index, sink, config.chunk_size));
    }
    let status = Arc::new(Status::new(healths, metrics.clone()));
    let _serving =
        Admin::new(CONTAINER, Arc::clone(&status) as _, registry, signals.shutdown.clone()).serve(admin);

    let agent = Agent {
        discovery: Discovery::start(config.include, config.exclude, config.watch),
        catalog,
        resource,
        pipelines,
        deliveries: JoinSet::new(),
        reader: Reader {
            format: config.format,
            joining: config.joining,
            shape: config.shape,
            max_line: config.max_line,
            buffer: Vec::new(),
        },
        saver: Saver::new(state, config.checkpoint_period, metrics.clone()),
        ledger,
        metrics,
        status,
        names,
        until: config.until,
        rescan_period: config.rescan_period,
        shutdown_timeout: config.shutdown_timeout,
        termination_log: config.termination_log,
    };
    agent.work(&signals).await
}

/// Every followed file is held open. The limit that a process starts with is meant for programs that use select(2); up to
/// the hard one it may be had for the asking.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, the files beyond the old limit are named when they cannot be opened.
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

struct Agent {
    discovery: Discovery,
    catalog: Catalog,
    resource: SharedResource,
    pipelines: Vec<Pipeline>,
    deliveries: JoinSet<Delivered>,
    reader: Reader,
    saver: Saver,
    ledger: Ledger,
    metrics: Metrics,
    status: Arc<Status>,
    names: Vec<String>,
    until: Until,
    rescan_period: Duration,
    shutdown_timeout: Duration,
    termination_log: PathBuf,
}

impl Agent {
    async fn work(mut self, signals: &Signals) -> Result<(), Failure> {
        let mut deadline: Option<Instant> = None;
        self.rescan();
        let mut next_scan = Instant::now() + self.rescan_period;
        loop {
            self.advance();
            let draining = deadline.is_some();
            if (draining || self.until == Until::EndOfFiles) && self.has_shipped_all() {
                break;
            }
            if self.gave_up() {
                break;
            }
            let joining = matches!(self.reader.joining, Joining::ByStart { .. });
            let next_look = if self.catalog.any_ending() || (joining && self.catalog.any_unread()) {
                Instant::now() + ENDING
            } else {
                next_scan
            };
            tokio::select! {
                biased;
                () = signals.shutdown.cancelled(), if !draining => {
                    deadline = Some(Instant::now() + self.shutdown_timeout);
                    // Who wrote it has left, or is about to: a record is at its end where it ends now.
                    if let Joining::ByStart { quiet, .. } = &mut self.reader.joining {
                        *quiet = Duration::ZERO;
                    }
                    self.rescan();
                }
                () = sleep_until(deadline.unwrap_or(next_scan)), if draining => break,
                Some(delivered) = self.deliveries.join_next() => {
                    self.settle(delivered.or_exit(Exit::Internal)?);
                }
                wish = self.saver.wish() => if wish == Wish::Save {
                    let entries = self.catalog.entries();
                    self.saver.save(entries);
                    self.publish();
                },
                () = self.discovery.heard() => self.look_at_hints(),
                () = signals.hangup.notified() => self.rescan(),
                () = sleep_until(next_scan) => {
                    self.rescan();
                    next_scan = Instant::now() + self.rescan_period;
                }
                () = sleep_until(next_look), if next_look < next_scan => self.look_at_the_ending(),
            }
        }
        self.leave().await
    }

    /// Reads and sends what can be read and sent now.
    fn advance(&mut self) {
        let mut at = 0;
        while let Some(pipeline) = self.pipelines.get_mut(at) {
            let next = pipeline.advance(
                &mut self.catalog,
                self.until,
                &mut self.reader,
                &self.ledger,
                &mut self.deliveries,
            );
            match next {
                Next::Wait => at += 1,
                Next::Scan => self.rescan(),
            }
        }
    }

    fn settle(&mut self, delivered: Delivered) {
        if let Some(pipeline) = self.pipelines.get_mut(delivered.pipeline) {
            pipeline.settle(delivered, &mut self.catalog);
        }
        self.saver.changed();
    }

    /// Looks at all names and all sizes.
    fn rescan(&mut self) {
        self.resource.refresh();
        let discovery = &mut self.discovery;
        for target in self.catalog.update(|| discovery.scan()) {
            self.discovery.watch_target(&target);
            self.catalog.alias(target);
        }
        self.catalog.close_drained();
        let changed = self.catalog.look(|_| true);
        self.ask(&changed);
        self.publish();
    }

    fn look_at_hints(&mut self) {
        let hints = self.discovery.hints();
        if hints.names {
            self.rescan();
            return;
        }
        let mut changed = Vec::new();
        for path in &hints.written {
            match self.catalog.at_path(path) {
                Some(seq) => changed.push(seq),
                // A name that is not followed: perhaps the new one of a file that was renamed out of the globs.
                None => changed.extend(self.catalog.detached()),
            }
        }
        self.ask(&changed);
    }

    /// Looks at files without a name, which no event speaks of, and at rotated ones with an unfinished last line.
    fn look_at_the_ending(&mut self) {
        let settled = self.catalog.settle_copies();
        let ending: Vec<SourceSeq> = self
            .catalog
            .sources()
            .filter(|source| {
                self.catalog.is_ending(source) || matches!(self.reader.joining, Joining::ByStart { .. })
            })
            .map(|source| source.seq)
            .collect();
        let changed =
            self.catalog.look(|source| ending.contains(&source.seq) || settled.contains(&source.seq));
        self.ask(&changed);
        self.catalog.close_drained();
    }

    fn ask(&mut self, changed: &[SourceSeq]) {
        for seq in changed {
            if let Some(source) = self.catalog.source(*seq) {
                for pipeline in &mut self.pipelines {
                    pipeline.turns.ask(&source.family, *seq);
                }
            }
        }
    }

    /// Whether all that is in the files now is confirmed; what was written since the last event is found here.
    fn has_shipped_all(&mut self) -> bool {
        if !self.pipelines.iter().all(Pipeline::is_idle) {
            return false;
        }
        let known: Vec<u64> = self.catalog.sources().map(crate::source::Source::size).collect();
        let changed = self.catalog.look(|_| true);
        if self.catalog.sources().map(crate::source::Source::size).eq(known) {
            return true;
        }
        self.ask(&changed);
        self.advance();
        self.pipelines.iter().all(Pipeline::is_idle)
    }

    /// With `--exit-at-eof` somebody waits for the end: a sink that fails for too long is the end.
    fn gave_up(&self) -> bool {
        self.until == Until::EndOfFiles
            && self.status.worst().is_some_and(|(_, outage, _)| outage >= self.shutdown_timeout)
    }

    /// Writes the last checkpoint and says how it went.
    async fn leave(mut self) -> Result<(), Failure> {
        self.deliveries.abort_all();
        let entries = self.catalog.entries();
        self.saver.save_now(entries).await;
        drain::verdict(&self.catalog, &self.names, &self.status, self.saver.failure(), &self.termination_log)
    }

    /// Tells the admin server what it may say.
    fn publish(&mut self) {
        let mut files = Vec::new();
        for source in self.catalog.sources() {
            let confirmed: serde_json::Map<_, _> = self
                .names
                .iter()
                .enumerate()
                .filter_map(|(sink, name)| Some((name.clone(), json!(source.confirmed(sink)?.offset.get()))))
                .collect();
            files.push(json!({
                "path": source.path,
                "id": source.id().map(|id| id.to_string()),
                "size": source.size(),
                "confirmed": confirmed,
                "named": source.life == Life::Attached,
            }));
        }
        self.metrics.open_files.set(i64::try_from(files.len()).unwrap_or(i64::MAX));
        for (sink, name) in self.names.iter().enumerate() {
            let bytes: u64 = self.catalog.sources().map(|source| source.unconfirmed(sink)).sum();
            let label = BySink { sink: name.clone() };
            self.metrics
                .unconfirmed_bytes
                .get_or_create(&label)
                .set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        self.status.set_files(files.into());
    }
}
