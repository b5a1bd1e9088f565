//! The memory budget: one limit for the process, from which everything that grows with the load takes its share.
//!
//! Each account has an answer for "no more": bodies in memory are evicted, a release whose index does not fit is not loaded,
//! the connection that has been silent longest is closed for a new one, and a stream that is read from a file waits for another
//! stream's buffer. What does not grow with the load (the program, its threads, the access log's queue) is the margin.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use lifecycle::metrics::Registrar;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const MIB: u64 = 1024 * 1024;
/// What the program takes before its first file and connection: code, stacks, page tables, the access log's queue.
const MARGIN_MIN: u64 = 10 * MIB;
/// Where there is no limit, bodies that are being sent still share this much.
const UNLIMITED_POOL: u64 = 256 * MIB;
/// One HTTP/2 frame as clients take it by default, and so the least that a stream is read in.
pub(crate) const CHUNK_MIN: u64 = 16 * 1024;
/// Read at once while there is enough: large enough for a disk.
pub(crate) const CHUNK_MAX: u64 = 128 * 1024;
/// Chunks that an HTTP/1.1 connection has for itself, whatever other connections hold: it sends one body at a time.
pub(crate) const OWN_CHUNKS_HTTP1: usize = 1;
/// The same for HTTP/2, where a stream that its client stops must not stop all others.
pub(crate) const OWN_CHUNKS_HTTP2: usize = 2;
/// Least that a connection may have in the kernel's send buffer.
const SEND_SHARE_MIN: u64 = 8 * 1024;
/// Most that a connection may have there where memory is limited. The kernel would take 4 MiB from each of many clients that
/// come at once, before the first of them is known to take less than it is sent. What the network has in flight is not part of it.
const SEND_SHARE_MAX: u64 = 128 * 1024;
/// Where memory is not limited: from here on the kernel decides by itself.
const SEND_SHARE_UNLIMITED: u64 = 1024 * 1024;

/// What memory is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Account {
    /// Bodies of files.
    Cache,
    /// The table of a release's files.
    Index,
    /// Connections and their requests, the kernel's part included.
    Connections,
    /// Pieces of files on their way to clients.
    Streams,
}

impl Account {
    const ALL: [Self; 4] = [Self::Cache, Self::Index, Self::Connections, Self::Streams];

    fn name(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Index => "index",
            Self::Connections => "connections",
            Self::Streams => "streams",
        }
    }
}

