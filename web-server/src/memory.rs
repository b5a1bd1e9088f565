//! The memory budget: one limit for the process, from which everything that grows with the load takes its share.
//!
//! Each account has an answer for "no more": bodies in memory are evicted, a release whose index does not fit is not loaded,
//! the connection that has been silent longest is closed for a new one, and a stream that is read from a file waits for another
//! stream's buffer. What does not grow with the load (the program, its threads, the access log's queue) is the margin.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lifecycle::metrics::Registrar;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

const MIB: u64 = 1024 * 1024;
/// What the program takes before its first file and connection: code, stacks, page tables, the access log's queue.
const MARGIN_MIN: u64 = 10 * MIB;
/// Least limit of a process that can serve: what is set aside, and room for some connections and a small release.
pub(crate) const LEAST: u64 = 11 * MIB;
/// Where there is no limit, bodies that are being sent still share this much.
const UNLIMITED_POOL: u64 = 256 * MIB;
/// More than any number of long heads takes.
const UNLIMITED: u64 = 1 << 50;
/// One HTTP/2 frame as clients take it by default, and so the least that a stream is read in.
pub(crate) const CHUNK_MIN: u64 = 16 * 1024;
/// Read at once while there is enough: large enough for a disk.
pub(crate) const CHUNK_MAX: u64 = 128 * 1024;
/// Chunks that an HTTP/1.1 connection has for itself, whatever other connections hold: it sends one body at a time.
pub(crate) const OWN_CHUNKS_HTTP1: u64 = 1;
/// The same for HTTP/2, where a stream that its client stops must not stop all others.
pub(crate) const OWN_CHUNKS_HTTP2: u64 = 2;
/// How often a connection looks whether there is memory for its own chunks again.
const ROOM_RETRY: Duration = Duration::from_millis(100);
/// What a head that is longer than HTTP's read buffer adds to it at most.
const LONG_HEAD: u64 = 56 * 1024;
/// A listing of a directory of some hundred files, while it is made and sent.
const SHORT_LISTING: u64 = 64 * 1024;
/// What one connection takes at once from the memory that is set aside for the kernel's send buffers.
const SEND_LEASE_MIN: u64 = 32 * 1024;
const SEND_LEASE_MAX: u64 = 512 * 1024;
/// Where memory is not limited, least that a connection may have unsent in the kernel's send buffer.
const SEND_SHARE_MIN: u64 = 8 * 1024;
/// Where memory is not limited: from here on the kernel decides by itself.
const SEND_SHARE_UNLIMITED: u64 = 1024 * 1024;

/// What memory is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Account {
    /// Bodies of files, and listings of directories.
    Cache,
    /// The table of a release's files.
    Index,
    /// With `--manifest`: the manifests that are given out, and what they are made of.
    Manifest,
    /// Connections and their requests, with the kernel's part and the chunks that are their own.
    Connections,
    /// Pieces of files on their way to clients: the common pool, which is set aside from the start, and so is no part of what the
    /// first four share.
    Streams,
    /// What connections may have in the kernel's send buffers beyond the least that each has, set aside as well.
    SendBuffers,
    /// Heads that do not fit into the buffer that a connection has for them, set aside as well.
    LongHeads,
}

impl Account {
    const ALL: [Self; 7] = [
        Self::Cache,
        Self::Index,
        Self::Manifest,
        Self::Connections,
        Self::Streams,
        Self::SendBuffers,
        Self::LongHeads,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Index => "index",
            Self::Manifest => "manifest",
            Self::Connections => "connections",
            Self::Streams => "streams",
            Self::SendBuffers => "send_buffers",
            Self::LongHeads => "long_heads",
        }
    }
}

/// The process's memory, as far as it is accounted for.
#[derive(Debug)]
pub(crate) struct Budget {
    /// The limit of the process; `None` where there is none.
    limit: Option<u64>,
    /// What the accounts share.
    shared: u64,
    /// By account; these are what `/metrics` shows.
    used: [Gauge; 7],
    /// Chunks that streams may hold besides each connection's own.
    chunks: Pool,
    /// Large ones are lent while more than this is left.
    large_chunks_above: u64,
    /// What connections may have in the kernel's send buffers besides each one's least; `None` where there is no limit.
    send_buffers: Option<Pool>,
    /// Heads that do not fit into the buffer that each connection has.
    long_heads: Pool,
    /// Of which every connection has a clone whose client takes less than it is sent.
    blocked: Blocked,
}

