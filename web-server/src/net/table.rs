//! All open connections, and which of them makes room when there are too many.
//!
//! A new connection is admitted as long as there are fewer than `--max-connections` and the memory budget has room. Otherwise the
//! connections that have kept silent longest are closed for it: those that rest between requests, or that have begun a request
//! and not finished it. A connection whose request is being answered is left alone; only when no other is left, and the client
//! has taken nothing of the answer's body for a while, is it closed as well. A client that has closed its receive window and was not
//! seen to read has a short time. Any other has a longer one, because it may read slowly, or its network may be slow.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::http::state::{ConnectionState, Moment, Silence};
use crate::memory::{Account, Budget, NoRoom};
use crate::net::closed_windows::{ClosedWindow, Endpoints, Queued, closed_windows};

/// A connection that rests: the kernel's socket, its buffers, file and timer, and our state. Measured in a cgroup that counts the
/// kernel, with the sockets' memory.
pub(crate) const PARKED: u64 = 16 * 1024;
/// An HTTP/1.1 connection with its read buffer, and the least that the kernel buffers for it.
pub(crate) const HTTP1: u64 = 36 * 1024;
/// An HTTP/2 connection without streams: its buffers, the tables of its headers, and its own chunks.
pub(crate) const HTTP2: u64 = 80 * 1024;
/// A request of an HTTP/2 connection, with a head as browsers have them.
pub(crate) const STREAM: u64 = 8 * 1024;

/// While more connections than these have HTTP's buffers, one that falls silent gives them back at once. While there are fewer it
/// keeps them for a moment, which saves work where its client asks again.
const AWAKE_MAX: usize = 512;
/// How long a client must have taken nothing of a body before the connection may be closed for others.
const STALLED: Duration = Duration::from_millis(500);
/// Shortest time from one look at the clients' windows to the next; three times as long as a look takes, where that is longer.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Of so many connections one is closed at a time, so that looking for them is rare when they come fast.
const BATCH: usize = 64;
/// How often room is looked for while all others are being answered.
const ROOM_RETRY: Duration = Duration::from_millis(5);
/// How long new connections wait for room before they are turned away.
const FULL_MAX: Duration = Duration::from_secs(2);

/// The open connections.
#[derive(Debug)]
pub(crate) struct ConnectionTable {
    most: usize,
    budget: Arc<Budget>,
    open: Gauge,
    evicted: Counter,
    entries: Mutex<Entries>,
    /// Connections that are charged for more than one that rests.
    awake: AtomicUsize,
    /// Notified when an evicted connection has given back what it had.
    freed: Notify,
    /// Connections that need more than they have, one after the other.
    growing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    by_number: HashMap<u64, Entry>,
    /// What evicted connections have not given back yet: their tasks have to run once more.
    leaving: u64,
    /// Since when no connection could be admitted.
    full: Option<Moment>,
    looks: Looks,
}

/// Looks at the clients' windows.
#[derive(Debug, Default)]
struct Looks {
    in_progress: bool,
    /// When the last one ended, and how long to wait after it.
    last: Option<(Moment, Duration)>,
}

#[derive(Debug)]
struct Entry {
    endpoints: Endpoints,
    state: ConnectionState,
    task: Option<AbortHandle>,
    /// For the connection itself and its requests.
    charged: u64,
    /// For a request that is held outside of HTTP: the connection rests meanwhile.
    held: u64,
    evicted: bool,
    /// The client's window, if the last look saw that it is closed.
    window: Option<ClosedWindow>,
}

/// What stands in the way of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    /// Evicted connections are about to give theirs back.
    Leaving,
    /// All others are being answered.
    Answering,
}

impl ConnectionTable {
    /// At most so many connections, each of which takes from the budget.
    pub(crate) fn new(most: usize, budget: Arc<Budget>, open: Gauge, evicted: Counter) -> Arc<Self> {
        Arc::new(Self {
            most,
            budget,
            open,
            evicted,
            entries: Mutex::default(),
            awake: AtomicUsize::new(0),
            freed: Notify::new(),
            growing: tokio::sync::Mutex::default(),
        })
    }

