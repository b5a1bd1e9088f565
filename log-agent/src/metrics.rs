//! What a scraper may ask for. Names get the prefix `log_agent_`, counters the suffix `_total`.

use std::sync::atomic::AtomicU64;

use lifecycle::metrics::Registrar;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// How long attempts take: from a millisecond on a neighbour's port to a receiver that times out.
const ATTEMPT_SECONDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

/// Why bytes are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LossReason {
    /// The rest of a line that is longer than `--max-line`.
    OverLong,
    /// The file was truncated or rewritten while these bytes had been seen but not read for the sink.
    Truncated,
    /// The sink refused the record itself; it is in the dead-letter file.
    Refused,
    /// The file was removed, or was renamed out of the globs, before the sink had these bytes.
    Removed,
    /// Removed files held more than `--max-held-bytes`.
    Held,
}

impl LossReason {
    const ALL: [Self; 5] = [Self::OverLong, Self::Truncated, Self::Refused, Self::Removed, Self::Held];

    /// As metrics and logs spell it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::OverLong => "over_long_line",
            Self::Truncated => "truncated_before_read",
            Self::Refused => "refused_by_sink",
            Self::Removed => "removed_before_delivery",
            Self::Held => "max_held_bytes",
        }
    }
}

/// Why bytes are left out that are no loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SkipReason {
    /// NULs before a line: a hole, or what a power loss left behind.
    LeadingNuls,
    /// They were there before the first start, and `--start-at end` leaves them out.
    StartAtEnd,
    /// They were older than `--ignore-older` when the file was first seen.
    IgnoreOlder,
}

impl SkipReason {
    const ALL: [Self; 3] = [Self::LeadingNuls, Self::StartAtEnd, Self::IgnoreOlder];