impl EncodeLabelValue for Account {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        self.name().encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UseLabels {
    r#use: Account,
}

/// The process's memory, as far as it is accounted for.
#[derive(Debug)]
pub(crate) struct Budget {
    /// The limit of the process; `None` where there is none.
    limit: Option<u64>,
    /// What the accounts share.
    shared: u64,
    /// By account; these are what `/metrics` shows.
    used: [Gauge; 4],
    /// KiB of chunks that streams may hold besides each connection's own.
    chunks: Arc<Semaphore>,
    /// Connections whose client takes less than it is sent.
    blocked: AtomicUsize,
}

/// There is no room: what was asked for would go beyond the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl Budget {
    /// A budget for a process that may use `limit` bytes in all, shown in `/metrics`.
    pub(crate) fn new(limit: Option<u64>, new: &mut Registrar<'_>) -> Arc<Self> {
        let used: Family<UseLabels, Gauge> =
            new.metric_in(Unit::Bytes, "memory_used", "Memory taken from the budget, by use (estimated)");
        let shown: Gauge =
            new.metric_in(Unit::Bytes, "memory_limit", "Memory that this process may use; 0 for no limit");
        shown.set(i64::try_from(limit.unwrap_or(0)).unwrap_or(i64::MAX));
        let used = Account::ALL.map(|account| used.get_or_create(&UseLabels { r#use: account }).clone());
        Self::with_gauges(limit, used)
    }

    /// A budget that nothing shows.
    #[cfg(test)]
    pub(crate) fn hidden(limit: Option<u64>) -> Arc<Self> {
        Self::with_gauges(limit, Default::default())
    }

    fn with_gauges(limit: Option<u64>, used: [Gauge; 4]) -> Arc<Self> {
        let shared = limit.map_or(u64::MAX, |limit| limit.saturating_sub(MARGIN_MIN.max(limit / 8)));
        let pool = limit.map_or(UNLIMITED_POOL, |_| shared / 8).clamp(CHUNK_MAX, UNLIMITED_POOL);
        let chunks = Arc::new(Semaphore::new((pool / 1024).try_into().unwrap_or(usize::MAX)));
        Arc::new(Self { limit, shared, used, chunks, blocked: AtomicUsize::new(0) })
    }

    /// Takes memory if the account may have that much more.
    pub(crate) fn take(&self, account: Account, bytes: u64) -> Result<(), NoRoom> {
        if self.total().saturating_add(bytes) > self.ceiling(account) {
            return Err(NoRoom);
        }
        self.charge(account, bytes);
        Ok(())
    }

    /// Accounts for memory that is in use whether there was room for it or not.
    pub(crate) fn charge(&self, account: Account, bytes: u64) {
        self.used[account as usize].inc_by(signed(bytes));
    }

    /// Gives memory back.
    pub(crate) fn refund(&self, account: Account, bytes: u64) {
        self.used[account as usize].dec_by(signed(bytes));
    }

    /// Keeps a body in memory, if the cache may have that much more, until the last that uses it lets go. `extra` is what is kept
    /// with it.
    pub(crate) fn hold(self: &Arc<Self>, bytes: Vec<u8>, extra: u64) -> Result<Bytes, NoRoom> {
        let size = bytes.capacity() as u64 + extra;
        self.take(Account::Cache, size)?;
        let lease = Lease { budget: Arc::clone(self), size };
        Ok(Bytes::from_owner(Body { bytes, _lease: lease }))
    }

    /// Whether more is used than may be.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.total() > self.shared
    }

    /// How much one generation of content may hold in memory, so that the next one has room beside it.
    pub(crate) fn cache_share(&self) -> u64 {
        self.shared / 8 * 3
    }

    /// The limit that operators can raise.
    pub(crate) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// How much a connection may have unsent in the kernel's send buffer; `None` for as much as the kernel likes. The more clients
    /// take less than they are sent, the less each may have.
    pub(crate) fn send_share(&self) -> Option<u64> {
        let clients = self.blocked.load(Ordering::Relaxed) as u64;
        if self.limit.is_some() {
            return Some((self.shared / 8 / (clients + 1)).clamp(SEND_SHARE_MIN, SEND_SHARE_MAX));
        }
        let share = (UNLIMITED_POOL / (clients + 1)).max(SEND_SHARE_MIN);
        (share < SEND_SHARE_UNLIMITED).then_some(share)
    }

    /// Says that one more client takes less than it is sent, for as long as the result lives.
    pub(crate) fn block(self: &Arc<Self>) -> Blocked {
        self.blocked.fetch_add(1, Ordering::Relaxed);
        Blocked(Arc::clone(self))
    }

    /// As `/status` has it.
    pub(crate) fn status(&self) -> Value {
        let used = |account: Account| self.used[account as usize].get();
        json!({
            "limit_bytes": self.limit,
            "cache_bytes": used(Account::Cache),
            "index_bytes": used(Account::Index),
            "connections_bytes": used(Account::Connections),
            "streams_bytes": used(Account::Streams),
        })
    }

    fn total(&self) -> u64 {
        self.used.iter().map(|used| u64::try_from(used.get()).unwrap_or(0)).sum()
    }

    /// How far the whole may be filled by this account. Content leaves room for connections.
    fn ceiling(&self, account: Account) -> u64 {
        match account {
            Account::Cache => self.shared / 8 * 5,
            Account::Index => self.shared / 16 * 13,
            Account::Connections | Account::Streams => self.shared,
        }
    }
}

/// A part of the cache's account.
struct Lease {
    budget: Arc<Budget>,
    size: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.refund(Account::Cache, self.size);
    }
}

struct Body {
    bytes: Vec<u8>,
    _lease: Lease,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A client that takes less than it is sent.
#[derive(Debug)]
pub(crate) struct Blocked(Arc<Budget>);

impl Drop for Blocked {
    fn drop(&mut self) {
        self.0.blocked.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one connection's bodies are read into: small chunks of its own, so that no other connection can bring it to a halt,
/// and what the common pool has.
#[derive(Debug, Clone)]
pub(crate) struct ChunkBudget {
    budget: Arc<Budget>,
    own: Arc<Semaphore>,
}

impl ChunkBudget {
    /// For a connection without bodies yet.
    pub(crate) fn new(budget: &Arc<Budget>, own: usize) -> Self {
        Self { budget: Arc::clone(budget), own: Arc::new(Semaphore::new(own)) }
    }

    /// Room for a chunk, if there is some now: a large one while more than half of the pool is free, else a small one.
    pub(crate) fn try_take(&self) -> Option<Room> {
        let pool = &self.budget.chunks;
        let large = pool.available_permits() as u64 * 1024 > self.pool_size() / 2;
        let size = if large { CHUNK_MAX } else { CHUNK_MIN };
        let permits = u32::try_from(size / 1024).unwrap_or(u32::MAX);
        let permit = Arc::clone(pool).try_acquire_many_owned(permits).map(|permit| (size, permit));
        let permit =
            permit.or_else(|_| Arc::clone(&self.own).try_acquire_owned().map(|own| (CHUNK_MIN, own)));
        permit.ok().map(|(size, permit)| self.room(size, permit))
    }

    /// Room for a small chunk, once there is some.
    pub(crate) async fn take(self) -> Room {
        let permits = u32::try_from(CHUNK_MIN / 1024).unwrap_or(u32::MAX);
        let permit = tokio::select! {
            permit = Arc::clone(&self.own).acquire_owned() => permit,
            permit = Arc::clone(&self.budget.chunks).acquire_many_owned(permits) => permit,
        };
        match permit {
            Ok(permit) => self.room(CHUNK_MIN, permit),
            // Nothing closes a semaphore here.
            Err(_closed) => std::future::pending().await,
        }
    }

    fn pool_size(&self) -> u64 {
        self.budget.limit.map_or(UNLIMITED_POOL, |_| self.budget.shared / 8).clamp(CHUNK_MAX, UNLIMITED_POOL)
    }

    fn room(&self, size: u64, permit: OwnedSemaphorePermit) -> Room {
        self.budget.charge(Account::Streams, size);
        Room { size, budget: Arc::clone(&self.budget), _permit: permit }
    }
}

/// Room for one chunk, until it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    size: u64,
    budget: Arc<Budget>,
    _permit: OwnedSemaphorePermit,
}

impl Room {
    /// Largest chunk that fits.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The chunk, which holds its room until the last of it was sent.
    pub(crate) fn fill(self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Chunk { bytes, _room: self })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.refund(Account::Streams, self.size);
    }
}

struct Chunk {
    bytes: Vec<u8>,
    _room: Room,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_leaves_room_for_connections() {
        let budget = Budget::hidden(Some(64 * MIB));
        assert_eq!(budget.take(Account::Cache, 40 * MIB), Err(NoRoom));
        assert_eq!(budget.take(Account::Index, 43 * MIB), Ok(()));
        assert_eq!(budget.take(Account::Index, MIB), Err(NoRoom));
        assert_eq!(budget.take(Account::Connections, 10 * MIB), Ok(()));
        budget.charge(Account::Connections, 10 * MIB);
        assert!(budget.is_exceeded());
        budget.refund(Account::Index, 43 * MIB);
        assert!(!budget.is_exceeded());
    }

