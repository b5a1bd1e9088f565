//! The loop that everything happens in, on one thread: what was heard is looked at, what can be read is read, what was
//! confirmed is noted, and what was noted is checkpointed.
//!
//! Files are read on the loop itself. They are on a local disk and have just been written, so they are in the page cache;
//! a turn reads one chunk per sink at most, and probes are answered between turns. What is looked at, and when, is in `scan`.

mod drain;
mod pipeline;
mod scan;
mod status;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::exit::{Exit, Failure, OrExit as _};
use lifecycle::signals::Signals;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::checkpoint::{CheckpointWriter, WriterEvent};
use crate::loss::LossLedger;
use crate::metrics::Metrics;
use crate::record::resource::SharedResource;
use crate::tail::{Catalog, Multiline, ReadOptions, TailedFile, Until};
use crate::watch::Discovery;
use drain::Drain;
pub(crate) use pipeline::Pipeline;
use pipeline::{Delivered, Next};
pub(crate) use status::{FileLag, Status};

/// How often files near their end are looked at.
const ENDING: Duration = Duration::from_millis(500);

/// The loop and all that it works with.
pub(crate) struct Agent {
    pub(crate) discovery: Discovery,
    pub(crate) catalog: Catalog,
    pub(crate) resource: SharedResource,
    pub(crate) pipelines: Vec<Pipeline>,
    pub(crate) deliveries: JoinSet<Delivered>,
    pub(crate) options: ReadOptions,
    pub(crate) writer: CheckpointWriter,
    pub(crate) ledger: LossLedger,
    pub(crate) metrics: Metrics,
    pub(crate) status: Arc<Status>,
    pub(crate) names: Vec<String>,
    pub(crate) until: Until,
    pub(crate) rescan_period: Duration,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) termination_log: PathBuf,
}

impl Agent {
    pub(crate) async fn work(mut self, signals: &Signals) -> Result<(), Failure> {
        let mut drain: Option<Drain> = None;
        self.rescan();
        let mut next_scan = Instant::now() + self.rescan_period;
        loop {
            self.fill_and_send();
            let draining = drain.is_some();
            if (draining || self.until == Until::EndOfFiles) && self.has_shipped_all() {
                break;
            }
            if self.sink_failed_too_long() {
                break;
            }
            let joining = matches!(self.options.multiline, Multiline::StartsWith { .. });
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
                    if let Multiline::StartsWith { quiet, .. } = &mut self.options.multiline {
                        *quiet = Duration::ZERO;
                    }
                    self.rescan();
                }
                () = sleep_until(drain.map_or(next_scan, |drain| drain.deliver_until)), if draining => break,
                Some(delivered) = self.deliveries.join_next() => {
                    self.on_delivered(delivered.or_exit(Exit::Internal)?);
                }
                event = self.writer.next_event() => if event == WriterEvent::Due {
                    let entries = self.catalog.entries();
                    self.writer.save(entries);
                    self.publish();
                },
                () = self.discovery.changed() => self.look_at_hints(),
                () = signals.hangup.notified() => self.rescan(),
                () = sleep_until(next_scan) => {
                    self.rescan();
                    next_scan = Instant::now() + self.rescan_period;
                }
                () = sleep_until(next_look), if next_look < next_scan => self.poll_unnamed_and_rotated(),
            }
        }
        let drain = drain.unwrap_or_else(|| Drain::within(self.shutdown_timeout));
        self.shut_down(drain.leave_by).await
    }

    /// Reads and sends what can be read and sent now.
    fn fill_and_send(&mut self) {
        let mut at = 0;
        while let Some(pipeline) = self.pipelines.get_mut(at) {
            let next = pipeline.step(
                &mut self.catalog,
                self.until,
                &mut self.options,
                &self.ledger,
                &mut self.deliveries,
            );
            match next {
                Next::Wait => at += 1,
                Next::Scan => self.rescan(),
            }
        }
    }

    fn on_delivered(&mut self, delivered: Delivered) {
        if let Some(pipeline) = self.pipelines.get_mut(delivered.pipeline) {
            pipeline.on_delivered(delivered, &mut self.catalog);
        }
        self.writer.changed();
    }

    /// Whether all that is in the files now is confirmed; what was written since the last event is found here.
    fn has_shipped_all(&mut self) -> bool {
        // A drain leaves what may be a copy to the next start; who waits for the end of the files waits until that is settled.
        let unsettled = self.until == Until::EndOfFiles && self.catalog.any_unsettled();
        if unsettled || !self.pipelines.iter().all(Pipeline::is_idle) {
            return false;
        }
        let known: Vec<u64> = self.catalog.sources().map(TailedFile::size).collect();
        let changed = self.catalog.poll_sizes(|_| true);
        if self.catalog.sources().map(TailedFile::size).eq(known) {
            return true;
        }
        self.enqueue(&changed);
        self.fill_and_send();
        self.pipelines.iter().all(Pipeline::is_idle)
    }

    /// With `--exit-at-eof` somebody waits for the end: a sink that fails for too long is the end.
    fn sink_failed_too_long(&self) -> bool {
        self.until == Until::EndOfFiles
            && self.status.longest_outage().is_some_and(|(_, outage, _)| outage >= self.shutdown_timeout)
    }

    /// Writes the last checkpoint and says how it went.
    async fn shut_down(mut self, until: Instant) -> Result<(), Failure> {
        self.deliveries.abort_all();
        let entries = self.catalog.entries();
        self.writer.save_by(until, entries).await;
        drain::verdict(&self.catalog, &self.names, &self.status, self.writer.failure(), &self.termination_log)
    }
}