/// There is no room: what was asked for would go beyond the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl NoRoom {
    /// Whether this is why something failed.
    pub(crate) fn is_cause_of(error: &io::Error) -> bool {
        error.kind() == ErrorKind::OutOfMemory
    }
}

impl From<NoRoom> for io::Error {
    fn from(NoRoom: NoRoom) -> Self {
        ErrorKind::OutOfMemory.into()
    }
}

impl Budget {
    /// A budget for a process that may use `limit` bytes in all, shown in `/metrics`.
    pub(crate) fn new(limit: Option<u64>, new: &mut Registrar<'_>) -> Arc<Self> {
        let used: Family<[(&str, &str); 1], Gauge> =
            new.metric_in(Unit::Bytes, "memory_used", "Memory taken from the budget, by use (estimated)");
        let shown: Gauge =
            new.metric_in(Unit::Bytes, "memory_limit", "Memory that this process may use; 0 for no limit");
        shown.set(i64::try_from(limit.unwrap_or(0)).unwrap_or(i64::MAX));
        let used = Account::ALL.map(|account| used.get_or_create(&[("use", account.name())]).clone());
        Self::with_gauges(limit, used)
    }

    /// A budget that nothing shows.
    #[cfg(test)]
    pub(crate) fn hidden(limit: Option<u64>) -> Arc<Self> {
        Self::with_gauges(limit, Default::default())
    }

    fn with_gauges(limit: Option<u64>, used: [Gauge; 7]) -> Arc<Self> {
        let pool = limit.map_or(UNLIMITED_POOL, |limit| limit / 32).clamp(CHUNK_MAX, UNLIMITED_POOL);
        let long_heads = |limit: u64| (limit / 64).max(LONG_HEAD);
        let set_aside = |limit: u64| MARGIN_MIN.max(limit / 8) + 2 * pool + long_heads(limit);
        Arc::new(Self {
            limit,
            shared: limit.map_or(u64::MAX, |limit| limit.saturating_sub(set_aside(limit))),
            used,
            chunks: Pool::new(pool),
            large_chunks_above: pool / 2,
            send_buffers: limit.map(|_| Pool::new(pool)),
            long_heads: Pool::new(limit.map_or(UNLIMITED, long_heads)),
            blocked: Blocked::default(),
        })
    }

    /// Takes memory if the account may have that much more.
    pub(crate) fn take(&self, account: Account, bytes: u64) -> Result<(), NoRoom> {
        self.take_below(self.ceiling(account), account, bytes).map_err(|_lacking| NoRoom)
    }

    /// Takes memory for a connection that is not there yet: a sixteenth is left for those that are.
    ///
    /// # Errors
    /// How much has to be given back before there is room.
    pub(crate) fn take_for_new(&self, bytes: u64) -> Result<(), u64> {
        self.take_below(self.shared / 16 * 15, Account::Connections, bytes)
    }

    /// Takes more for a connection, and for something that could do without it: an eighth is left for new ones and their answers.
    ///
    /// # Errors
    /// How much has to be given back before there is room.
    pub(crate) fn take_sparingly(&self, bytes: u64) -> Result<(), u64> {
        self.take_below(self.shared / 8 * 7, Account::Connections, bytes)
    }