    /// Makes room for a connection, and waits until it is there. `None` where there is none for a while, because all others are
    /// being answered.
    pub(crate) async fn admit(self: &Arc<Self>, endpoints: Endpoints) -> Option<Slot> {
        loop {
            let freed = self.freed.notified();
            match self.try_admit(endpoints) {
                Ok(slot) => return Some(slot),
                Err(Obstacle::Leaving) => freed.await,
                Err(Obstacle::Answering) => {
                    let full = *self.entries.lock().full.get_or_insert_with(Moment::now);
                    if full.elapsed() > FULL_MAX {
                        return None;
                    }
                    sleep(ROOM_RETRY).await;
                }
            }
        }
    }

    fn try_admit(self: &Arc<Self>, endpoints: Endpoints) -> Result<Slot, Obstacle> {
        let mut entries = self.entries.lock();
        if entries.by_number.len() >= self.most {
            return Err(self.evict(&mut entries, None, 1));
        }
        if let Err(lacking) = self.budget.take_for_new(HTTP1) {
            return Err(self.evict(&mut entries, None, lacking));
        }
        entries.full = None;
        let number = entries.next;
        entries.next += 1;
        let state = ConnectionState::default();
        let mut entry = Entry {
            endpoints,
            state: state.clone(),
            task: None,
            charged: 0,
            held: 0,
            evicted: false,
            window: None,
        };
        self.recharge(&mut entry, HTTP1);
        entries.by_number.insert(number, entry);
        self.open.inc();
        Ok(Slot { table: Arc::clone(self), number, state })
    }

    /// Names the task of an admitted connection, so that it can be ended.
    pub(crate) fn started(&self, number: u64, task: AbortHandle) {
        if let Some(entry) = self.entries.lock().by_number.get_mut(&number) {
            if entry.evicted {
                task.abort();
            }
            entry.task = Some(task);
        }
    }

    fn recharge(&self, entry: &mut Entry, charged: u64) {
        match (entry.charged > PARKED, charged > PARKED) {
            (false, true) => _ = self.awake.fetch_add(1, Ordering::Relaxed),
            (true, false) => _ = self.awake.fetch_sub(1, Ordering::Relaxed),
            _ => {}
        }
        entry.charged = charged;
    }

    /// Closes the connections that have been silent longest, until `wanted` bytes come back. They come back when the connections'
    /// tasks have ended, not before.
    fn evict(self: &Arc<Self>, entries: &mut Entries, except: Option<u64>, wanted: u64) -> Obstacle {
        if entries.leaving >= wanted {
            return Obstacle::Leaving;
        }
        let silent = |stalled: bool| {
            let others = entries.by_number.iter();
            let others = others.filter(|(number, entry)| !entry.evicted && Some(**number) != except);
            others.filter_map(move |(number, entry)| match entry.state.silence() {
                Silence::Since(moment) if !stalled => Some((moment, *number)),
                Silence::Sending(moment) if stalled && entry.is_stalled(moment) => Some((moment, *number)),
                _ => None,
            })
        };
        let mut candidates: Vec<_> = silent(false).collect();
        if candidates.is_empty() {
            candidates = silent(true).collect();
            self.look_at_windows(entries);
        }
        let batch = (candidates.len() / BATCH).max(1).min(candidates.len());
        let mut closed = 0;
        while closed < candidates.len() && (closed < batch || entries.leaving < wanted) {
            // The next batch of those that have been silent longest.
            if closed % batch == 0 && closed + batch < candidates.len() {
                candidates[closed..].select_nth_unstable(batch - 1);
            }
            let number = candidates[closed].1;
            closed += 1;
            let Some(entry) = entries.by_number.get_mut(&number) else { continue };
            entry.evicted = true;
            entries.leaving += entry.charged + entry.held;
            if let Some(task) = &entry.task {
                task.abort();
            }
            self.evicted.inc();
        }
        if entries.leaving > 0 { Obstacle::Leaving } else { Obstacle::Answering }
    }

