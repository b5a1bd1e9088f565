//! The last word: what every sink has, and what it does not have yet, by file.

use std::path::Path;

use lifecycle::exit::{Exit, Failure, terminate_with};

use crate::catalog::Catalog;
use crate::status::Status;

/// Says how the drain went, in the log and in the termination message.
///
/// # Errors
/// 69 where a sink did not take everything in time. An unfinished line at a file's end is nobody's failure: it is named,
/// and the next start ships it.
pub fn verdict(
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
        terminate_with(termination_log, &format!("drained remaining_bytes={remaining}{checkpoint}"));
        return Ok(());
    }
    let why = status.worst().map(|(sink, _, reason)| format!(": sink {sink}: {reason}")).unwrap_or_default();
    Err(Failure::new(
        Exit::Unavailable,
        format!("drained remaining_bytes={remaining}, which the next start ships{why}{checkpoint}"),
    ))
}
