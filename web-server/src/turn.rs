//! Whose turn it is on a connection. HTTP knows, and the deadlines beneath it ([`crate::deadline`]) have to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// Whose turn it is, shared by a connection and its exchanges.
#[derive(Debug, Clone, Default)]
pub struct Turn(Arc<State>);

#[derive(Debug, Default)]
struct State {
    whose: AtomicU8,
    /// Requests that are not answered to the end. HTTP/1.1 has one at a time.
    open: AtomicUsize,
    /// Those of them whose bodies are on their way.
    sending: AtomicUsize,
    /// Moves whenever a body does.
    progress: AtomicU64,
    rested: AtomicBool,
}

/// What a connection is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The client has begun a request, or owes us its first.
    Head,
    /// We owe the client a response.
    Answer,
    /// The client has to take what is being sent; the number changes when it takes some.
    Taking(u64),
    /// Nobody owes anything.
    Idle,
}

const HEAD: u8 = 0;
const ANSWER: u8 = 1;
const IDLE: u8 = 2;

impl Turn {
    /// A request's head is complete.
    pub fn requested(&self) {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        self.0.whose.store(ANSWER, Ordering::Relaxed);
    }

    /// A response has a body, and it is on its way.
    pub fn sending(&self) {
        self.0.sending.fetch_add(1, Ordering::Relaxed);
    }

    /// A piece of a body was asked for, because there is room for it.
    pub fn moved(&self) {
        self.0.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// A body has come to its end.
    pub fn sent(&self) {
        self.0.sending.fetch_sub(1, Ordering::Relaxed);
        self.moved();
    }

    /// A response is complete.
    pub fn answered(&self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.whose.store(IDLE, Ordering::Relaxed);
        }
    }

    /// Bytes came from the client. Says whether they begin a request.
    pub fn received(&self) -> bool {
        self.0.whose.compare_exchange(IDLE, HEAD, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// What is waited for now.
    pub fn wait(&self) -> Wait {
        match self.0.whose.load(Ordering::Relaxed) {
            HEAD => Wait::Head,
            IDLE => Wait::Idle,
            _ if self.0.sending.load(Ordering::Relaxed) > 0 => {
                Wait::Taking(self.0.progress.load(Ordering::Relaxed))
            }
            _ => Wait::Answer,
        }
    }

    /// The connection has been idle for a while and holds nothing back.
    pub fn rest(&self) {
        self.0.rested.store(true, Ordering::Relaxed);
    }

    /// Whether it has, since this was last asked.
    pub fn take_rest(&self) -> bool {
        self.0.rested.swap(false, Ordering::Relaxed)
    }
}
