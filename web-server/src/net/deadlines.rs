//! How long a client may take: to send a request's head, to think of another request, and to take what is sent to it.
//!
//! One slow client costs little; ten thousand of them are an attack that needs no bandwidth. Each phase on a client has a deadline,
//! kept here, beneath HTTP, where all waiting is done. Waits on ourselves have none.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use lifecycle::Ignore as _;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::http::send_buffer::SendBuffer;
use crate::http::sendfile::SendfileQueue;
use crate::http::state::{ConnectionState, Phase};
use crate::memory::Room;
use crate::metrics::{Metrics, Overdue};
use crate::net::table::{PARKED, Slot};

/// A head that is longer makes HTTP's read buffer grow.
pub(crate) const READ_BUFFER: usize = 8 * 1024;
/// How long a connection idles before it is said to rest.
pub(crate) const PARK_AFTER: Duration = Duration::from_millis(200);

/// How long a connection that is over takes in what its client is still sending, how long the client may pause, and how much it
/// may send: enough for an upload that was refused, as nginx has it.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_SILENCE: Duration = Duration::from_secs(5);
/// How much longer it does so once the server ends, so that the drain does not wait for the client.
const LINGER_CLOSING: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024 * 1024;

/// The three deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadlines {
    /// From the first byte of a request's head, or from the start of a connection, to the head's last byte.
    pub(crate) header: Duration,
    /// From a response's end to the next request's first byte.
    pub(crate) idle: Duration,
    /// From when the client stops taking bytes to when it takes more.
    pub(crate) send: Duration,
}

/// Whether HTTP itself decides how much a client is sent at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlowControl {
    /// HTTP/1.1: a client that takes nothing shows in writes that do not go on.
    Tcp,
    /// HTTP/2: it shows in bodies that do not go on, while the connection looks well.
    Streams,
}

/// A connection with deadlines.
pub(crate) struct DeadlineStream {
    stream: TcpStream,
    deadlines: Deadlines,
    flow: FlowControl,
    metrics: Arc<Metrics>,
    state: ConnectionState,
    slot: Arc<Slot>,
    sendfile: SendfileQueue,
    buffer: SendBuffer,
    /// Bytes of the head that is being received.
    head: usize,
    long_head: LongHeadState,
    /// The client takes less than it is sent.
    blocked: bool,
    /// It has a deadline for the client's next request as soon as the last answer has gone out.
    idles_once_flushed: bool,
    linger: Option<Linger>,
    /// Read before, and not looked at yet.
    early: Bytes,
    reading: Timer,
    sending: Timer,
}

impl DeadlineStream {
    /// Begins with the client's first request, which is awaited since `opened`.
    pub(crate) fn new(
        stream: TcpStream,
        opened: Instant,
        deadlines: Deadlines,
        flow: FlowControl,
        metrics: Arc<Metrics>,
        slot: Arc<Slot>,
        sendfile: SendfileQueue,
    ) -> Self {
        let reading = Timer::since(opened, Phase::Head, deadlines.header);
        Self {
            stream,
            deadlines,
            flow,
            metrics,
            state: slot.state().clone(),
            buffer: SendBuffer::new(slot.budget()),
            slot,
            sendfile,
            head: 0,
            long_head: LongHeadState::None,
            blocked: false,
            idles_once_flushed: false,
            linger: None,
            early: Bytes::new(),
            reading,
            sending: Timer::default(),
        }
    }

    /// The connection itself.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The connection's place among the others.
    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Takes what was given back and HTTP has not read again yet.
    pub(crate) fn take_early(&mut self) -> Bytes {
        self.slot.release_held();
        std::mem::take(&mut self.early)
    }

    /// Gives back what was read and not looked at. Room for it, where it is long, was taken before.
    pub(crate) fn return_early(&mut self, early: Bytes) {
        self.head = early.len();
        self.early = early;
    }

    /// The connection rests: gives back what it needs no more, which is all but what a resting connection takes.
    pub(crate) fn rest(&mut self) {
        self.buffer.give_back(&self.stream);
        self.long_head = LongHeadState::None;
        self.head = 0;
        (self.reading, self.sending) = Default::default();
        self.slot.shrink_to(PARKED);
    }

    /// Memory for a head that is longer than the read buffer was taken already.
    pub(crate) fn expect_long_head(&mut self, room: Room) {
        self.long_head = LongHeadState::Taken(room);
    }

    /// Ends a connection of which HTTP has left something unread that it did not know of: what follows the last request that was
    /// answered, or what was no request.
    pub(crate) async fn end_unread(&mut self) {
        if !self.state.is_unread() {
            self.state.leave_unread();
            // Nothing that comes is a request any more, so that the connection may be closed for others.
            self.state.listened();
            self.rest();
            // It is over, however it ends.
            self.shutdown().await.ignore();
        }
    }

    /// Counts a connection that idled for too long.
    pub(crate) fn idled(&self) {
        self.metrics.overdue(Overdue::Idle);
    }