    fn take_below(&self, ceiling: u64, account: Account, bytes: u64) -> Result<(), u64> {
        let lacking = self.total().saturating_add(bytes).saturating_sub(ceiling);
        if lacking > 0 {
            return Err(lacking);
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
        let mut share = Share::new(self, Account::Cache);
        share.grow(bytes.capacity() as u64 + extra)?;
        Ok(share.hold(bytes))
    }

    /// How much more is used than may be.
    pub(crate) fn excess(&self) -> u64 {
        self.total().saturating_sub(self.shared)
    }

    /// How much one generation of content may hold in memory, so that the next one has room beside it.
    pub(crate) fn cache_share(&self) -> u64 {
        self.shared / 8 * 3
    }

    /// The limit that operators can raise.
    pub(crate) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Where memory is not limited: how much a connection may have unsent in the kernel's send buffer; `None` for as much as the
    /// kernel likes. The more clients take less than they are sent, the less each may have.
    pub(crate) fn send_share(&self) -> Option<u64> {
        let clients = self.blocked.others() as u64;
        let share = (UNLIMITED_POOL / (clients + 1)).max(SEND_SHARE_MIN);
        (share < SEND_SHARE_UNLIMITED).then_some(share)
    }

    /// Says that one more client takes less than it is sent, for as long as the result lives.
    pub(crate) fn block(&self) -> Blocked {
        self.blocked.clone()
    }

    /// A connection's part of the kernel's send buffers, each packet's share of the kernel's own included. The more is left, the
    /// more; `None` where nothing is left, and where memory is not limited.
    pub(crate) fn try_lend_send_buffer(self: &Arc<Self>) -> Option<Room> {
        let pool = self.send_buffers.as_ref()?;
        let size = (pool.left() / 8).clamp(SEND_LEASE_MIN, SEND_LEASE_MAX);
        pool.try_lend(self, Account::SendBuffers, size)
    }

    /// Room for a head that is longer than a connection's buffer for heads, once there is some.
    pub(crate) async fn lend_long_head(self: Arc<Self>) -> Room {
        self.long_heads.lend(&self, Account::LongHeads, LONG_HEAD).await
    }

    /// As `/status` has it.
    pub(crate) fn status(&self) -> Value {
        let mut status = json!({"limit_bytes": self.limit});
        for (account, used) in Account::ALL.iter().zip(&self.used) {
            status[format!("{}_bytes", account.name())] = used.get().into();
        }
        status
    }

    fn total(&self) -> u64 {
        let shared = &self.used[..Account::Streams as usize];
        shared.iter().map(|used| u64::try_from(used.get()).unwrap_or(0)).sum()
    }

    /// How far the whole may be filled by this account. Content leaves room for connections.
    fn ceiling(&self, account: Account) -> u64 {
        match account {
            Account::Cache => self.shared / 8 * 5,
            Account::Index | Account::Manifest => self.shared / 8 * 7,
            Account::Connections | Account::Streams | Account::SendBuffers | Account::LongHeads => {
                self.shared
            }
        }
    }
}

/// What one thing has taken from an account, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    account: Account,
    size: u64,
}

impl Share {
    /// Of nothing yet.
    pub(crate) fn new(budget: &Arc<Budget>, account: Account) -> Self {
        Self { budget: Arc::clone(budget), account, size: 0 }
    }

    /// Takes more, if the account may have that.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), NoRoom> {
        self.budget.take(self.account, bytes)?;
        self.size += bytes;
        Ok(())
    }

    /// Takes more for a listing. A short one may take what new connections leave for those that are there, which other content may
    /// not, so that a directory can be listed however many connections rest.
    pub(crate) fn grow_listing(&mut self, bytes: u64) -> Result<(), NoRoom> {
        let is_short = self.size + bytes <= SHORT_LISTING;
        let ceiling = self.budget.ceiling(if is_short { Account::Connections } else { self.account });
        self.budget.take_below(ceiling, self.account, bytes).map_err(|_lacking| NoRoom)?;
        self.size += bytes;
        Ok(())
    }

    /// Gives a part back.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        self.budget.refund(self.account, bytes);
        self.size -= bytes;
    }

    /// Bytes that hold their share until the last that uses them lets go.
    pub(crate) fn hold(self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Body { bytes, _share: self })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.refund(self.account, self.size);
    }
}

/// A body in memory.
struct Body {
    bytes: Vec<u8>,
    _share: Share,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A client that takes less than it is sent: each is a clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Blocked(Arc<()>);

impl Blocked {
    fn others(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

/// Memory that is set aside, and lent in KiB.
#[derive(Debug, Clone)]
struct Pool(Arc<Semaphore>);

impl Pool {
    fn new(bytes: u64) -> Self {
        let permits = usize::try_from(bytes / 1024).unwrap_or(usize::MAX);
        Self(Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))))
    }

    fn left(&self) -> u64 {
        self.0.available_permits() as u64 * 1024
    }

    fn try_lend(&self, budget: &Arc<Budget>, account: Account, bytes: u64) -> Option<Room> {
        let permit = Arc::clone(&self.0).try_acquire_many_owned(Self::permits(bytes)).ok()?;
        Some(Room::new(budget, account, permit))
    }