    /// As metrics and logs spell it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::LeadingNuls => "leading_nuls",
            Self::StartAtEnd => "start_at_end",
            Self::IgnoreOlder => "ignore_older",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySink {
    /// The sink as it is written in logs: its URL without credentials.
    sink: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLoss {
    sink: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

/// All metrics but those of single files, which are made in `agent::status` when a scraper asks. Clones share their values.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    read_bytes: Family<BySink, Counter>,
    read_records: Family<BySink, Counter>,
    in_flight_bytes: Family<BySink, Gauge>,
    attempt_time: Family<BySink, Histogram, fn() -> Histogram>,
    dead_lettered: Family<BySink, Counter>,
    confirmed_bytes: Family<BySink, Counter>,
    confirmed_records: Family<BySink, Counter>,
    retries: Family<BySink, Counter>,
    up: Family<BySink, Gauge>,
    unconfirmed_bytes: Family<BySink, Gauge>,
    lost_bytes: Family<ByLoss, Counter>,
    skipped_bytes: Family<ByLoss, Counter>,
    refused_records: Family<BySink, Counter>,
    partly_refused_records: Family<BySink, Counter>,
    bad_lines: Family<ByReason, Counter>,
    pub(crate) open_files: Gauge,
    pub(crate) held_bytes: Gauge,
    pub(crate) scan_up: Gauge,
    pub(crate) scan_failures: Counter,
    pub(crate) checkpoints: Counter,
    pub(crate) checkpoint_failures: Counter,
    /// In seconds since 1970.
    pub(crate) checkpoint_time: Gauge<f64, AtomicU64>,
}

/// The metrics of one sink, looked up once.
#[derive(Debug, Clone)]
pub(crate) struct SinkMetrics {
    pub(crate) read_bytes: Counter,
    pub(crate) read_records: Counter,
    pub(crate) in_flight_bytes: Gauge,
    pub(crate) attempt_time: Histogram,
    pub(crate) dead_lettered: Counter,
    pub(crate) confirmed_bytes: Counter,
    pub(crate) confirmed_records: Counter,
    pub(crate) retries: Counter,
    pub(crate) up: Gauge,
    pub(crate) unconfirmed_bytes: Gauge,
    pub(crate) refused_records: Counter,
    pub(crate) partly_refused_records: Counter,
    pub(crate) filtered_bytes: Counter,
    lost_bytes: [Counter; LossReason::ALL.len()],
    skipped_bytes: [Counter; SkipReason::ALL.len()],
}

impl SinkMetrics {
    /// Bytes that the sink will never get, for this reason.
    pub(crate) fn lost_bytes(&self, reason: LossReason) -> &Counter {
        &self.lost_bytes[reason as usize]
    }

    /// Bytes that were left out and are no loss, for this reason.
    pub(crate) fn skipped_bytes(&self, reason: SkipReason) -> &Counter {
        &self.skipped_bytes[reason as usize]
    }

    /// Bytes that the sink will never get, other than those that the user filtered.
    pub(crate) fn all_lost_bytes(&self) -> u64 {
        self.lost_bytes.iter().map(Counter::get).sum()
    }
}

impl Metrics {
    /// Registers all of them.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let mut registrar = Registrar::new(registry);
        let attempts: fn() -> Histogram = || Histogram::new(ATTEMPT_SECONDS);
        Self {
            read_bytes: registrar.metric_in(
                Unit::Bytes,
                "read",
                "Bytes of log lines that were read for the sink",
            ),
            read_records: registrar.metric("read_records", "Records that were read for the sink"),
            in_flight_bytes: registrar.metric_in(
                Unit::Bytes,
                "in_flight",
                "Bytes of log lines that are with the sink and not confirmed",
            ),
            attempt_time: registrar.add_in(
                Unit::Seconds,
                "delivery_attempt",
                "How long an attempt to deliver takes, whatever comes of it",
                Family::new_with_constructor(attempts),
            ),
            dead_lettered: registrar
                .metric("dead_lettered_records", "Records that were written to the dead-letter file"),
            confirmed_bytes: registrar.metric_in(
                Unit::Bytes,
                "confirmed",
                "Bytes of log lines that the sink has confirmed, with those that it refused out of requests that it took otherwise",
            ),
            confirmed_records: registrar.metric("confirmed_records", "Records that the sink has confirmed"),
            retries: registrar.metric("delivery_retries", "Deliveries that failed and were made again"),
            up: registrar.metric("sink_up", "1 while the sink confirms, 0 while it fails"),
            unconfirmed_bytes: registrar.metric_in(
                Unit::Bytes,
                "unconfirmed",
                "Bytes in followed files that the sink has not confirmed yet",
            ),
            lost_bytes: registrar.metric_in(
                Unit::Bytes,
                "lost",
                "Bytes that the sink will never get, by reason",
            ),
            skipped_bytes: registrar.metric_in(
                Unit::Bytes,
                "skipped",
                "Bytes that are left out and are no loss, by reason",
            ),
            refused_records: registrar.metric("refused_records", "Records that the sink refused, for good"),
            partly_refused_records: registrar.metric(
                "partly_refused_records",
                "Records that the sink refused out of requests that it took otherwise",
            ),
            bad_lines: registrar
                .metric("bad_lines", "Lines shipped as text because they were not what they should be"),
            open_files: registrar.metric("open_files", "Files that are followed now"),
            held_bytes: registrar.metric_in(
                Unit::Bytes,
                "held",
                "Disk space of removed files that are held open until every sink has them",
            ),
            scan_up: registrar.metric("scan_up", "1 while all included directories can be read, 0 while one cannot"),
            scan_failures: registrar.metric("scan_failures", "Looks at the names of files that failed"),
            checkpoints: registrar.metric("checkpoints", "Checkpoints written"),
            checkpoint_failures: registrar
                .metric("checkpoint_failures", "Checkpoints that could not be written"),
            checkpoint_time: registrar.metric_in(
                Unit::Seconds,
                "checkpoint_timestamp",
                "When the last checkpoint was written",
            ),
        }
    }

    /// The metrics of the sink with this name.
    pub(crate) fn sink(&self, name: &str) -> SinkMetrics {
        let sink = name.to_owned();
        let of = |reason| ByLoss { sink: sink.clone(), reason };
        let lost_bytes =
            LossReason::ALL.map(|reason| self.lost_bytes.get_or_create_owned(&of(reason.as_str())));
        let skipped_bytes =
            SkipReason::ALL.map(|reason| self.skipped_bytes.get_or_create_owned(&of(reason.as_str())));
        let filtered_bytes = self.lost_bytes.get_or_create_owned(&of("dropped_by_rule"));
        let label = BySink { sink };
        SinkMetrics {
            read_bytes: self.read_bytes.get_or_create_owned(&label),
            read_records: self.read_records.get_or_create_owned(&label),
            in_flight_bytes: self.in_flight_bytes.get_or_create_owned(&label),
            attempt_time: self.attempt_time.get_or_create_owned(&label),
            dead_lettered: self.dead_lettered.get_or_create_owned(&label),
            confirmed_bytes: self.confirmed_bytes.get_or_create_owned(&label),
            confirmed_records: self.confirmed_records.get_or_create_owned(&label),
            retries: self.retries.get_or_create_owned(&label),
            up: self.up.get_or_create_owned(&label),
            unconfirmed_bytes: self.unconfirmed_bytes.get_or_create_owned(&label),
            refused_records: self.refused_records.get_or_create_owned(&label),
            partly_refused_records: self.partly_refused_records.get_or_create_owned(&label),
            filtered_bytes,
            lost_bytes,
            skipped_bytes,
        }
    }

    /// Lines that ship as text for this reason.
    pub(crate) fn bad_lines(&self, reason: &'static str) -> Counter {
        self.bad_lines.get_or_create_owned(&ByReason { reason })
    }
}