    /// Looks at the clients' windows, on a thread that nothing waits for, unless the last look was a moment ago.
    fn look_at_windows(self: &Arc<Self>, entries: &mut Entries) {
        let begun = Moment::now();
        let Entries { by_number, looks, .. } = entries;
        if looks.in_progress || looks.last.is_some_and(|(ended, pause)| begun.since(ended) < pause) {
            return;
        }
        let Some(one) = by_number.values().next().map(|entry| entry.endpoints) else { return };
        let table = Arc::clone(self);
        let look = move || {
            let start = Instant::now();
            let closed = closed_windows(one).unwrap_or_else(|error| {
                tracing::debug!(%error, "cannot tell which clients have closed their windows");
                HashMap::new()
            });
            table.looked(begun, &closed, LOOK_PAUSE.max(3 * start.elapsed()));
        };
        match thread::Builder::new().name("windows".to_owned()).spawn(look) {
            Ok(_thread) => looks.in_progress = true,
            Err(error) => tracing::debug!(%error, "cannot look at the clients' windows"),
        }
    }

    /// Notes what a look has seen. A window that it did not see closed is open.
    fn looked(&self, begun: Moment, closed: &HashMap<Endpoints, Queued>, pause: Duration) {
        let mut entries = self.entries.lock();
        for entry in entries.by_number.values_mut() {
            let seen = closed.get(&entry.endpoints);
            entry.window = seen.map(|queued| ClosedWindow::seen(*queued, begun, entry.window));
        }
        entries.looks = Looks { in_progress: false, last: Some((Moment::now(), pause)) };
    }
}

impl Entry {
    /// Whether a client that has last taken something of a body at that moment has stalled.
    fn is_stalled(&self, taken: Moment) -> bool {
        taken.elapsed() >= STALLED || self.has_closed_window(taken)
    }

    /// Whether that client has had its window closed since, and was not seen to read before. Readers close their windows for moments.
    fn has_closed_window(&self, taken: Moment) -> bool {
        !self.state.is_reader() && self.window.is_some_and(|window| window.is_closed_since(taken))
    }
}

/// A connection's place in the table, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    table: Arc<ConnectionTable>,
    number: u64,
    state: ConnectionState,
}

