//! The loss ledger: what a sink will never get, by reason, with file and byte range. Nothing disappears silently.

use std::ops::Range;
use std::path::Path;

pub(crate) use crate::metrics::LossReason;
use crate::metrics::{Metrics, SinkMetrics};

/// Counts and logs what is lost. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct LossLedger {
    sinks: Vec<(String, SinkMetrics)>,
    metrics: Metrics,
}

impl LossLedger {
    /// For these sinks, in the order of their indices.
    pub(crate) fn new(sinks: &[String], metrics: Metrics) -> Self {
        let sinks = sinks.iter().map(|name| (name.clone(), metrics.sink(name))).collect();
        Self { sinks, metrics }
    }

    /// Enters a loss: the sink with this index will not get these bytes of the file.
    pub(crate) fn record_lost(&self, reason: LossReason, sink: usize, path: &Path, range: Range<u64>) {
        let Some((sink, metrics)) = self.sinks.get(sink) else { return };
        let bytes = range.end.saturating_sub(range.start);
        tracing::warn!(
            reason = reason.as_str(),
            sink,
            file = %path.display(),
            from = range.start,
            to = range.end,
            bytes,
            "bytes are lost to the sink"
        );
        metrics.lost_bytes(reason).inc_by(bytes);
    }

    /// Counts a line that is filtered because the user said so. That is no loss to log each time.
    pub(crate) fn record_filtered(&self, sink: usize, bytes: u64) {
        if let Some((_, metrics)) = self.sinks.get(sink) {
            metrics.filtered_bytes.inc_by(bytes);
        }
    }

    /// Enters records that a receiver refused without saying which of those that it was given they are.
    pub(crate) fn record_partial_rejection(&self, sink: usize, refused: u64, among: usize, reason: &str) {
        let Some((sink, metrics)) = self.sinks.get(sink) else { return };
        tracing::warn!(
            sink,
            refused,
            among,
            reason,
            "records are lost to the sink; all that may be among them are in the dead-letter file"
        );
        metrics.partly_refused_records.inc_by(refused);
    }

    /// Counts a line that ships as text though it should have been more. It is not lost, so it is not logged.
    pub(crate) fn bad_line(&self, reason: &'static str) {
        self.metrics.bad_lines(reason).inc();
    }
}
