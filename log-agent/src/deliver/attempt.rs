//! One attempt to deliver: what it carries, and how it went.

use std::time::Duration;

use bytes::Bytes;

use super::compress::Compression;

/// An attempt that was not confirmed.
#[derive(Debug)]
pub(crate) struct DeliveryError {
    /// Why, in a sentence.
    pub(super) reason: String,
    pub(super) retry: Retry,
}

/// What may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// The same again, after the backoff and after what the receiver asked for.
    After(Option<Duration>),
    /// Other content: nothing is wrong with the receiver.
    Reject,
    /// Perhaps other content. A receiver that breaks says the same as one that breaks at a record, so the last record of
    /// a bisection is tried for a while before it is given up.
    MaybeReject,
    /// Less at once, or more time: nothing has moved for as long as the payload said.
    Slower,
}

/// What was confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// All of it.
    All,
    /// All but so many records; which ones, the receiver does not say.
    AllBut(u64, String),
}

impl DeliveryError {
    pub(crate) fn retry(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retry: Retry::After(None) }
    }

    pub(super) fn slow(timeout: Duration) -> Self {
        let timeout = humantime::format_duration(timeout);
        Self {
            reason: format!("it has neither taken nor answered anything for {timeout}"),
            retry: Retry::Slower,
        }
    }
}

/// What one attempt carries: the same bytes and the same key at every repetition.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(super) key: String,
    pub(super) body: Bytes,
    /// What was done to the body.
    pub(super) compression: Compression,
    pub(super) records: usize,
    /// An attempt is over when nothing has moved for this long.
    pub(super) timeout: Duration,
}
