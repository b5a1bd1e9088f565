//! How long a client may take: to send a request's head, to think of another request, and to take what is sent to it.
//!
//! One slow client costs little; ten thousand of them are an attack that needs no bandwidth. Each wait on a client has a deadline,
//! kept here, beneath HTTP, where all waiting is done. Waits on ourselves have none.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use crate::metrics::{Metrics, Overdue};

/// The three deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// From the first byte of a request's head, or from the start of a connection, to the head's last byte.
    pub header: Duration,
    /// From a response's end to the next request's first byte.
    pub idle: Duration,
    /// From when the client stops taking bytes to when it takes more.
    pub send: Duration,
}

/// Whose turn it is on a connection. HTTP knows, and the deadlines have to.
#[derive(Debug, Clone)]
pub struct Turn(Arc<AtomicU8>);

/// The client has begun a request, or owes us its first.
const HEAD: u8 = 0;
/// We owe the client a response.
const ANSWER: u8 = 1;
/// Nobody owes anything.
const IDLE: u8 = 2;

impl Turn {
    fn new() -> Self {
        Self(Arc::new(AtomicU8::new(HEAD)))
    }

    /// A request's head is complete.
    pub fn requested(&self) {
        self.0.store(ANSWER, Ordering::Relaxed);
    }

    /// A response is complete.
    pub fn answered(&self) {
        self.0.store(IDLE, Ordering::Relaxed);
    }
}

/// A connection with deadlines.
#[derive(Debug)]
pub struct Paced {
    stream: TcpStream,
    deadlines: Deadlines,
    metrics: Arc<Metrics>,
    turn: Turn,
    reading: Timer,
    sending: Timer,
}

impl Paced {
    /// Begins with the client's first request.
    pub fn new(stream: TcpStream, deadlines: Deadlines, metrics: Arc<Metrics>) -> (Self, Turn) {
        let turn = Turn::new();
        let paced = Self {
            stream,
            deadlines,
            metrics,
            turn: turn.clone(),
            reading: Timer::default(),
            sending: Timer::default(),
        };
        (paced, turn)
    }

    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let turn = self.turn.0.load(Ordering::Relaxed);
        let (patience, overdue) = match turn {
            HEAD => (self.deadlines.header, Overdue::Header),
            IDLE => (self.deadlines.idle, Overdue::Idle),
            _ => {
                self.reading.stop();
                return Poll::Pending;
            }
        };
        if self.reading.poll(turn, patience, context).is_pending() {
            return Poll::Pending;
        }
        self.metrics.overdue(overdue);
        if turn == IDLE {
            // As if the client had closed: an end that both sides expect.
            Poll::Ready(Ok(()))
        } else {
            Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
        }
    }

    fn paced_write(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.sending.stop();
            return written;
        }
        if self.sending.poll(ANSWER, self.deadlines.send, context).is_pending() {
            return Poll::Pending;
        }
        self.metrics.overdue(Overdue::Send);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_pending() {
            return self.poll_patience(context);
        }
        if self.turn.0.load(Ordering::Relaxed) == IDLE {
            self.turn.0.store(HEAD, Ordering::Relaxed);
            // This head has a deadline of its own, not what was left of an earlier one's.
            self.reading.stop();
        }
        read
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.paced_write(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.paced_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Runs from the first time that something is waited for, for as long as it is the same thing.
#[derive(Debug, Default)]
struct Timer {
    running: Option<(u8, Pin<Box<Sleep>>)>,
}

impl Timer {
    fn poll(&mut self, what: u8, patience: Duration, context: &mut Context<'_>) -> Poll<()> {
        let (known, sleep) = self.running.get_or_insert_with(|| (what, Box::pin(sleep(patience))));
        if *known != what {
            *known = what;
            sleep.as_mut().reset(Instant::now() + patience);
        }
        sleep.as_mut().poll(context)
    }

    fn stop(&mut self) {
        self.running = None;
    }
}
