//! One connection, from its first byte to its end: which HTTP it speaks, and its requests one after another.
//!
//! A client that keeps its connection costs memory for as long as it says nothing. After a moment of silence HTTP's state and
//! buffers are given back, and the connection *rests*: a socket and a timer, until it has something to say.

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::Either;
use http::header::RETRY_AFTER;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lifecycle::Ignore as _;
use memchr::memmem;
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::content::editions::{Waited, Waiter};
use crate::http::body::Payload;
use crate::http::exchange::{ConnectionInfo, Exchange, ResponseBody, Telemetry};
use crate::http::parking::{Held, Parking};
use crate::http::sendfile::SendfileQueue;
use crate::memory::{Budget, ChunkBudget, NoRoom, OWN_CHUNKS_HTTP1, OWN_CHUNKS_HTTP2, Room};
use crate::metrics::Overdue;
use crate::net::deadlines::{DeadlineStream, Deadlines, FlowControl, PARK_AFTER, READ_BUFFER, has_unread};
use crate::net::heads::{self, Charged};
use crate::net::table::{HTTP1, HTTP2, PARKED, STREAM, Slot};
use crate::routes::Routes;
use crate::routes::manifest::PREFER;

/// Request line and headers together, roughly: it is looked at when the read buffer is full. No browser comes near it.
const HEAD_MAX: u32 = 32 * 1024;
/// Requests of one HTTP/2 connection that are answered at once; more wait.
const STREAMS_MAX: u32 = 64;
/// What one of them may have buffered before it is asked for more. The frames themselves are chunks from the budget.
const STREAM_BUFFER: usize = 16 * 1024;
/// So much of a head is looked at before HTTP reads it. Of a head of which half as much has come, and not its end, the kernel may
/// have no room for the rest.
const HEAD_PEEK: usize = 4 * 1024;
/// What an HTTP/2 client that knows what it talks to begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection needs of its server.
#[derive(Debug)]
pub(crate) struct ServerContext {
    /// Who answers.
    pub(crate) routes: Arc<Routes>,
    /// Where it is accounted for.
    pub(crate) telemetry: Arc<Telemetry>,
    /// How long the client may take.
    pub(crate) deadlines: Deadlines,
    /// What it may hold.
    pub(crate) budget: Arc<Budget>,
    /// Cancelled when idle connections have to go.
    pub(crate) closing: CancellationToken,
    /// HTTP/2 answers each request in a task of its own.
    pub(crate) streams: TaskTracker,
}

/// Talks with a client until one of the two has had enough.
pub(crate) async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    slot: Slot,
    context: Arc<ServerContext>,
) {
    let opened = Instant::now();
    let start = {
        let mut start = pin!(timeout(context.deadlines.header, Start::of(&stream, &slot)));
        tokio::select! {
            biased;
            start = &mut start => start,
            () = context.closing.cancelled() => {
                if !has_unread(&stream) {
                    return;
                }
                start.await
            }
        }
    };
    let ended = match start {
        Ok(Ok(Start::Http1(long_head))) => http1(stream, opened, peer, slot, long_head, context).await,
        Ok(Ok(Start::Http2)) => Box::pin(http2(stream, opened, peer, slot, context)).await,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "the connection is gone already");
            return;
        }
        Err(_elapsed) => {
            context.telemetry.metrics.overdue(Overdue::Header);
            return;
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended early");
    }
}

/// How a connection begins, or goes on after a rest. As long as a head is not complete it stays in the kernel, which has less of
/// it than HTTP would: many clients that never finish theirs cost little.
enum Start {
    /// A head, and room for it where it is a long one.
    Http1(Option<Room>),
    Http2,
}

impl Start {
    /// Waits for the first bytes, and leaves them where they are.
    async fn of(stream: &TcpStream, slot: &Slot) -> io::Result<Self> {
        loop {
            let seen = poll_fn(|context| {
                let mut start = [MaybeUninit::uninit(); HEAD_PEEK];
                let mut start = ReadBuf::uninit(&mut start);
                match stream.poll_peek(context, &mut start) {
                    Poll::Ready(peeked) => Poll::Ready(peeked.map(|_| Seen::of(start.filled()))),
                    Poll::Pending => {
                        slot.state().listened();
                        Poll::Pending
                    }
                }
            })
            .await?;
            match seen {
                Seen::Complete => {
                    slot.grow_to(HTTP1).await;
                    return Ok(Self::Http1(None));
                }
                Seen::Preface => return Ok(Self::Http2),
                Seen::Long => {
                    // It takes no more than a connection that rests until it is its turn.
                    slot.shrink_to(PARKED);
                    slot.state().listened();
                    let room = Box::pin(Arc::clone(slot.budget()).lend_long_head()).await;
                    slot.grow_to(HTTP1).await;
                    return Ok(Self::Http1(Some(room)));
                }
                Seen::Part => {}
            }
            slot.shrink_to(PARKED);
            slot.state().listened();
            // What was seen stays where it is, so the socket says that it is readable; forget that, and be told when there is more.
            stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into())).ignore();
            if stream.ready(Interest::READABLE).await?.is_read_closed() {
                // There will be no more.
                slot.grow_to(HTTP1).await;
                return Ok(Self::Http1(None));
            }
        }
    }
}