    #[test]
    fn a_connection_has_chunks_of_its_own_when_others_have_taken_the_pool() {
        let budget = Budget::hidden(Some(64 * MIB));
        let greedy = ChunkBudget::new(&budget, OWN_CHUNKS_HTTP2);
        let mut held = Vec::new();
        while let Some(room) = greedy.try_take() {
            held.push(room.fill(vec![0; 1]));
        }
        assert!(held.len() > 100, "{}", held.len());
        let modest = ChunkBudget::new(&budget, OWN_CHUNKS_HTTP2);
        let own = [modest.try_take(), modest.try_take()];
        assert!(
            own.iter().flatten().all(|room| room.size() == CHUNK_MIN) && own.iter().flatten().count() == 2
        );
        drop((own, held));
        assert_eq!(budget.total(), 0);
    }

    #[test]
    fn the_more_clients_take_nothing_the_less_each_is_sent_ahead() {
        let budget = Budget::hidden(Some(64 * MIB));
        assert_eq!(budget.send_share(), Some(SEND_SHARE_MAX));
        let blocked: Vec<_> = (0..2000).map(|_| budget.block()).collect();
        assert_eq!(budget.send_share(), Some(SEND_SHARE_MIN));
        drop(blocked);
        assert_eq!(budget.send_share(), Some(SEND_SHARE_MAX));
        assert_eq!(Budget::hidden(None).send_share(), None);
    }
}
