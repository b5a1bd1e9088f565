//! The end: how long it may take, and the last word about what every sink has, and what it does not have yet, by file.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use lifecycle::Ignore as _;
use lifecycle::escape::escaped_path;
use lifecycle::exit::{Exit, Failure, write_termination_message};
use tokio::time::Instant;

use super::status::Status;
use crate::position::SinkIndex;
use crate::tail::{Catalog, Naming};

/// What is kept back of a drain's time for its last checkpoint, at most.
const FOR_THE_CHECKPOINT: Duration = Duration::from_secs(1);

/// The time that a drain has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    /// What is not confirmed by then is not waited for.
    pub(super) deliver_until: Instant,
    /// Nor is the disk that the last checkpoint goes to by then.
    pub(super) leave_by: Instant,
}

impl Drain {
    /// From now on, and over within this time.
    pub(super) fn within(time: Duration) -> Self {
        let now = Instant::now();
        let kept_back = (time / 5).min(FOR_THE_CHECKPOINT);
        Self { deliver_until: now + time.saturating_sub(kept_back), leave_by: now + time }
    }
}

/// What the sinks do not have at the end, in bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remains {
    /// The next start ships it.
    remaining: u64,
    /// Of that, what is more than last lines without an end.
    unshipped: u64,
    /// No start can ship it: the files have no name that is followed any more, or another content.
    lost: u64,
    /// Why there may be more, of which nothing is known.
    unseen: Option<String>,
}

impl Remains {
    /// Says what remains, and enters what is lost. `unread` is a file that should have been read, and could not be.
    pub(super) fn of(catalog: &mut Catalog, sinks: &[String], unread: Option<String>) -> Self {
        let mut remains = Self { unseen: catalog.unseen().or(unread), ..Self::default() };
        for file in catalog.files().filter(|file| file.naming() == Naming::Named) {
            for (sink, name) in SinkIndex::all(sinks.len()).zip(sinks) {
                let bytes = file.unconfirmed(sink);
                if bytes == 0 {
                    continue;
                }
                let unfinished = file.content().unfinished(sink);
                let why = if unfinished == bytes {
                    "the last line has no end yet"
                } else {
                    "not confirmed in time"
                };
                tracing::warn!(file = %escaped_path(file.path()), sink = name, bytes, why, "remains: the next start ships it");
                remains.remaining += bytes;
                remains.unshipped += bytes - unfinished;
            }
        }
        remains.lost = catalog.give_up_unshippable();
        tracing::info!(remaining_bytes = remains.remaining, lost_bytes = remains.lost, "drained");
        remains
    }
}

/// Says how the drain went, in the termination message.
///
/// # Errors
/// 69 where a sink did not take everything in time. An unfinished line at a file's end is no failure: it is named,
/// and the next start ships it.
pub(super) fn verdict(
    remains: &Remains,
    status: &Status,
    checkpoint_failure: Option<&str>,
    termination_log: &Path,
) -> Result<(), Failure> {
    let Remains { remaining, unshipped, lost, unseen } = remains;
    let checkpoint = checkpoint_failure
        .map(|error| {
            format!("; the last checkpoint could not be written ({error}), so lines will be sent again")
        })
        .unwrap_or_default();
    if *unshipped == 0 && *lost == 0 && unseen.is_none() {
        write_termination_message(
            termination_log,
            &format!("drained remaining_bytes={remaining}{checkpoint}"),
        );
        return Ok(());
    }
    // Writing to a string does not fail.
    let mut text = format!("drained remaining_bytes={remaining}, which the next start ships");
    if *lost > 0 {
        write!(text, "; lost_bytes={lost}, of files that are removed or truncated, which no start can ship")
            .ignore();
    }
    if let Some(reason) = unseen {
        write!(text, "; perhaps more: {reason}").ignore();
    }
    if let Some((sink, _, reason)) = status.longest_outage() {
        write!(text, ": sink {sink}: {reason}").ignore();
    }
    Err(Failure::new(Exit::Unavailable, text + &checkpoint))
}
