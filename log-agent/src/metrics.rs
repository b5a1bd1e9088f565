//! What a scraper may ask for. Names get the prefix `log_agent_`, counters the suffix `_total`.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
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

/// All of them; clones share their values.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
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
    /// Records that a receiver refused as part of a request that it took otherwise.
    pub refused_records: Family<BySink, Counter>,
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

impl Metrics {
    /// Records that a sink has confirmed so far.
    pub fn confirmed_records(&self, sink: &str) -> u64 {
        self.confirmed_records.get(&BySink { sink: sink.to_owned() }).map_or(0, |counter| counter.get())
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
            "confirmed",
            "Bytes of log lines that the sink has confirmed",
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
            "partly_refused_records",
            "Records that the sink refused out of requests that it took otherwise",
            self.refused_records.clone(),
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
