//! All open connections, and which of them makes room when there are too many.
//!
//! A new connection is admitted as long as there are fewer than `--max-connections` and the memory budget has room. Otherwise the
//! connections that have kept silent longest are closed for it: those that rest between requests, or that have begun a request
//! and not finished it. A connection whose request is being answered is left alone; only when no other is left, and the client
//! has taken nothing of the answer's body for a while, is it closed as well.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::task::AbortHandle;

use crate::http::state::{ConnectionState, Silence};
use crate::memory::{Account, Budget};

/// A connection that rests: the kernel's socket, its buffers, file and timer, and our state. Measured in a cgroup that counts the
/// kernel, with the sockets' memory.
pub(crate) const PARKED: u64 = 12 * 1024;
/// An HTTP/1.1 connection with its read buffer.
pub(crate) const HTTP1: u64 = 24 * 1024;
/// What a head that is longer than the read buffer adds at most.
pub(crate) const LONG_HEAD: u64 = 32 * 1024;
/// An HTTP/2 connection without streams: its buffers, the tables of its headers, and its own chunks.
pub(crate) const HTTP2: u64 = 80 * 1024;
/// A request of an HTTP/2 connection.
pub(crate) const STREAM: u64 = 6 * 1024;

/// How long a client must have taken nothing of a body before the connection may be closed for others.
const STALLED: Duration = Duration::from_secs(2);
/// Of so many connections one is closed at a time, so that looking for them is rare when they come fast.
const BATCH: usize = 64;

/// The open connections.
#[derive(Debug)]
pub(crate) struct ConnectionTable {
    most: usize,
    budget: Arc<Budget>,
    evicted: Counter,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    by_number: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    state: ConnectionState,
    task: Option<AbortHandle>,
    charged: u64,
}

impl ConnectionTable {
    /// At most so many connections, each of which takes from the budget.
    pub(crate) fn new(most: usize, budget: Arc<Budget>, evicted: Counter) -> Arc<Self> {
        Arc::new(Self { most, budget, evicted, entries: Mutex::default() })
    }

    /// Makes room for a connection. `None` where there is none, because all others are being answered.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Slot> {
        let mut entries = self.entries.lock();
        while entries.by_number.len() >= self.most || self.budget.take(Account::Connections, PARKED).is_err()
        {
            if self.evict(&mut entries, None) == 0 {
                return None;
            }
        }
        let number = entries.next;
        entries.next += 1;
        let state = ConnectionState::default();
        entries.by_number.insert(number, Entry { state: state.clone(), task: None, charged: PARKED });
        Some(Slot { table: Arc::clone(self), number, state })
    }

    /// Names the task of an admitted connection, so that it can be ended.
    pub(crate) fn started(&self, number: u64, task: AbortHandle) {
        if let Some(entry) = self.entries.lock().by_number.get_mut(&number) {
            entry.task = Some(task);
        }
    }

    /// Closes the connections that have been silent longest, and says how many.
    fn evict(&self, entries: &mut Entries, except: Option<u64>) -> usize {
        let others = || entries.by_number.iter().filter(|(number, _)| Some(**number) != except);
        let mut silent: Vec<_> = others()
            .filter_map(|(number, entry)| match entry.state.silence() {
                Silence::Since(moment) => Some((moment, *number)),
                Silence::Sending(_) | Silence::Answering => None,
            })
            .collect();
        if silent.is_empty() {
            silent = others()
                .filter_map(|(number, entry)| match entry.state.silence() {
                    Silence::Sending(moment) if moment.elapsed() >= STALLED => Some((moment, *number)),
                    _ => None,
                })
                .collect();
        }
        let count = (silent.len() / BATCH).max(1).min(silent.len());
        if count == 0 {
            return 0;
        }
        silent.select_nth_unstable(count - 1);
        let mut closed = 0;
        for (_, number) in silent.into_iter().take(count) {
            let Some(entry) = entries.by_number.remove(&number) else { continue };
            // Its memory is free as soon as its task has run once more, which is before the next connection is accepted.
            self.budget.refund(Account::Connections, entry.charged);
            if let Some(task) = entry.task {
                task.abort();
            }
            self.evicted.inc();
            closed += 1;
        }
        closed
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

    /// The connection's state, which decides whether it may be closed for others.
    pub(crate) fn state(&self) -> &ConnectionState {
        &self.state
    }

    /// Says how much memory the connection takes from here on. Where that is too much, others make room.
    pub(crate) fn charge(&self, bytes: u64) {
        self.change(|_| bytes);
    }

    /// Says how much more it takes.
    pub(crate) fn grow(&self, bytes: u64) {
        self.change(|charged| charged + bytes);
    }

    /// Says how much less it takes.
    pub(crate) fn shrink(&self, bytes: u64) {
        self.change(|charged| charged.saturating_sub(bytes));
    }

    /// Whether the budget is used up, and no other connection could make room.
    pub(crate) fn is_over_budget(&self) -> bool {
        self.table.budget.is_exceeded()
    }

    fn change(&self, to: impl FnOnce(u64) -> u64) {
        let mut entries = self.table.entries.lock();
        let Some(entry) = entries.by_number.get_mut(&self.number) else { return };
        let (before, now) = (entry.charged, to(entry.charged));
        entry.charged = now;
        self.table.budget.charge(Account::Connections, now.saturating_sub(before));
        self.table.budget.refund(Account::Connections, before.saturating_sub(now));
        while now > before && self.table.budget.is_exceeded() {
            if self.table.evict(&mut entries, Some(self.number)) == 0 {
                break;
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(entry) = self.table.entries.lock().by_number.remove(&self.number) {
            self.table.budget.refund(Account::Connections, entry.charged);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(most: usize, limit: Option<u64>) -> Arc<ConnectionTable> {
        ConnectionTable::new(most, Budget::hidden(limit), Counter::default())
    }

    #[test]
    fn the_longest_silent_connection_makes_room_and_one_that_is_answered_never() {
        let table = table(3, None);
        let (answered, rests, newest) =
            (table.admit().unwrap(), table.admit().unwrap(), table.admit().unwrap());
        answered.state().requested();
        std::thread::sleep(Duration::from_millis(20));
        newest.state().requested();
        newest.state().answered();
        let fourth = table.admit().unwrap();
        fourth.state().requested();
        assert_eq!(table.evicted.get(), 1);
        assert!(!table.entries.lock().by_number.contains_key(&rests.number()));
        newest.state().requested();
        assert!(table.admit().is_none());
        drop(answered);
        assert!(table.admit().is_some());
    }

    #[test]
    fn memory_counts_as_well_as_the_number() {
        let table = table(usize::MAX, Some(16 * 1024 * 1024));
        let slots: Vec<_> = (0..2000).map(|_| table.admit().unwrap()).collect();
        assert!(table.evicted.get() > 1000);
        assert!(!table.budget.is_exceeded());
        // Those that are left grow, and others make room for them.
        for slot in &slots {
            slot.charge(HTTP1);
            assert!(!table.budget.is_exceeded());
        }
        drop(slots);
        assert_eq!(table.budget.status()["connections_bytes"], 0);
    }
}
