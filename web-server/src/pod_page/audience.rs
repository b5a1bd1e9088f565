//! Who watches, and what they were told last.
//!
//! The neighbours are asked by one task for all viewers: it begins with the first and ends a moment after the last. Viewers are
//! told by way of a channel that keeps one snapshot, so a slow one misses some and holds up nobody.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::rounds::Rounds;
use super::snapshot::Snapshot;

/// From one round to the next. Nothing here is worth a busier neighbour.
const PERIOD: Duration = Duration::from_millis(500);
/// How long the rounds go on after the last viewer has left: a page that is loaded again finds them going.
const LINGER: Duration = Duration::from_secs(2);
/// Viewers at once; each of them also counts as a connection.
const VIEWERS_MAX: usize = 1024;

/// All viewers.
#[derive(Debug)]
pub(crate) struct Audience {
    seats: Mutex<Seats>,
    told: watch::Sender<Option<Arc<Told>>>,
    rounds: tokio::sync::Mutex<Rounds>,
    shutdown: CancellationToken,
}

#[derive(Debug)]
struct Seats {
    taken: usize,
    /// When the last viewer left, while there is none.
    empty_since: Instant,
    watching: bool,
}

/// A snapshot, as it was told to all.
#[derive(Debug)]
pub(crate) struct Told {
    /// What was found.
    pub(crate) snapshot: Snapshot,
    /// The same, as JSON.
    pub(crate) json: Bytes,
    /// The same, as an event of a stream.
    pub(crate) event: Bytes,
}

impl Told {
    fn new(snapshot: Snapshot) -> serde_json::Result<Self> {
        let json = serde_json::to_string(&snapshot)?;
        // JSON as it is written here has no line breaks, so one `data` line holds it.
        let event = format!("event: snapshot\ndata: {json}\n\n").into();
        Ok(Self { snapshot, json: json.into(), event })
    }
}

impl Audience {
    /// Nobody watches yet.
    pub(crate) fn new(rounds: Rounds, shutdown: CancellationToken) -> Self {
        let seats = Seats { taken: 0, empty_since: Instant::now(), watching: false };
        Self {
            seats: Mutex::new(seats),
            told: watch::Sender::new(None),
            rounds: tokio::sync::Mutex::new(rounds),
            shutdown,
        }
    }

    async fn watch(self: Arc<Self>) {
        let mut rounds = self.rounds.lock().await;
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.shutdown.cancelled() => return,
            }
            if self.is_over() {
                return rounds.rest();
            }
            let snapshot = rounds.look().await;
            let known = self.told.borrow().as_ref().is_some_and(|told| told.snapshot == snapshot);
            if known {
                continue;
            }
            match Told::new(snapshot) {
                Ok(told) => drop(self.told.send_replace(Some(Arc::new(told)))),
                Err(error) => tracing::error!(%error, "a snapshot of the Pod cannot be written"),
            }
        }
    }

    /// Whether nobody has watched for long enough; whoever comes next begins anew.
    fn is_over(&self) -> bool {
        let mut seats = self.seats.lock();
        if seats.taken > 0 || seats.empty_since.elapsed() < LINGER {
            return false;
        }
        seats.watching = false;
        // It will be out of date when the next viewer comes.
        self.told.send_replace(None);
        true
    }
}

/// One viewer; leaves when it is dropped.
#[derive(Debug)]
pub(crate) struct Viewer {
    audience: Arc<Audience>,
    told: watch::Receiver<Option<Arc<Told>>>,
}

impl Viewer {
    /// None where there are too many already.
    pub(crate) fn join(audience: &Arc<Audience>) -> Option<Self> {
        let mut seats = audience.seats.lock();
        if seats.taken >= VIEWERS_MAX {
            return None;
        }
        seats.taken += 1;
        let mut told = audience.told.subscribe();
        // What is known already is news to this viewer.
        told.mark_changed();
        if !seats.watching {
            seats.watching = true;
            tokio::spawn(Arc::clone(audience).watch());
        }
        Some(Self { audience: Arc::clone(audience), told })
    }

    /// The latest snapshot, as soon as there is one that this viewer was not told; none when the server drains.
    pub(crate) async fn news(&mut self) -> Option<Arc<Told>> {
        loop {
            tokio::select! {
                biased;
                () = self.audience.shutdown.cancelled() => return None,
                changed = self.told.changed() => changed.ok()?,
            }
            if let Some(told) = &*self.told.borrow_and_update() {
                return Some(Arc::clone(told));
            }
        }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let mut seats = self.audience.seats.lock();
        seats.taken -= 1;
        seats.empty_since = Instant::now();
    }
}

/// The present, as it is written everywhere here.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}
