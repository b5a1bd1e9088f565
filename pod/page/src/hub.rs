//! The subscribers, and the frame that they were sent last.
//!
//! One task asks the containers for all subscribers: it begins with the first and ends a moment after the last. Frames go
//! through a channel that keeps one, so a slow subscriber misses some and does not delay the others.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::poller::Poller;
use crate::snapshot::Snapshot;

/// From one poll to the next.
const PERIOD: Duration = Duration::from_millis(500);
/// How long the poller goes on after the last subscriber has left, for a page that is loaded again.
const LINGER: Duration = Duration::from_secs(2);
/// Subscribers at once; each of them also counts as a connection.
const SUBSCRIBERS_MAX: usize = 1024;

/// All subscribers: each has a receiver of the frames.
#[derive(Debug)]
pub(crate) struct Hub {
    watch: Mutex<Watch>,
    frames: watch::Sender<Option<Arc<Frame>>>,
    poller: tokio::sync::Mutex<Poller>,
    shutdown: CancellationToken,
}

/// The task that polls.
#[derive(Debug)]
struct Watch {
    running: bool,
    /// When it, or a new subscriber, last saw that there are subscribers.
    subscribed: Instant,
}

/// A snapshot, as it is sent to all.
#[derive(Debug)]
pub(crate) struct Frame {
    /// What was found.
    pub(crate) snapshot: Snapshot,
    /// The same, as JSON.
    pub(crate) json: Bytes,
    /// The same, as an event of a stream.
    pub(crate) event: Bytes,
}

impl Frame {
    fn new(snapshot: Snapshot) -> serde_json::Result<Self> {
        let json = serde_json::to_string(&snapshot)?;
        // JSON as it is written here has no line breaks, so one `data` line holds it.
        let event = format!("event: snapshot\ndata: {json}\n\n").into();
        Ok(Self { snapshot, json: json.into(), event })
    }
}

impl Hub {
    /// A hub without subscribers.
    pub(crate) fn new(poller: Poller, shutdown: CancellationToken) -> Self {
        Self {
            watch: Mutex::new(Watch { running: false, subscribed: Instant::now() }),
            frames: watch::Sender::new(None),
            poller: tokio::sync::Mutex::new(poller),
            shutdown,
        }
    }

    async fn watch(self: Arc<Self>) {
        let mut poller = self.poller.lock().await;
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.shutdown.cancelled() => return,
            }
            if self.is_over() {
                return poller.pause();
            }
            let snapshot = poller.poll().await;
            let known = self.frames.borrow().as_ref().is_some_and(|frame| frame.snapshot == snapshot);
            if known {
                continue;
            }
            match Frame::new(snapshot) {
                Ok(frame) => drop(self.frames.send_replace(Some(Arc::new(frame)))),
                Err(error) => tracing::error!(%error, "a snapshot of the Pod cannot be written"),
            }
        }
    }

    /// Whether there has been no subscriber for long enough; the next one starts the poller again.
    fn is_over(&self) -> bool {
        let mut watch = self.watch.lock();
        if self.frames.receiver_count() > 0 {
            watch.subscribed = Instant::now();
        }
        if watch.subscribed.elapsed() < LINGER {
            return false;
        }
        watch.running = false;
        // It will be out of date when the next subscriber comes.
        self.frames.send_replace(None);
        true
    }
}

/// One subscriber; it has left when it is dropped.
#[derive(Debug)]
pub(crate) struct Subscriber {
    hub: Arc<Hub>,
    frames: watch::Receiver<Option<Arc<Frame>>>,
}

impl Subscriber {
    /// None where there are too many already.
    pub(crate) fn join(hub: &Arc<Hub>) -> Option<Self> {
        let mut watch = hub.watch.lock();
        if hub.frames.receiver_count() >= SUBSCRIBERS_MAX {
            return None;
        }
        watch.subscribed = Instant::now();
        let mut frames = hub.frames.subscribe();
        // What is known already is new to this subscriber.
        frames.mark_changed();
        if !std::mem::replace(&mut watch.running, true) {
            tokio::spawn(Arc::clone(hub).watch());
        }
        Some(Self { hub: Arc::clone(hub), frames })
    }

    /// The latest snapshot, as soon as there is one that this subscriber has not got; none when the server drains.
    pub(crate) async fn next_frame(&mut self) -> Option<Arc<Frame>> {
        loop {
            tokio::select! {
                biased;
                () = self.hub.shutdown.cancelled() => return None,
                changed = self.frames.changed() => changed.ok()?,
            }
            if let Some(frame) = &*self.frames.borrow_and_update() {
                return Some(Arc::clone(frame));
            }
        }
    }
}
