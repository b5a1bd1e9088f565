//! What a connection is waiting for. HTTP knows, and the deadlines beneath it, and the table of connections, have to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// More than the receive window of a client that reads nothing: systems begin with 64 to 256 KiB, and let it grow with what is read.
const WINDOW_MAX: usize = 512 * 1024;

/// The state of a connection, shared by the connection and its exchanges.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectionState(Arc<State>);

#[derive(Debug)]
struct State {
    /// The client has begun no other request since the last was answered.
    idle: AtomicBool,
    /// Requests that are not answered to the end. HTTP/1.1 has one at a time.
    open: AtomicUsize,
    /// Those of them whose bodies wait for the client to take what there is.
    sending: AtomicUsize,
    /// Incremented for every body frame; a change means that the client is still reading.
    progress: AtomicU64,
    /// When the client last did what was expected of it, as a [`Moment`].
    heard: AtomicU64,
    /// Nothing was read yet, but something may have come already.
    unheard: AtomicBool,
    /// Not all that HTTP has written has gone out, although it may have come to the end of the answer.
    unflushed: AtomicBool,
    /// A part of a file is being read for it, which HTTP takes for written.
    reading: AtomicBool,
    /// Bytes that the client took after there had been no room for more.
    taken: AtomicUsize,
    parked: AtomicBool,
    unread: AtomicBool,
    closing: AtomicBool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            idle: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            sending: AtomicUsize::new(0),
            progress: AtomicU64::new(0),
            heard: AtomicU64::new(Moment::now().0),
            unheard: AtomicBool::new(true),
            unflushed: AtomicBool::new(false),
            reading: AtomicBool::new(false),
            taken: AtomicUsize::new(0),
            parked: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        }
    }
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
    /// Neither side owes anything.
    Idle,
}

/// How long a client has been silent, by what it could be doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// It has asked for nothing, or not finished asking.
    Since(Moment),
    /// It is sent a body, of which it took something then.
    Sending(Moment),
    /// It waits for us, or may do so.
    Answering,
}

/// A point in time to a few milliseconds, at the price of no system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    /// Now.
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        let milliseconds = now.tv_sec * 1000 + now.tv_nsec / 1_000_000;
        Self(u64::try_from(milliseconds).unwrap_or(0))
    }

    /// How long it has been since.
    pub(crate) fn elapsed(self) -> Duration {
        Self::now().since(self)
    }

    /// How much later this is; nothing where it is earlier.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl ConnectionState {
    /// A request's head is complete.
    pub(crate) fn requested(&self) {
        self.listened();
        self.0.open.fetch_add(1, Ordering::Relaxed);
        self.0.idle.store(false, Ordering::Relaxed);
    }

    /// There is something of a body for the client to take.
    pub(crate) fn sending(&self) {
        self.0.sending.fetch_add(1, Ordering::Relaxed);
    }

    /// A piece of a body was asked for, because there is room for it.
    pub(crate) fn body_progressed(&self) {
        self.0.progress.fetch_add(1, Ordering::Relaxed);
        self.heard();
    }

    /// The client has taken all that there is of a body: it is at its end, or the next piece is ours to find.
    pub(crate) fn sent(&self) {
        self.0.sending.fetch_sub(1, Ordering::Relaxed);
        self.0.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// A response is complete.
    pub(crate) fn answered(&self) {
        self.heard();
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle.store(true, Ordering::Relaxed);
        }
    }

    /// Bytes came from the client. Says whether they begin a request.
    pub(crate) fn received(&self) -> bool {
        let begins = self.0.idle.swap(false, Ordering::Relaxed);
        if begins {
            // Not with each byte: a head that trickles in is as good as silence.
            self.heard();
        }
        begins
    }

    /// The client did what was expected of it.
    fn heard(&self) {
        self.0.heard.store(Moment::now().0, Ordering::Relaxed);
    }

    /// The client took so many bytes, after there had been no room for more.
    pub(crate) fn taken(&self, bytes: usize) {
        self.heard();
        self.0.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether the client has taken more than fits into its receive window, and so reads what it is sent.
    pub(crate) fn is_reader(&self) -> bool {
        self.0.taken.load(Ordering::Relaxed) > WINDOW_MAX
    }

    /// Whether a part of a file is being read before more of it can be sent.
    pub(crate) fn set_reading(&self, reading: bool) {
        if self.0.reading.load(Ordering::Relaxed) != reading {
            self.0.reading.store(reading, Ordering::Relaxed);
            self.heard();
        }
    }

    /// Whether all that HTTP has written has gone out.
    pub(crate) fn is_flushed(&self) -> bool {
        !self.0.unflushed.load(Ordering::Relaxed)
    }

    /// Says so.
    pub(crate) fn set_flushed(&self, flushed: bool) {
        self.0.unflushed.store(!flushed, Ordering::Relaxed);
    }

    /// What is waited for now.
    pub(crate) fn phase(&self) -> Phase {
        if self.0.idle.load(Ordering::Relaxed) {
            Phase::Idle
        } else if self.0.open.load(Ordering::Relaxed) == 0 {
            Phase::Head
        } else if self.0.sending.load(Ordering::Relaxed) > 0 {
            Phase::Sending(self.0.progress.load(Ordering::Relaxed))
        } else {
            Phase::Answer
        }
    }

    /// All that came was read, so that it is the client who has to say something.
    pub(crate) fn listened(&self) {
        if self.0.unheard.load(Ordering::Relaxed) {
            self.0.unheard.store(false, Ordering::Relaxed);
        }
    }

    /// Something came, or may have, and will be read.
    pub(crate) fn woken(&self) {
        self.0.unheard.store(true, Ordering::Relaxed);
    }

    /// How long the client has been silent.
    pub(crate) fn silence(&self) -> Silence {
        if self.0.unheard.load(Ordering::Relaxed) || self.0.reading.load(Ordering::Relaxed) {
            return Silence::Answering;
        }
        let heard = Moment(self.0.heard.load(Ordering::Relaxed));
        match self.phase() {
            Phase::Head | Phase::Idle if self.is_flushed() => Silence::Since(heard),
            // The end of an answer is on its way.
            Phase::Head | Phase::Idle => Silence::Sending(heard),
            // Where several requests are being answered, one of them may not have had a word yet.
            Phase::Sending(_)
                if self.0.sending.load(Ordering::Relaxed) == self.0.open.load(Ordering::Relaxed) =>
            {
                Silence::Sending(heard)
            }
            Phase::Sending(_) | Phase::Answer => Silence::Answering,
        }
    }

    /// A request was answered without its body having been read.
    pub(crate) fn leave_unread(&self) {
        self.0.unread.store(true, Ordering::Relaxed);
    }

    /// Whether the client may still be sending what nothing will read.
    pub(crate) fn is_unread(&self) -> bool {
        self.0.unread.load(Ordering::Relaxed)
    }

    /// The connection is about to be closed, unless a request has come.
    pub(crate) fn set_closing(&self) {
        self.0.closing.store(true, Ordering::Relaxed);
    }

    /// Whether it is.
    pub(crate) fn is_closing(&self) -> bool {
        self.0.closing.load(Ordering::Relaxed)
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
