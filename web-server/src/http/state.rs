//! Whose turn it is on a connection. HTTP knows, and the deadlines beneath it ([`crate::net::deadlines`]) have to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// Whose turn it is, shared by a connection and its exchanges.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectionState(Arc<State>);

#[derive(Debug, Default)]
struct State {
    phase: AtomicU8,
    /// Requests that are not answered to the end. HTTP/1.1 has one at a time.
    open: AtomicUsize,
    /// Those of them phase bodies are on their way.
    sending: AtomicUsize,
    /// Moves whenever a body does.
    progress: AtomicU64,
    parked: AtomicBool,
}

/// What a connection is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The client has begun a request, or owes us its first.
    Head,
    /// We owe the client a response.
    Answer,
    /// The client has to take what is being sent; the number changes when it takes some.
    Sending(u64),
    /// Nobody owes anything.
    Idle,
}

const HEAD: u8 = 0;
const ANSWER: u8 = 1;
const IDLE: u8 = 2;

impl ConnectionState {
    /// A request's head is complete.
    pub(crate) fn requested(&self) {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        self.0.phase.store(ANSWER, Ordering::Relaxed);
    }

    /// A response has a body, and it is on its way.
    pub(crate) fn sending(&self) {
        self.0.sending.fetch_add(1, Ordering::Relaxed);
    }

    /// A piece of a body was asked for, because there is room for it.
    pub(crate) fn body_progressed(&self) {
        self.0.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// A body has come to its end.
    pub(crate) fn sent(&self) {
        self.0.sending.fetch_sub(1, Ordering::Relaxed);
        self.body_progressed();
    }

    /// A response is complete.
    pub(crate) fn answered(&self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.phase.store(IDLE, Ordering::Relaxed);
        }
    }

    /// Bytes came from the client. Says whether they begin a request.
    pub(crate) fn received(&self) -> bool {
        self.0.phase.compare_exchange(IDLE, HEAD, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// What is waited for now.
    pub(crate) fn phase(&self) -> Phase {
        match self.0.phase.load(Ordering::Relaxed) {
            HEAD => Phase::Head,
            IDLE => Phase::Idle,
            _ if self.0.sending.load(Ordering::Relaxed) > 0 => {
                Phase::Sending(self.0.progress.load(Ordering::Relaxed))
            }
            _ => Phase::Answer,
        }
    }

    /// The connection has been idle for a while and holds nothing back.
    pub(crate) fn set_parked(&self) {
        self.0.parked.store(true, Ordering::Relaxed);
    }

    /// Whether it has, since this was last asked.
    pub(crate) fn take_parked(&self) -> bool {
        self.0.parked.swap(false, Ordering::Relaxed)
    }
}