impl Slot {
    /// Which one.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// What its memory is taken from.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.table.budget
    }

    /// The connection's state, which decides whether it may be closed for others.
    pub(crate) fn state(&self) -> &ConnectionState {
        &self.state
    }

    /// Whether a connection that falls silent should rest at once.
    pub(crate) fn is_crowded(&self) -> bool {
        self.table.awake.load(Ordering::Relaxed) > AWAKE_MAX
    }

    /// Says that the connection takes no more than so much from here on.
    pub(crate) fn shrink_to(&self, bytes: u64) {
        self.change(|charged| charged.min(bytes));
    }

    /// Takes so much in all. Where that is more than there is, others are closed for it, and it waits until they have given back
    /// theirs, or others have been answered.
    pub(crate) async fn grow_to(&self, bytes: u64) {
        if self.try_grow_to(bytes).is_err() {
            // In a box: a connection that rests keeps no room for it.
            Box::pin(self.grow_when_others_have_gone(bytes)).await;
        }
    }

    async fn grow_when_others_have_gone(&self, bytes: u64) {
        let _turn = self.table.growing.lock().await;
        loop {
            let freed = self.table.freed.notified();
            match self.try_grow_to(bytes) {
                Ok(()) => return,
                Err(Obstacle::Leaving) => freed.await,
                Err(Obstacle::Answering) => sleep(ROOM_RETRY).await,
            }
        }
    }

    /// Takes this many bytes more, for something that can be refused. Where there is less room than that, others are closed for it.
    pub(crate) fn try_grow(&self, bytes: u64) -> Result<(), NoRoom> {
        self.take_sparingly(bytes, |entry| self.table.recharge(entry, entry.charged + bytes))
    }

    /// Takes this many bytes for a request that is held while the connection rests, as [`Self::try_grow`] does.
    pub(crate) fn try_hold(&self, bytes: u64) -> Result<(), NoRoom> {
        self.take_sparingly(bytes, |entry| entry.held += bytes)
    }

    /// Says that the request is held no longer.
    pub(crate) fn release_held(&self) {
        let mut entries = self.table.entries.lock();
        let Some(entry) = entries.by_number.get_mut(&self.number) else { return };
        let held = std::mem::take(&mut entry.held);
        if entry.evicted {
            entries.leaving -= held;
        }
        self.table.budget.refund(Account::Connections, held);
    }

    /// Takes bytes from the budget as long as an eighth of it is left, or will be as soon as those that are closed for it have given
    /// back theirs, and has them noted.
    fn take_sparingly(&self, bytes: u64, note: impl FnOnce(&mut Entry)) -> Result<(), NoRoom> {
        let mut entries = self.table.entries.lock();
        let budget = &self.table.budget;
        if let Err(lacking) = budget.take_sparingly(bytes) {
            self.table.evict(&mut entries, Some(self.number), lacking);
            if entries.leaving < lacking {
                return Err(NoRoom);
            }
            budget.take(Account::Connections, bytes)?;
        }
        let Some(entry) = entries.by_number.get_mut(&self.number) else { return Ok(()) };
        note(entry);
        if entry.evicted {
            entries.leaving += bytes;
        }
        Ok(())
    }

    fn try_grow_to(&self, bytes: u64) -> Result<(), Obstacle> {
        let mut entries = self.table.entries.lock();
        let Some(entry) = entries.by_number.get_mut(&self.number) else { return Ok(()) };
        let more = bytes.saturating_sub(entry.charged);
        if self.table.budget.take(Account::Connections, more).is_ok() {
            self.table.recharge(entry, entry.charged + more);
            if entry.evicted {
                entries.leaving += more;
            }
            return Ok(());
        }
        Err(self.table.evict(&mut entries, Some(self.number), more + self.table.budget.excess()))
    }

    /// Says how much more it takes.
    pub(crate) fn grow(&self, bytes: u64) {
        self.change(|charged| charged + bytes);
    }

    /// Says how much less it takes.
    pub(crate) fn shrink(&self, bytes: u64) {
        self.change(|charged| charged.saturating_sub(bytes));
    }

    /// Where more is charged than there is: closes others, and waits until they have given back theirs. `false` where all others
    /// are being answered.
    pub(crate) async fn make_room(&self) -> bool {
        loop {
            let excess = self.table.budget.excess();
            if excess == 0 {
                return true;
            }
            let freed = self.table.freed.notified();
            let obstacle = self.table.evict(&mut self.table.entries.lock(), Some(self.number), excess);
            match obstacle {
                Obstacle::Leaving => freed.await,
                Obstacle::Answering => return false,
            }
        }
    }

    fn change(&self, to: impl FnOnce(u64) -> u64) {
        let mut entries = self.table.entries.lock();
        let Some(entry) = entries.by_number.get_mut(&self.number) else { return };
        let (before, now) = (entry.charged, to(entry.charged));
        self.table.recharge(entry, now);
        if entry.evicted {
            entries.leaving = entries.leaving + now - before;
        }
        self.table.budget.charge(Account::Connections, now.saturating_sub(before));
        self.table.budget.refund(Account::Connections, before.saturating_sub(now));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut entries = self.table.entries.lock();
        let Some(mut entry) = entries.by_number.remove(&self.number) else { return };
        self.table.open.dec();
        let charged = entry.charged + entry.held;
        self.table.recharge(&mut entry, 0);
        if entry.evicted {
            entries.leaving -= charged;
        }
        self.table.budget.refund(Account::Connections, charged);
        drop(entries);
        self.table.freed.notify_waiters();
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