/// What the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// A head with its end, or nothing because the client has closed.
    Complete,
    /// HTTP/2's.
    Preface,
    /// A head so long that the kernel might have no room for the rest of it.
    Long,
    Part,
}

impl Seen {
    fn of(start: &[u8]) -> Self {
        let Some(first) = start.first() else { return Self::Complete };
        if start.starts_with(PREFACE) {
            return Self::Preface;
        }
        if PREFACE.starts_with(start) {
            return Self::Part;
        }
        let has_end = || [&b"\n\r\n"[..], b"\n\n"].iter().any(|end| memmem::find(start, end).is_some());
        // What is no HTTP, such as TLS, is told so at once.
        if !first.is_ascii_alphabetic() || has_end() {
            Self::Complete
        } else if start.len() >= HEAD_PEEK / 2 {
            Self::Long
        } else {
            Self::Part
        }
    }
}

async fn http1(
    stream: TcpStream,
    opened: Instant,
    peer: SocketAddr,
    slot: Slot,
    long_head: Option<Room>,
    context: Arc<ServerContext>,
) -> hyper::Result<()> {
    let ServerContext { routes, telemetry, deadlines, budget, closing, .. } = &*context;
    let (state, sendfile) = (slot.state().clone(), SendfileQueue::default());
    let slot = Arc::new(slot);
    let parking = Parking::default();
    let metrics = Arc::clone(&telemetry.metrics);
    // In a box, so that this future, which lives as long as the connection, has no room for each of its moves.
    let mut paced = Box::new(DeadlineStream::new(
        stream,
        opened,
        *deadlines,
        FlowControl::Tcp,
        metrics,
        Arc::clone(&slot),
        sendfile.clone(),
    ));
    if let Some(room) = long_head {
        paced.expect_long_head(room);
    }
    let info = ConnectionInfo {
        peer,
        client: client(peer),
        telemetry: Arc::clone(telemetry),
        state: state.clone(),
        chunks: ChunkBudget::new(budget, OWN_CHUNKS_HTTP1),
        sendfile: Some(sendfile),
        parking: Some(parking.clone()),
    };
    let info = Arc::new(info);
    loop {
        let service =
            service_fn(|request| answer_charged(&slot, Arc::clone(routes), Arc::clone(&info), request));
        // In a box of its own, which is gone while the connection rests.
        let mut connection = Box::new(
            http1::Builder::new()
                // The deadlines are kept beneath HTTP, where an idle connection can be told from a slow request.
                .header_read_timeout(None)
                .max_buf_size(HEAD_MAX as usize)
                .half_close(true)
                .serve_connection(TokioIo::new(paced), service),
        );
        let mut closed = pin!(closing.cancelled());
        let mut telling = true;
        let ended = poll_fn(|context| {
            let mut polled = Pin::new(&mut *connection).poll(context);
            // After the first look at what there is: a request that was held, and is read once more, is answered.
            if polled.is_pending() && telling && closed.as_mut().poll(context).is_ready() {
                telling = false;
                // A request may have come that the event loop was not told of yet.
                state.set_closing();
                if let Poll::Ready(ended) = Pin::new(&mut *connection).poll(context) {
                    return Poll::Ready(Some(ended));
                }
                Pin::new(&mut *connection).graceful_shutdown();
                polled = Pin::new(&mut *connection).poll(context);
            }
            match polled {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending if parking.is_taken() || state.take_parked() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        // The box itself goes only at the end of its scope, which would be after the rest.
        let parts = {
            let connection = connection;
            connection.into_parts()
        };
        paced = parts.io.into_inner();
        // What is left of it, even if that is nothing, is a hold on all of the read buffer.
        let rest = Some(parts.read_buf).filter(|rest| !rest.is_empty());
        if let Some(ended) = ended {
            return Box::pin(end(&mut paced, ended, rest, &info, closing)).await;
        }
        if let Some(held) = parking.take() {
            let Held { head, arrival, waiter } = *held;
            // What came after the request is read after it.
            let after = [rest.unwrap_or_default(), paced.take_early()].concat();
            let early = if after.is_empty() { head } else { [&*head, &after].concat().into() };
            let answering = Answering::begin(&info);
            let waited = Box::pin(hold(&mut paced, &slot, waiter, early.len())).await;
            drop(answering);
            parking.waited(arrival, waited);
            paced.return_early(early);
        } else if let Some(rest) = rest {
            // The beginning of a request that came with the one before.
            paced.return_early(rest);
        } else {
            paced.rest();
            if !is_woken(&paced, deadlines.idle.saturating_sub(PARK_AFTER), closing).await {
                return Ok(());
            }
            state.woken();
            let start = Start::of(paced.stream(), paced.slot());
            match timeout(deadlines.header, start).await {
                Ok(Ok(Start::Http1(Some(room)))) => paced.expect_long_head(room),
                // Reading will say how the connection has failed.
                Ok(_) => {}
                Err(_elapsed) => {
                    info.telemetry.metrics.overdue(Overdue::Header);
                    return Ok(());
                }
            }
        }
    }
}

/// A request that is held is one in progress, for the metrics, the drain and those who look for connections to close.
struct Answering<'c>(&'c ConnectionInfo);

impl<'c> Answering<'c> {
    fn begin(connection: &'c ConnectionInfo) -> Self {
        connection.telemetry.metrics.in_flight.inc();
        connection.state.requested();
        Self(connection)
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.telemetry.metrics.in_flight.dec();
        self.0.state.answered();
    }
}

/// Ends a connection that HTTP is done with. What the client still sends is taken in for a while where more has come than was
/// answered, or where what came was no request.
async fn end(
    paced: &mut DeadlineStream,
    ended: hyper::Result<()>,
    rest: Option<Bytes>,
    info: &ConnectionInfo,
    closing: &CancellationToken,
) -> hyper::Result<()> {
    let has_more = rest.map(drop).is_some() || has_unread(paced.stream());
    let is_unread = match &ended {
        Ok(()) => has_more,
        Err(error) => {
            record_malformed(info, error);
            error.is_parse()
        }
    };
    if is_unread {
        let mut over = pin!(paced.end_unread());
        tokio::select! {
            () = &mut over => {}
            () = closing.cancelled() => {
                info.state.set_closing();
                over.await;
            }
        }
    }
    ended
}

/// Holds a request, with so many bytes of its head and of what came after it, until its wait is over. Where there is no room for
/// them, it is answered as if it had not preferred to wait: nothing can be closed for others that is held.
async fn hold(paced: &mut DeadlineStream, slot: &Slot, waiter: Waiter, length: usize) -> Waited {
    slot.shrink_to(PARKED);
    let ended = if slot.try_hold(length as u64).is_ok() {
        paced.rest();
        let ended = waiter.wait().await;
        if length > READ_BUFFER {
            paced.expect_long_head(Arc::clone(slot.budget()).lend_long_head().await);
        }
        ended
    } else {
        drop(waiter);
        Waited { again: false, spread: None }
    };
    slot.grow_to(HTTP1).await;
    ended
}

/// Waits until a connection that rests has something to read. `false` where it has idled for long enough, or the server wants to end.
async fn is_woken(paced: &DeadlineStream, limit: Duration, closing: &CancellationToken) -> bool {
    tokio::select! {
        // Also where the connection has failed: reading will say how.
        _ = paced.stream().readable() => true,
        () = sleep(limit) => {
            paced.idled();
            false
        }
        () = closing.cancelled() => has_unread(paced.stream()),
    }
}

async fn http2(
    stream: TcpStream,
    opened: Instant,
    peer: SocketAddr,
    slot: Slot,
    context: Arc<ServerContext>,
) -> hyper::Result<()> {
    let ServerContext { routes, telemetry, deadlines, budget, closing, streams } = &*context;
    let state = slot.state().clone();
    let slot = Arc::new(slot);
    if timeout(deadlines.header, slot.grow_to(HTTP2)).await.is_err() {
        tracing::debug!(%peer, "refused a connection: all others are being answered");
        return Ok(());
    }
    // A client also sends frames that begin no request, such as window updates: all that can be told is that it is idle.
    let deadlines = Deadlines { header: deadlines.idle, ..*deadlines };
    let metrics = Arc::clone(&telemetry.metrics);
    let paced = DeadlineStream::new(
        stream,
        opened,
        deadlines,
        FlowControl::Streams,
        metrics,
        Arc::clone(&slot),
        SendfileQueue::default(),
    );
    let chunks = ChunkBudget::new(budget, OWN_CHUNKS_HTTP2);
    let info = Arc::new(ConnectionInfo {
        peer,
        client: client(peer),
        telemetry: Arc::clone(telemetry),
        state,
        chunks,
        sendfile: None,
        parking: None,
    });
    let service = service_fn(|mut request| {
        // Not only when it is this request's turn: what has come for all streams and connections is read before that.
        let charged = heads::charge_http2(&slot, &mut request);
        answer_stream(Arc::clone(&slot), Arc::clone(routes), Arc::clone(&info), request, charged)
    });
    let mut connection = pin!(
        http2::Builder::new(Streams { tracker: streams.clone(), slot: Arc::clone(&slot) })
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_send_buf_size(STREAM_BUFFER)
            .max_header_list_size(HEAD_MAX)
            .serve_connection(TokioIo::new(paced), service)
    );
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            info.state.set_closing();
            // As long as it takes what was sent, the client sends frames that allow more: they must not reset the connection.
            info.state.leave_unread();
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

/// HTTP/2 answers each request in a task of its own. The drain waits for them, and the connection is charged for them.
#[derive(Clone)]
struct Streams {
    tracker: TaskTracker,
    slot: Arc<Slot>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let charged = Charged::new(&self.slot, STREAM);
        self.tracker.spawn(async move {
            stream.await;
            drop(charged);
        });
    }
}

fn answer(
    routes: Arc<Routes>,
    connection: Arc<ConnectionInfo>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> {
    connection.state.requested();
    async move {
        let is_complete = request.body().is_end_stream();
        let request = without_body(request, &connection);
        let mut exchange = Exchange::begin(request, connection);
        if is_complete && exchange.request.headers.contains_key(PREFER) {
            exchange.may_park();
        }
        let client = exchange.identify_client();
        let reply = routes.answer(&exchange.request, exchange.connection.peer, client).await;
        Ok(exchange.answer(reply))
    }
}

/// Answers a request of an HTTP/1.1 connection, unless there is no memory for its head.
fn answer_charged(
    slot: &Arc<Slot>,
    routes: Arc<Routes>,
    connection: Arc<ConnectionInfo>,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> {
    if heads::charge_http1(slot, &mut request).is_ok() {
        return Either::Left(answer(routes, connection, request));
    }
    // Where the request is one that was held, what is known of its wait says nothing about the next.
    _ = connection.parking.as_ref().and_then(Parking::resume);
    Either::Right(ready(Ok(refuse(connection, request))))
}

/// No resource here has a use for a request body. What the client still sends of it is taken in at the end.
fn without_body(request: Request<Incoming>, connection: &ConnectionInfo) -> Parts {
    let (request, body) = request.into_parts();
    if !body.is_end_stream() {
        connection.state.leave_unread();
    }
    request
}

/// Answers a request of an HTTP/2 connection, unless there is no memory for it, and no other connection that could make room.
async fn answer_stream(
    slot: Arc<Slot>,
    routes: Arc<Routes>,
    connection: Arc<ConnectionInfo>,
    request: Request<Incoming>,
    charged: Result<(), NoRoom>,
) -> Result<Response<ResponseBody>, Infallible> {
    if charged.is_ok() && slot.make_room().await {
        return answer(routes, connection, request).await;
    }
    Ok(refuse(connection, request))
}

/// Says that there is no memory for a request. There is no body, which would keep the request until the client takes it.
fn refuse(connection: Arc<ConnectionInfo>, request: Request<Incoming>) -> Response<ResponseBody> {
    connection.state.requested();
    let request = without_body(request, &connection);
    let mut response = Response::new(Payload::Empty);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    Exchange::begin(request, connection).answer(response.into())
}

fn client(peer: SocketAddr) -> Box<str> {
    peer.ip().to_canonical().to_string().into()
}

/// hyper has answered what was no request; that response is one like any other.
fn record_malformed(connection: &ConnectionInfo, error: &hyper::Error) {
    if error.is_parse() {
        let status = if error.is_parse_too_large() {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        } else {
            StatusCode::BAD_REQUEST
        };
        connection.telemetry.record_malformed(&connection.client, status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of it stays while the connection rests.
    #[test]
    fn a_connection_takes_little() {
        fn size<S, P, C, F: Future>(_: fn(S, P, Slot, C) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = size(serve_connection);
        assert!(bytes <= 2048, "{bytes} bytes");
    }

    #[test]
    fn a_head_is_complete_with_its_empty_line_and_long_before_the_kernel_has_no_room_for_it() {
        let request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        assert_eq!(Seen::of(request), Seen::Complete);
        assert_eq!(Seen::of(b""), Seen::Complete);
        assert_eq!(Seen::of(b"GET / HTTP/1.1\nHost: h\n\n"), Seen::Complete);
        for end in 1..request.len() {
            assert_eq!(Seen::of(&request[..end]), Seen::Part, "{end}");
        }
        for end in 1..PREFACE.len() {
            assert_eq!(Seen::of(&PREFACE[..end]), Seen::Part, "{end}");
        }
        assert_eq!(Seen::of(PREFACE), Seen::Preface);
        assert_eq!(Seen::of(&[b'x'; HEAD_PEEK / 2]), Seen::Long);
        assert_eq!(Seen::of(&[0x16, 3, 1]), Seen::Complete, "a client that speaks TLS");
    }
}