    fn poll_read_deadline(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let phase = self.state.phase();
        let (limit, overdue) = match (phase, self.flow) {
            (Phase::Head, _) => (self.deadlines.header, Overdue::Header),
            // A short idle is over soon, and nothing is gained by resting.
            (Phase::Idle, FlowControl::Tcp)
                if self.state.is_flushed() && self.deadlines.idle > PARK_AFTER =>
            {
                if self.slot.is_crowded() || self.reading.poll(phase, PARK_AFTER, context).is_ready() {
                    self.state.set_parked();
                }
                return Poll::Pending;
            }
            // The end of an answer is on its way, which has a deadline of its own.
            (Phase::Idle, FlowControl::Tcp) if !self.state.is_flushed() => {
                self.reading.stop();
                self.idles_once_flushed = true;
                return Poll::Pending;
            }
            (Phase::Idle, _) => (self.deadlines.idle, Overdue::Idle),
            (Phase::Sending(_), FlowControl::Streams) => (self.deadlines.send, Overdue::Send),
            (Phase::Answer | Phase::Sending(_), _) => {
                self.reading.stop();
                return Poll::Pending;
            }
        };
        if self.reading.poll(phase, limit, context).is_pending() {
            return Poll::Pending;
        }
        self.metrics.overdue(overdue);
        if phase == Phase::Idle {
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
        self.state.set_flushed(false);
        let reading = written.is_pending() && self.sendfile.is_reading();
        self.state.set_reading(reading);
        if reading {
            self.sending.stop();
            return Poll::Pending;
        }
        if let Poll::Ready(result) = &written {
            self.sending.stop();
            if self.blocked {
                self.state.taken(*result.as_ref().unwrap_or(&0));
            }
            return written;
        }
        self.blocked = true;
        self.buffer.block();
        if self.sending.poll(Phase::Answer, self.deadlines.send, context).is_pending() {
            return Poll::Pending;
        }
        self.metrics.overdue(Overdue::Send);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for DeadlineStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.has_remaining() && self.state.received() {
            // It begins a request, whose head has a deadline, also while it waits for room.
            self.reading.stop();
        }
        if let LongHeadState::NoRoom(room) = &mut self.long_head {
            match room.as_mut().poll(context) {
                Poll::Ready(room) => self.long_head = LongHeadState::Taken(room),
                Poll::Pending => return self.poll_read_deadline(context),
            }
        }
        if self.early.has_remaining() {
            let length = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early.split_to(length));
            if self.early.is_empty() {
                // All of a request that was held is in HTTP's buffer now.
                self.slot.release_held();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let mut read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_pending() && self.state.is_closing() {
            read = read_unannounced(&self.stream, buffer);
        }
        if read.is_pending() {
            self.state.listened();
            return self.poll_read_deadline(context);
        }
        if self.state.received() {
            // This head has a deadline of its own, not what was left of an earlier one's.
            self.reading.stop();
            if self.head > 0 {
                self.long_head = LongHeadState::None;
            }
            self.head = 0;
        }
        if self.flow == FlowControl::Tcp {
            let length = buffer.filled().len() - before;
            let grown = self.head <= READ_BUFFER && self.head + length > READ_BUFFER;
            self.head += length;
            if grown && !matches!(self.long_head, LongHeadState::Taken(_)) {
                let room = Arc::clone(self.slot.budget()).lend_long_head();
                self.long_head = LongHeadState::NoRoom(Box::pin(room));
            }
        }
        read
    }
}

/// Reads what the kernel has and the event loop was not told of yet: the last look before a connection is closed.
fn read_unannounced(stream: &TcpStream, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    match recv(stream, buffer.initialize_unfilled(), RecvFlags::DONTWAIT) {
        Ok((read, _)) => {
            buffer.advance(read);
            Poll::Ready(Ok(()))
        }
        Err(Errno::AGAIN | Errno::INTR) => Poll::Pending,
        Err(error) => Poll::Ready(Err(error.into())),
    }
}

/// Whether the client has sent something that was not read, event loop or not.
pub(crate) fn has_unread(stream: &TcpStream) -> bool {
    recv(stream, &mut [0], RecvFlags::DONTWAIT | RecvFlags::PEEK).is_ok_and(|(read, _)| read > 0)
}

impl AsyncWrite for DeadlineStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = this.sendfile.poll_write(&this.stream, context, slices, &mut this.buffer);
        self.paced_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// HTTP calls this when it has no more bytes to write.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.set_flushed(true);
        if std::mem::take(&mut self.idles_once_flushed) {
            context.waker().wake_by_ref();
        }
        self.blocked = false;
        self.buffer.flushed();
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Ends the connection so that the client gets the answer also where it was still sending (RFC 9112 section 9.6): a socket
    /// that is closed with bytes unread resets the connection, and what the client has not read yet is lost. So the write half is
    /// closed first, and what comes is read and thrown away, for a while.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            if !this.state.is_unread() {
                return Poll::Ready(Ok(()));
            }
        }
        let linger = this.linger.get_or_insert_with(Linger::begin);
        if this.state.is_closing() {
            linger.hurry();
        }
        linger.poll(&mut this.stream, context).map(Ok)
    }
}

