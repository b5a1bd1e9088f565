//! The loss ledger: what a sink will never get, by reason, with file and byte range. Nothing disappears silently.

use std::ops::Range;
use std::path::Path;

use lifecycle::escape::escaped_path;

pub(crate) use crate::metrics::{LossReason, SkipReason};
use crate::metrics::{Metrics, SinkMetrics};
use crate::position::SinkIndex;

/// Counts and logs what is lost. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct LossLedger {
    sinks: Vec<(String, SinkMetrics)>,
    metrics: Metrics,
    /// What was entered, for tests to compare with what they have done.
    #[cfg(test)]
    pub(crate) entered: std::sync::Arc<parking_lot::Mutex<Vec<Entered>>>,
}

/// An entry, as a test sees it.
#[cfg(test)]
pub(crate) type Entered = (SinkIndex, std::path::PathBuf, Range<u64>);

impl LossLedger {
    /// For these sinks, in the order of their indices.
    pub(crate) fn new(sinks: &[String], metrics: Metrics) -> Self {
        let sinks = sinks.iter().map(|name| (name.clone(), metrics.sink(name))).collect();
        Self {
            sinks,
            metrics,
            #[cfg(test)]
            entered: std::sync::Arc::default(),
        }
    }

    /// Enters a loss: the sink with this index will not get these bytes of the file.
    pub(crate) fn record_lost(&self, reason: LossReason, index: SinkIndex, path: &Path, range: Range<u64>) {
        let Some((sink, metrics)) = self.sinks.get(index.get()) else { return };
        if range.is_empty() {
            return;
        }
        let bytes = range.end - range.start;
        tracing::warn!(
            reason = reason.as_str(),
            sink,
            file = %escaped_path(path),
            from = range.start,
            to = range.end,
            bytes,
            "bytes are lost to the sink"
        );
        metrics.lost_bytes(reason).inc_by(bytes);
        #[cfg(test)]
        self.entered.lock().push((index, path.to_owned(), range));
    }

    /// Counts a line that is filtered because the user said so. That is no loss to log each time.
    pub(crate) fn record_filtered(&self, sink: SinkIndex, bytes: u64) {
        if let Some((_, metrics)) = self.sinks.get(sink.get()) {
            metrics.filtered_bytes.inc_by(bytes);
        }
    }

    /// Counts bytes that are no part of any record, or that the user does not want.
    pub(crate) fn record_skipped(&self, reason: SkipReason, sink: SinkIndex, bytes: u64) {
        if let Some((_, metrics)) = self.sinks.get(sink.get())
            && bytes > 0
        {
            metrics.skipped_bytes(reason).inc_by(bytes);
        }
    }

    /// Counts bytes that no sink gets because the user does not want them.
    pub(crate) fn record_skipped_by_all(&self, reason: SkipReason, bytes: u64) {
        SinkIndex::all(self.sinks.len()).for_each(|sink| self.record_skipped(reason, sink, bytes));
    }

    /// Enters records that a receiver refused without saying which of those that it was given they are.
    pub(crate) fn record_partial_rejection(&self, sink: SinkIndex, refused: u64, among: usize, reason: &str) {
        let Some((sink, metrics)) = self.sinks.get(sink.get()) else { return };
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