    async fn lend(&self, budget: &Arc<Budget>, account: Account, bytes: u64) -> Room {
        match Arc::clone(&self.0).acquire_many_owned(Self::permits(bytes)).await {
            Ok(permit) => Room::new(budget, account, permit),
            // Nothing closes a semaphore here.
            Err(_closed) => std::future::pending().await,
        }
    }

    fn permits(bytes: u64) -> u32 {
        u32::try_from(bytes / 1024).unwrap_or(u32::MAX)
    }
}

/// What one connection's bodies are read into: small chunks of its own, so that no other connection can bring it to a halt,
/// and what the common pool has.
#[derive(Debug, Clone)]
pub(crate) struct ChunkBudget {
    budget: Arc<Budget>,
    own: Pool,
}

impl ChunkBudget {
    /// For a connection without bodies yet, with so many chunks of its own.
    pub(crate) fn new(budget: &Arc<Budget>, own: u64) -> Self {
        Self { budget: Arc::clone(budget), own: Pool::new(own * CHUNK_MIN) }
    }

    /// Room for a chunk, if there is some now: a large one while more than half of the pool is free, else the connection's own, or
    /// a small one.
    pub(crate) fn try_take(&self) -> Option<Room> {
        let pooled = |size| self.budget.chunks.try_lend(&self.budget, Account::Streams, size);
        let own = || self.own.try_lend(&self.budget, Account::Connections, CHUNK_MIN);
        let large = self.budget.chunks.left() > self.budget.large_chunks_above;
        large
            .then(|| pooled(CHUNK_MAX))
            .flatten()
            .or_else(|| own().filter(|_| self.leaves_room()))
            .or_else(|| pooled(CHUNK_MIN))
    }

    /// Room for a small chunk, once there is some.
    pub(crate) async fn take(self) -> Room {
        let own = async {
            loop {
                let room = self.own.lend(&self.budget, Account::Connections, CHUNK_MIN).await;
                if self.leaves_room() {
                    return room;
                }
                drop(room);
                sleep(ROOM_RETRY).await;
            }
        };
        tokio::select! {
            room = own => room,
            room = self.budget.chunks.lend(&self.budget, Account::Streams, CHUNK_MIN) => room,
        }
    }

    /// A chunk of one's own comes from what connections may take, but for an eighth, which is left for new ones and their answers.
    fn leaves_room(&self) -> bool {
        self.budget.total() <= self.budget.shared / 8 * 7
    }
}

/// Memory that was lent, until it is dropped: for a chunk, a long head, or what the kernel buffers.
#[derive(Debug)]
pub(crate) struct Room {
    budget: Arc<Budget>,
    account: Account,
    /// One for each KiB.
    permit: OwnedSemaphorePermit,
}

impl Room {
    fn new(budget: &Arc<Budget>, account: Account, permit: OwnedSemaphorePermit) -> Self {
        let room = Self { budget: Arc::clone(budget), account, permit };
        budget.charge(account, room.size());
        room
    }

    /// In bytes.
    pub(crate) fn size(&self) -> u64 {
        self.permit.num_permits() as u64 * 1024
    }

    /// Memory for a chunk of `length` bytes, with whatever in it: that of an earlier chunk, where there is one.
    pub(crate) fn buffer(&self, length: usize) -> Vec<u8> {
        let mut spare = match self.size() {
            CHUNK_MAX => SPARE.take(),
            _ => Vec::new(),
        };
        spare.resize(length, 0);
        spare
    }

    /// The chunk, which holds its room until the last of it was sent.
    pub(crate) fn fill(self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Chunk { bytes, room: self })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.refund(self.account, self.size());
    }
}

