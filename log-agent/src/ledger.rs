//! The loss ledger: what a sink will never get, by reason, with file and byte range. Nothing disappears silently.

use std::ops::Range;
use std::path::Path;

use crate::metrics::{ByLoss, ByReason, BySink, Metrics};
use crate::parse::BadLine;

/// Why bytes are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The rest of a line that is longer than `--max-line`.
    OverLong,
    /// The file was truncated or written anew while these bytes had been seen but not read for the sink.
    Truncated,
    /// The sink refused the record itself; it is in the dead-letter file.
    Refused,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OverLong, Self::Truncated, Self::Refused];

    /// As metrics and logs spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OverLong => "over_long_line",
            Self::Truncated => "truncated_before_read",
            Self::Refused => "refused_by_sink",
        }
    }
}

/// Counts and logs.
#[derive(Debug, Clone)]
pub struct Ledger {
    sinks: Vec<String>,
    metrics: Metrics,
}

impl Ledger {
    /// For these sinks, in the order of their indices.
    pub fn new(sinks: Vec<String>, metrics: Metrics) -> Self {
        Self { sinks, metrics }
    }

    /// Enters a loss: the sink with this index will not get these bytes of the file.
    pub fn lose(&self, reason: Reason, sink: usize, path: &Path, range: Range<u64>) {
        let sink = self.sinks.get(sink).cloned().unwrap_or_default();
        let (reason, bytes) = (reason.as_str(), range.end.saturating_sub(range.start));
        tracing::warn!(
            reason,
            sink,
            file = %path.display(),
            from = range.start,
            to = range.end,
            bytes,
            "bytes are lost to the sink"
        );
        self.metrics.lost_bytes.get_or_create(&ByLoss { sink, reason }).inc_by(bytes);
    }

    /// Counts a line that is left out because the user said so. It is no loss to speak of each time.
    pub fn leave_out(&self, sink: usize, bytes: u64) {
        let sink = self.sinks.get(sink).cloned().unwrap_or_default();
        self.metrics.lost_bytes.get_or_create(&ByLoss { sink, reason: "dropped_by_rule" }).inc_by(bytes);
    }

    /// Enters records that a receiver refused without saying which of those that it was given they are.
    pub fn refuse_some(&self, sink: usize, refused: u64, among: usize, reason: &str) {
        let sink = self.sinks.get(sink).cloned().unwrap_or_default();
        tracing::warn!(
            sink,
            refused,
            among,
            reason,
            "records are lost to the sink; all that may be among them are in the dead-letter file"
        );
        self.metrics.partly_refused_records.get_or_create(&BySink { sink }).inc_by(refused);
    }

    /// Counts a line that ships as text though it should have been more. It is not lost, so it is not logged.
    pub fn bad_line(&self, reason: BadLine) {
        self.metrics.bad_lines.get_or_create(&ByReason { reason: reason.as_str() }).inc();
    }
}
