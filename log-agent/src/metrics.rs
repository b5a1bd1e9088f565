//! What a scraper may ask for. Names get the prefix `log_agent_`, counters the suffix `_total`.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::ledger::Reason;

/// The label of what is counted by sink.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BySink {
    /// The sink as it is written in logs: its URL without credentials.
    pub sink: String,
}

/// The labels of what is lost.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByLoss {
    /// Which sink will never get it.
    pub sink: String,
    /// Why.
    pub reason: &'static str,
}

/// The label of lines that were not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByReason {
    /// What was wrong with them.
    pub reason: &'static str,
}

/// How long sinks take, from a millisecond on a neighbour's port to a receiver that lets wait until the time is over.
const ATTEMPT_SECONDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

/// Durations of attempts, by sink.
pub type AttemptTime = Family<BySink, Histogram, fn() -> Histogram>;

/// All of them; clones share their values. What is known of single files is in `status`.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Bytes of lines that were read for a sink.
    pub read_bytes: Family<BySink, Counter>,
    /// Records that were read for a sink.
    pub read_records: Family<BySink, Counter>,
    /// Bytes of lines that are with a sink and not confirmed.
    pub in_flight_bytes: Family<BySink, Gauge<i64>>,
    /// How long an attempt takes, whatever comes of it.
    pub attempt_time: AttemptTime,
    /// Records that were written to the dead-letter file.
    pub dead_lettered: Family<BySink, Counter>,
    /// Bytes of lines that a sink has confirmed.
    pub confirmed_bytes: Family<BySink, Counter>,
    /// Records that a sink has confirmed.
    pub confirmed_records: Family<BySink, Counter>,
    /// Attempts that failed and are made again.
    pub retries: Family<BySink, Counter>,
    /// 1 while a sink confirms, 0 while it fails.
    pub sink_up: Family<BySink, Gauge>,
    /// Bytes in the files that a sink has not confirmed yet.
    pub unconfirmed_bytes: Family<BySink, Gauge<i64>>,
    /// Bytes that a sink will never get.
    pub lost_bytes: Family<ByLoss, Counter>,
    /// Records that a receiver refused, for good.
    pub refused_records: Family<BySink, Counter>,
    /// Those of them that were part of a request that it took otherwise.
    pub partly_refused_records: Family<BySink, Counter>,
    /// Lines that shipped as text because they were not what they should be.
    pub bad_lines: Family<ByReason, Counter>,
    /// Files that are followed now.
    pub open_files: Gauge,
    /// Checkpoints that reached the disk.
    pub checkpoints: Counter,
    /// Checkpoints that did not.
    pub checkpoint_failures: Counter,
    /// When the last checkpoint reached the disk, in seconds since 1970.
    pub checkpoint_time: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            read_bytes: Family::default(),
            read_records: Family::default(),
            in_flight_bytes: Family::default(),
            attempt_time: Family::new_with_constructor(|| Histogram::new(ATTEMPT_SECONDS)),
            dead_lettered: Family::default(),
            confirmed_bytes: Family::default(),
            confirmed_records: Family::default(),
            retries: Family::default(),
            sink_up: Family::default(),
            unconfirmed_bytes: Family::default(),
            lost_bytes: Family::default(),
            refused_records: Family::default(),
            partly_refused_records: Family::default(),
            bad_lines: Family::default(),
            open_files: Gauge::default(),
            checkpoints: Counter::default(),
            checkpoint_failures: Counter::default(),
            checkpoint_time: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Records that a sink has confirmed so far.
    pub fn confirmed_records(&self, sink: &str) -> u64 {
        self.confirmed_records.get(&BySink { sink: sink.to_owned() }).map_or(0, |counter| counter.get())
    }

    /// Records that a sink has refused so far.
    pub fn refused_records(&self, sink: &str) -> u64 {
        self.refused_records.get(&BySink { sink: sink.to_owned() }).map_or(0, |counter| counter.get())
    }

    /// Bytes that wait for a sink, as of the last look.
    pub fn unconfirmed_bytes(&self, sink: &str) -> i64 {
        self.unconfirmed_bytes.get(&BySink { sink: sink.to_owned() }).map_or(0, |gauge| gauge.get())
    }

    /// Bytes that a sink will never get, other than those that the user left out.
    pub fn lost_bytes(&self, sink: &str) -> u64 {
        let lost = |reason: Reason| {
            let label = ByLoss { sink: sink.to_owned(), reason: reason.as_str() };
            self.lost_bytes.get(&label).map_or(0, |counter| counter.get())
        };
        Reason::ALL.map(lost).iter().sum()
    }

    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        let bytes = || Unit::Bytes;
        registry.register_with_unit(
            "read",
            "Bytes of log lines that were read for the sink",
            bytes(),
            self.read_bytes.clone(),
        );
        registry.register("read_records", "Records that were read for the sink", self.read_records.clone());
        registry.register_with_unit(
            "in_flight",
            "Bytes of log lines that are with the sink and not confirmed",
            bytes(),
            self.in_flight_bytes.clone(),
        );
        registry.register_with_unit(
            "delivery_attempt",
            "How long an attempt to deliver takes, whatever comes of it",
            Unit::Seconds,
            self.attempt_time.clone(),
        );
        registry.register(
            "dead_lettered_records",
            "Records that were written to the dead-letter file",
            self.dead_lettered.clone(),
        );
        registry.register_with_unit(
            "confirmed",
            "Bytes of log lines that the sink has confirmed, with those that it refused out of requests that it took otherwise",
            bytes(),
            self.confirmed_bytes.clone(),
        );
        registry.register(
            "confirmed_records",
            "Records that the sink has confirmed",
            self.confirmed_records.clone(),
        );
        registry.register(
            "delivery_retries",
            "Deliveries that failed and were made again",
            self.retries.clone(),
        );
        registry.register("sink_up", "1 while the sink confirms, 0 while it fails", self.sink_up.clone());
        registry.register_with_unit(
            "unconfirmed",
            "Bytes in followed files that the sink has not confirmed yet",
            bytes(),
            self.unconfirmed_bytes.clone(),
        );
        registry.register_with_unit(
            "lost",
            "Bytes that the sink will never get, by reason",
            bytes(),
            self.lost_bytes.clone(),
        );
        registry.register(
            "refused_records",
            "Records that the sink refused, for good",
            self.refused_records.clone(),
        );
        registry.register(
            "partly_refused_records",
            "Records that the sink refused out of requests that it took otherwise",
            self.partly_refused_records.clone(),
        );
        registry.register(
            "bad_lines",
            "Lines shipped as text because they were not what they should be",
            self.bad_lines.clone(),
        );
        registry.register("open_files", "Files that are followed now", self.open_files.clone());
        registry.register("checkpoints", "Checkpoints written", self.checkpoints.clone());
        registry.register(
            "checkpoint_failures",
            "Checkpoints that could not be written",
            self.checkpoint_failures.clone(),
        );
        registry.register_with_unit(
            "checkpoint_timestamp",
            "When the last checkpoint was written",
            Unit::Seconds,
            self.checkpoint_time.clone(),
        );
    }
}