thread_local! {
    /// The memory of the large chunk that was sent last: the system takes as long to provide it as to copy a file into it.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

struct Chunk {
    bytes: Vec<u8>,
    room: Room,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.room.size() == CHUNK_MAX {
            SPARE.set(std::mem::take(&mut self.bytes));
        }
    }
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
    fn below_the_least_limit_no_connection_has_room() {
        let room = |limit: u64| Budget::hidden(Some(limit)).take_for_new(80 * 1024).is_ok();
        assert!(room(LEAST));
        assert!(!room(LEAST - MIB));
    }

    #[test]
    fn content_leaves_room_for_connections() {
        let budget = Budget::hidden(Some(64 * MIB));
        assert_eq!(budget.take(Account::Cache, 40 * MIB), Err(NoRoom));
        assert_eq!(budget.take(Account::Index, 42 * MIB), Ok(()));
        assert_eq!(budget.take(Account::Index, MIB), Err(NoRoom));
        assert_eq!(budget.take_for_new(3 * MIB), Ok(()));
        assert_eq!(budget.take_for_new(MIB), Err(64 * 1024));
        assert_eq!(budget.take(Account::Connections, 3 * MIB), Ok(()));
        assert_eq!(budget.take(Account::Connections, 2 * MIB), Err(NoRoom));
        budget.charge(Account::Connections, 10 * MIB);
        assert!(budget.excess() > 0);
        budget.refund(Account::Index, 42 * MIB);
        assert_eq!(budget.excess(), 0);
    }

    #[test]
    fn a_short_listing_has_room_where_connections_have_taken_all_that_new_ones_may() {
        let budget = Budget::hidden(Some(64 * MIB));
        while budget.take_for_new(16 * 1024).is_ok() {}
        let mut short = Share::new(&budget, Account::Cache);
        assert_eq!(short.grow(1), Err(NoRoom));
        while short.size < SHORT_LISTING {
            assert_eq!(short.grow_listing(1024), Ok(()));
        }
        assert_eq!(short.grow_listing(1), Err(NoRoom), "it has become a long one");
        assert_eq!(budget.excess(), 0);
    }

    #[test]
    fn a_connection_has_chunks_of_its_own_when_others_have_taken_the_pool() {
        let budget = Budget::hidden(Some(64 * MIB));
        let greedy = ChunkBudget::new(&budget, OWN_CHUNKS_HTTP2);
        let mut held = Vec::new();
        while let Some(room) = greedy.try_take() {
            held.push(room.fill(vec![0; 1]));
        }
        assert!(held.len() > 64, "{}", held.len());
        let modest = ChunkBudget::new(&budget, OWN_CHUNKS_HTTP2);
        let own = [modest.try_take(), modest.try_take()];
        assert!(
            own.iter().flatten().all(|room| room.size() == CHUNK_MIN) && own.iter().flatten().count() == 2
        );
        drop((own, held));
        assert_eq!(budget.total(), 0);
    }

    #[tokio::test]
    async fn a_connection_gets_its_own_chunk_once_there_is_memory_again() {
        let budget = Budget::hidden(Some(64 * MIB));
        let greedy = ChunkBudget::new(&budget, 0);
        let pool: Vec<_> = std::iter::from_fn(|| greedy.try_take()).collect();
        budget.charge(Account::Connections, budget.shared);
        let modest = ChunkBudget::new(&budget, OWN_CHUNKS_HTTP1);
        assert!(modest.try_take().is_none());
        let mut waiting = std::pin::pin!(tokio::time::timeout(Duration::from_secs(10), modest.take()));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        budget.refund(Account::Connections, budget.shared);
        assert_eq!(waiting.await.expect("it waits for the pool, which others keep").size(), CHUNK_MIN);
        drop(pool);
    }

    #[test]
    fn send_buffers_are_lent_from_what_is_set_aside_and_the_more_are_lent_the_smaller() {
        let budget = Budget::hidden(Some(64 * MIB));
        let leases: Vec<_> = std::iter::from_fn(|| budget.try_lend_send_buffer()).collect();
        assert_eq!(leases[0].size(), 2 * MIB / 8);
        assert!(leases.is_sorted_by(|one, next| one.size() >= next.size()));
        let lent: u64 = leases.iter().map(Room::size).sum();
        assert!(lent <= 2 * MIB && lent > MIB, "{lent}");
        assert_eq!(budget.used[Account::SendBuffers as usize].get(), signed(lent));
        assert_eq!(budget.total(), 0, "it is no part of what the others share");
        drop(leases);
        assert_eq!(budget.used[Account::SendBuffers as usize].get(), 0);
        assert!(Budget::hidden(None).try_lend_send_buffer().is_none());
    }

    #[test]
    fn without_a_limit_the_kernel_decides_until_many_clients_take_less_than_they_are_sent() {
        let budget = Budget::hidden(None);
        assert_eq!(budget.send_share(), None);
        let blocked: Vec<_> = (0..40_000).map(|_| budget.block()).collect();
        assert_eq!(budget.send_share(), Some(SEND_SHARE_MIN));
        drop(blocked);
        assert_eq!(budget.send_share(), None);
    }
}
