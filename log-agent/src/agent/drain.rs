//! The end: how long it may take, and the last word about what every sink has, and what it does not have yet, by file.

use std::path::Path;
use std::time::Duration;

use lifecycle::exit::{Exit, Failure, write_termination_message};
use tokio::time::Instant;

use super::status::Status;
use crate::tail::Catalog;

/// What is kept back of a drain's time for its last checkpoint, at most.
const FOR_THE_CHECKPOINT: Duration = Duration::from_secs(1);

/// The time that a drain has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    /// What is not confirmed by then is not waited for.
    pub(crate) deliver_until: Instant,
    /// Nor is the disk that the last checkpoint goes to by then.
    pub(crate) leave_by: Instant,
}

impl Drain {
    /// From now on, and over within this time.
    pub(crate) fn within(time: Duration) -> Self {
        let now = Instant::now();
        let kept_back = (time / 5).min(FOR_THE_CHECKPOINT);
        Self { deliver_until: now + time.saturating_sub(kept_back), leave_by: now + time }
    }
}

/// Says how the drain went, in the log and in the termination message.
///
/// # Errors
/// 69 where a sink did not take everything in time. An unfinished line at a file's end is nobody's failure: it is named,
/// and the next start ships it.
pub(crate) fn verdict(
    catalog: &Catalog,
    sinks: &[String],
    status: &Status,
    checkpoint_failure: Option<&str>,
    termination_log: &Path,
) -> Result<(), Failure> {
    let (mut remaining, mut unshipped) = (0, 0);
    for source in catalog.sources() {
        for (sink, name) in sinks.iter().enumerate() {
            let bytes = source.unconfirmed(sink);
            if bytes == 0 {
                continue;
            }
            let unfinished = source.unfinished(sink);
            let why =
                if unfinished == bytes { "the last line has no end yet" } else { "not confirmed in time" };
            tracing::warn!(file = %source.path.display(), sink = name, bytes, why, "remains: the next start ships it");
            remaining += bytes;
            unshipped += bytes - unfinished;
        }
    }
    tracing::info!(remaining_bytes = remaining, "drained");
    let checkpoint = checkpoint_failure
        .map(|error| {
            format!("; the last checkpoint could not be written ({error}), so lines will be sent again")
        })
        .unwrap_or_default();
    if unshipped == 0 {
        write_termination_message(
            termination_log,
            &format!("drained remaining_bytes={remaining}{checkpoint}"),
        );
        return Ok(());
    }
    let why = status
        .longest_outage()
        .map(|(sink, _, reason)| format!(": sink {sink}: {reason}"))
        .unwrap_or_default();
    Err(Failure::new(
        Exit::Unavailable,
        format!("drained remaining_bytes={remaining}, which the next start ships{why}{checkpoint}"),
    ))
}