/// Memory for a head that is longer than the read buffer.
enum LongHeadState {
    /// It is not.
    None,
    /// Other heads have all that there is. Nothing more is read until then.
    NoRoom(Pin<Box<dyn Future<Output = Room> + Send + Sync>>),
    Taken(#[expect(dead_code, reason = "held until the head is over")] Room),
}

/// What is still taken in on a connection that is over.
#[derive(Debug)]
struct Linger {
    over: Pin<Box<Sleep>>,
    silent: Pin<Box<Sleep>>,
    left: usize,
    hurried: bool,
}

impl Linger {
    fn begin() -> Self {
        Self {
            over: Box::pin(sleep(LINGER)),
            silent: Box::pin(sleep(LINGER_SILENCE)),
            left: LINGER_BYTES,
            hurried: false,
        }
    }

    /// Ends soon.
    fn hurry(&mut self) {
        if !std::mem::replace(&mut self.hurried, true) {
            let soon = self.over.deadline().min(Instant::now() + LINGER_CLOSING);
            self.over.as_mut().reset(soon);
        }
    }

    fn poll(&mut self, stream: &mut TcpStream, context: &mut Context<'_>) -> Poll<()> {
        let mut thrown_away = [0; 8 * 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut thrown_away);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.left = self.left.saturating_sub(buffer.filled().len());
                    self.silent.as_mut().reset(Instant::now() + LINGER_SILENCE);
                    if self.left == 0 {
                        return Poll::Ready(());
                    }
                }
                // The client has closed its half, or is gone.
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        let over =
            self.over.as_mut().poll(context).is_ready() || self.silent.as_mut().poll(context).is_ready();
        if over { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Runs from the first time that something is waited for, for as long as it is the same thing.
///
/// Most waits end long before their time. So the alarm of an earlier phase stays set, and only when it rings is it looked at
/// what it should be set to: a request costs a look at the clock, and not a timer made and removed.
#[derive(Debug, Default)]
struct Timer {
    due: Option<(Phase, Instant)>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    fn since(begin: Instant, phase: Phase, limit: Duration) -> Self {
        Self { due: Some((phase, begin + limit)), alarm: None }
    }

    fn poll(&mut self, phase: Phase, limit: Duration, context: &mut Context<'_>) -> Poll<()> {
        let due = match self.due {
            Some((known, due)) if known == phase => due,
            _ => Instant::now() + limit,
        };
        self.due = Some((phase, due));
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net;

    use super::*;

    async fn connected() -> (TcpStream, net::TcpStream) {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (ours, listener.accept().unwrap().0)
    }

    /// Sends until the connection is gone, and says how much that was.
    fn keep_sending(mut client: net::TcpStream, pause: Duration) -> std::thread::JoinHandle<usize> {
        std::thread::spawn(move || {
            let mut sent = 0;
            while client.write_all(&[0; 4096]).is_ok() {
                sent += 4096;
                std::thread::sleep(pause);
            }
            sent
        })
    }

    /// One bound at a time, with the other two out of reach.
    #[tokio::test]
    async fn what_a_client_still_sends_is_taken_in_within_bounds() {
        const SOON: Duration = Duration::from_millis(100);
        let bounded = |over, silent, left| Linger {
            over: Box::pin(sleep(over)),
            silent: Box::pin(sleep(silent)),
            left,
            hurried: false,
        };
        let drained = async |mut linger: Linger, mut stream: TcpStream| {
            std::future::poll_fn(|context| linger.poll(&mut stream, context)).await;
        };
        let (stream, client) = connected().await;
        let sent = keep_sending(client, Duration::ZERO);
        drained(bounded(LINGER, LINGER_SILENCE, LINGER_BYTES / 16), stream).await;
        assert!(sent.join().unwrap() >= LINGER_BYTES / 16);
        // One that is never silent for long.
        let (stream, client) = connected().await;
        let sent = keep_sending(client, SOON / 20);
        drained(bounded(SOON, LINGER_SILENCE, LINGER_BYTES), stream).await;
        sent.join().unwrap();
        // One that says nothing, and one that closes.
        let (stream, _client) = connected().await;
        drained(bounded(LINGER, SOON, LINGER_BYTES), stream).await;
        let (stream, client) = connected().await;
        drop(client);
        drained(bounded(LINGER, LINGER_SILENCE, LINGER_BYTES), stream).await;
        // One that says nothing for long enough, but the server ends.
        let (stream, _client) = connected().await;
        let mut hurried = bounded(LINGER, LINGER, LINGER_BYTES);
        hurried.hurry();
        assert!(hurried.over.deadline() <= Instant::now() + LINGER_CLOSING);
        drained(hurried, stream).await;
    }
}
