//! One viewer's stream of snapshots: Server-Sent Events, as the HTML standard defines them (section 9.2).
//!
//! A beat tells the server's time, at the beginning and whenever there is nothing else to tell. A browser hides a stream's
//! comments from the page, so it is an event: a page that hears neither knows that web-server hangs.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;

use crate::hub::Subscriber;
use crate::response::Stream;
use crate::snapshot::now;

/// The longest silence.
const BEAT: Duration = Duration::from_millis(750);
/// How long a browser waits before it comes back, in milliseconds.
const RETRY: u32 = 1000;

/// All that a viewer is told, until it leaves or the server drains.
pub(crate) fn of(viewer: Subscriber) -> Stream {
    let opening = Bytes::from(format!("retry: {RETRY}\n{}", beat()));
    Box::pin(stream::unfold((viewer, Some(opening)), |(mut viewer, opening)| async move {
        let piece = match opening {
            Some(opening) => opening,
            None => next(&mut viewer).await?,
        };
        Some((piece, (viewer, None)))
    }))
}

/// A stream that is over.
pub(crate) fn nothing() -> Stream {
    Box::pin(stream::empty())
}

async fn next(viewer: &mut Subscriber) -> Option<Bytes> {
    match tokio::time::timeout(BEAT, viewer.next_frame()).await {
        Ok(frame) => frame.map(|frame| frame.event.clone()),
        Err(_quiet) => Some(beat().into()),
    }
}

fn beat() -> String {
    format!("event: beat\ndata: {}\n\n", now())
}
