//! The loop that everything happens in, on one thread: what was heard is looked at, what can be read is read, what was
//! confirmed is noted, and what was noted is checkpointed.
//!
//! Files are read on the loop itself. They are on a local disk and have just been written, so they are in the page cache;
//! a turn reads one chunk per sink at most, and probes are answered between turns. What is looked at, and when, is in `look`.

mod look;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::admin::{self, Admin};
use lifecycle::exit::{Exit, Failure, OrExit as _};
use lifecycle::rlimit;
use lifecycle::signals::Signals;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::CONTAINER;
use crate::catalog::Catalog;
use crate::checkpoint::StateDir;
use crate::config::{Config, Until};
use crate::dead_letter::DeadLetters;
use crate::discover::Discovery;
use crate::drain::{self, Drain};
use crate::enrich::SharedResource;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::pipeline::{Delivered, Next, Pipeline};
use crate::saver::{Saver, Wish};
use crate::sink::{Records, Roots, Settings, SharedKey, Sink, SinkUrl};
use crate::source::{Joining, Reader, Source};
use crate::status::{FileLag, Status};

/// How often files near their end are looked at.
const ENDING: Duration = Duration::from_millis(500);

/// Follows, ships and checkpoints until it is told to stop, or until the end of the files.
///
/// # Errors
/// 69 where the state directory is held by another, or where a sink did not take everything in time; 74 where the state
/// directory cannot be used; 70 for a defect of our own.
pub async fn run(config: Config, admin: TcpListener, signals: Signals) -> Result<(), Failure> {
    // Every followed file is held open.
    rlimit::raise_limit();
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
    registry.register_collector(Box::new(FileLag(Arc::clone(&status))));
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
        let mut drain: Option<Drain> = None;
        self.rescan();
        let mut next_scan = Instant::now() + self.rescan_period;
        loop {
            self.advance();
            let draining = drain.is_some();
            if (draining || self.until == Until::EndOfFiles) && self.has_shipped_all() {
                break;
            }
            if self.gave_up() {
                break;
            }
            let joining = matches!(self.reader.joining, Joining::ByStart { .. });
            // Who waits for the end of the files waits for a sink that fails, too, but not until the next scan.
            let waited_for = self.until == Until::EndOfFiles;
            let next_look =
                if waited_for || self.catalog.any_ending() || (joining && self.catalog.any_unread()) {
                    Instant::now() + ENDING
                } else {
                    next_scan
                };
            tokio::select! {
                biased;
                () = signals.shutdown.cancelled(), if !draining => {
                    drain = Some(Drain::within(self.shutdown_timeout));
                    // Who wrote it has left, or is about to: a record is at its end where it ends now.
                    if let Joining::ByStart { quiet, .. } = &mut self.reader.joining {
                        *quiet = Duration::ZERO;
                    }
                    self.rescan();
                }
                () = sleep_until(drain.map_or(next_scan, |drain| drain.deliver_until)), if draining => break,
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
        let drain = drain.unwrap_or_else(|| Drain::within(self.shutdown_timeout));
        self.leave(drain.leave_by).await
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

    /// Whether all that is in the files now is confirmed; what was written since the last event is found here.
    fn has_shipped_all(&mut self) -> bool {
        // A drain leaves what may be a copy to the next start; who waits for the end of the files waits until that is settled.
        let unsettled = self.until == Until::EndOfFiles && self.catalog.any_unsettled();
        if unsettled || !self.pipelines.iter().all(Pipeline::is_idle) {
            return false;
        }
        let known: Vec<u64> = self.catalog.sources().map(Source::size).collect();
        let changed = self.catalog.look(|_| true);
        if self.catalog.sources().map(Source::size).eq(known) {
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
    async fn leave(mut self, until: Instant) -> Result<(), Failure> {
        self.deliveries.abort_all();
        let entries = self.catalog.entries();
        self.saver.save_by(until, entries).await;
        drain::verdict(&self.catalog, &self.names, &self.status, self.saver.failure(), &self.termination_log)
    }
}
