//! How long a client may take: to send a request's head, to think of another request, and to take what is sent to it.
//!
//! One slow client costs little; ten thousand of them are an attack that needs no bandwidth. Each wait on a client has a deadline,
//! kept here, beneath HTTP, where all waiting is done. Waits on ourselves have none.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::metrics::{Metrics, Overdue};
use crate::outbox::Outbox;
use crate::turn::{Turn, Wait};

/// How long a connection idles before it is said to rest.
pub const REST: Duration = Duration::from_millis(200);

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

/// Whether HTTP itself decides how much a client is sent at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowControl {
    /// HTTP/1.1: a client that takes nothing shows in writes that do not go on.
    Tcp,
    /// HTTP/2: it shows in bodies that do not go on, while the connection looks well.
    Streams,
}

/// A connection with deadlines.
#[derive(Debug)]
pub struct Paced {
    stream: TcpStream,
    deadlines: Deadlines,
    flow: FlowControl,
    metrics: Arc<Metrics>,
    turn: Turn,
    outbox: Outbox,
    /// Read before, and not looked at yet.
    early: Bytes,
    /// Whether all that was written has gone out.
    flushed: bool,
    reading: Timer,
    sending: Timer,
}

impl Paced {
    /// Begins with the client's first request, which is awaited since `opened`.
    pub fn new(
        stream: TcpStream,
        opened: Instant,
        deadlines: Deadlines,
        flow: FlowControl,
        metrics: Arc<Metrics>,
        turn: Turn,
        outbox: Outbox,
    ) -> Self {
        let reading = Timer::since(opened, Wait::Head, deadlines.header);
        Self {
            stream,
            deadlines,
            flow,
            metrics,
            turn,
            outbox,
            early: Bytes::new(),
            flushed: true,
            reading,
            sending: Timer::default(),
        }
    }

    /// The connection itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Gives back what was read and not looked at.
    #[must_use]
    pub fn with_early(self, early: Bytes) -> Self {
        Self { early, ..self }
    }

    /// Counts a connection that idled for too long.
    pub fn idled(&self) {
        self.metrics.overdue(Overdue::Idle);
    }

    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wait = self.turn.wait();
        let (patience, overdue) = match (wait, self.flow) {
            (Wait::Head, _) => (self.deadlines.header, Overdue::Header),
            // A short idle is over soon, and nothing is gained by resting.
            (Wait::Idle, FlowControl::Tcp) if self.flushed && self.deadlines.idle > REST => {
                if self.reading.poll(wait, REST, context).is_ready() {
                    self.turn.rest();
                }
                return Poll::Pending;
            }
            (Wait::Idle, _) => (self.deadlines.idle, Overdue::Idle),
            (Wait::Taking(_), FlowControl::Streams) => (self.deadlines.send, Overdue::Send),
            (Wait::Answer | Wait::Taking(_), _) => {
                self.reading.stop();
                return Poll::Pending;
            }
        };
        if self.reading.poll(wait, patience, context).is_pending() {
            return Poll::Pending;
        }
        self.metrics.overdue(overdue);
        if wait == Wait::Idle {
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
        self.flushed = false;
        if written.is_ready() {
            self.sending.stop();
            return written;
        }
        if self.sending.poll(Wait::Answer, self.deadlines.send, context).is_pending() {
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
        if self.early.has_remaining() {
            let length = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_pending() {
            return self.poll_patience(context);
        }
        if self.turn.received() {
            // This head has a deadline of its own, not what was left of an earlier one's.
            self.reading.stop();
        }
        read
    }
}

impl AsyncWrite for Paced {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = this.outbox.poll_write(&this.stream, context, slices);
        self.paced_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// HTTP calls this when it has no more bytes to write.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushed = true;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Runs from the first time that something is waited for, for as long as it is the same thing.
///
/// Most waits end long before their time. So the alarm of an earlier wait stays set, and only when it rings is it looked at
/// what it should be set to: a request costs a look at the clock, and not a timer made and removed.
#[derive(Debug, Default)]
struct Timer {
    due: Option<(Wait, Instant)>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    fn since(begin: Instant, wait: Wait, patience: Duration) -> Self {
        Self { due: Some((wait, begin + patience)), alarm: None }
    }

    fn poll(&mut self, wait: Wait, patience: Duration, context: &mut Context<'_>) -> Poll<()> {
        let due = match self.due {
            Some((known, due)) if known == wait => due,
            _ => Instant::now() + patience,
        };
        self.due = Some((wait, due));
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if alarm.deadline() > due {
            alarm.as_mut().reset(due);
        }
        while alarm.as_mut().poll(context).is_ready() {
            if alarm.deadline() >= due {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(due);
        }
        Poll::Pending
    }

    fn stop(&mut self) {
        self.due = None;
    }
}
