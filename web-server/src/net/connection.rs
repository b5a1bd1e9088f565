//! One connection, from its first byte to its end: which HTTP it speaks, and its requests one after another.
//!
//! A client that keeps its connection costs memory for as long as it says nothing. After a moment of silence HTTP's state and
//! buffers are given back, and the connection *rests*: a socket and a timer, until it has something to say.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Response, StatusCode};
use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lifecycle::Ignore as _;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::exchange::{ConnectionInfo, Exchange, ResponseBody, Telemetry};
use crate::http::parking::{Held, Parking};
use crate::http::response::unavailable;
use crate::http::sendfile::SendfileQueue;
use crate::memory::{Budget, ChunkBudget, OWN_CHUNKS_HTTP1, OWN_CHUNKS_HTTP2};
use crate::metrics::Overdue;
use crate::net::deadlines::{DeadlineStream, Deadlines, FlowControl, PARK_AFTER};
use crate::net::table::{HTTP1, HTTP2, PARKED, STREAM, Slot};
use crate::routes::Routes;
use crate::routes::manifest::PREFER;

/// Request line and headers together, roughly: it is looked at when the read buffer is full. No browser comes near it.
const HEAD_MAX: u32 = 32 * 1024;
/// Requests of one HTTP/2 connection that are answered at once; more wait.
const STREAMS_MAX: u32 = 64;
/// What one of them may have buffered before it is asked for more. The frames themselves are chunks from the budget.
const STREAM_BUFFER: usize = 16 * 1024;
/// What an HTTP/2 client that knows what it talks to begins with (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection needs of its server.
#[derive(Debug, Clone)]
pub(crate) struct ServerContext {
    /// Who answers.
    pub(crate) routes: Arc<Routes>,
    /// Where it is accounted for.
    pub(crate) telemetry: Telemetry,
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
    context: ServerContext,
) {
    let opened = Instant::now();
    // The last packet of a response must not wait for the client's acknowledgement of the one before.
    let protocol = match stream.set_nodelay(true) {
        Ok(()) => tokio::select! {
            protocol = timeout(context.deadlines.header, protocol(&stream)) => protocol,
            () = context.closing.cancelled() => return,
        },
        Err(error) => Ok(Err(error)),
    };
    let ended = match protocol {
        Ok(Ok(Protocol::Http1)) => http1(stream, opened, peer, slot, context).await,
        Ok(Ok(Protocol::Http2)) => Box::pin(http2(stream, opened, peer, slot, context)).await,
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

enum Protocol {
    Http1,
    Http2,
}

/// Looks at the first bytes and leaves them where they are.
async fn protocol(stream: &TcpStream) -> io::Result<Protocol> {
    let mut start = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut start).await?;
        let start = &start[..length];
        if start == PREFACE {
            return Ok(Protocol::Http2);
        }
        let seen = start.len();
        if seen == 0 || !PREFACE.starts_with(start) {
            return Ok(Protocol::Http1);
        }
        // A preface that comes in pieces. What was seen of it stays where it is, so the socket says that it is readable; forget
        // that, and be told when there is more.
        stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into())).ignore();
        if stream.ready(Interest::READABLE).await?.is_read_closed() {
            // There will be no more.
            return Ok(Protocol::Http1);
        }
    }
}

async fn http1(
    stream: TcpStream,
    opened: Instant,
    peer: SocketAddr,
    slot: Slot,
    context: ServerContext,
) -> hyper::Result<()> {
    let ServerContext { routes, telemetry, deadlines, budget, closing, .. } = context;
    let (state, sendfile) = (slot.state().clone(), SendfileQueue::new(&budget));
    let parking = Parking::default();
    slot.charge(HTTP1);
    let metrics = Arc::clone(&telemetry.metrics);
    let mut paced = DeadlineStream::new(
        stream,
        opened,
        deadlines,
        FlowControl::Tcp,
        metrics,
        Arc::new(slot),
        sendfile.clone(),
    );
    let info = ConnectionInfo {
        peer,
        client: client(peer),
        telemetry,
        state: state.clone(),
        chunks: ChunkBudget::new(&budget, OWN_CHUNKS_HTTP1),
        sendfile: Some(sendfile),
        parking: Some(parking.clone()),
    };
    let info = Arc::new(info);
    loop {
        let service = service_fn(|request| answer(Arc::clone(&routes), Arc::clone(&info), request));
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
        if let Some(ended) = ended {
            return ended.inspect_err(|error| record_malformed(&info, error));
        }
        let parts = connection.into_parts();
        paced = parts.io.into_inner();
        if let Some(held) = parking.take() {
            let Held { head, arrival, waiter } = *held;
            // What came after the request is read after it.
            let early = if parts.read_buf.is_empty() { head } else { [head, parts.read_buf].concat().into() };
            paced.slot().charge(PARKED);
            let answering = Answering::begin(&info);
            let waited = waiter.wait().await;
            drop(answering);
            paced.slot().charge(HTTP1);
            parking.waited(arrival, waited);
            paced = paced.with_early(early);
        } else if parts.read_buf.is_empty() {
            paced.slot().charge(PARKED);
            if park(&paced, deadlines.idle.saturating_sub(PARK_AFTER), &closing).await == Parked::Over {
                return Ok(());
            }
            paced.slot().charge(HTTP1);
        } else {
            // The beginning of a request that came with the one before.
            paced = paced.with_early(parts.read_buf);
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

#[derive(Debug, PartialEq, Eq)]
enum Parked {
    /// There is something to read.
    Woken,
    /// It has idled for long enough, or the server wants to end.
    Over,
}

async fn park(paced: &DeadlineStream, patience: Duration, closing: &CancellationToken) -> Parked {
    tokio::select! {
        // Also where the connection has failed: reading will say how.
        _ = paced.stream().readable() => Parked::Woken,
        () = sleep(patience) => {
            paced.idled();
            Parked::Over
        }
        () = closing.cancelled() => Parked::Over,
    }
}

async fn http2(
    stream: TcpStream,
    opened: Instant,
    peer: SocketAddr,
    slot: Slot,
    context: ServerContext,
) -> hyper::Result<()> {
    let ServerContext { routes, telemetry, deadlines, budget, closing, streams } = context;
    let state = slot.state().clone();
    let slot = Arc::new(slot);
    slot.charge(HTTP2);
    // A client also sends frames that begin no request, such as window updates: all that can be told is that it is idle.
    let deadlines = Deadlines { header: deadlines.idle, ..deadlines };
    let metrics = Arc::clone(&telemetry.metrics);
    let paced = DeadlineStream::new(
        stream,
        opened,
        deadlines,
        FlowControl::Streams,
        metrics,
        Arc::clone(&slot),
        SendfileQueue::new(&budget),
    );
    let chunks = ChunkBudget::new(&budget, OWN_CHUNKS_HTTP2);
    let info = Arc::new(ConnectionInfo {
        peer,
        client: client(peer),
        telemetry,
        state,
        chunks,
        sendfile: None,
        parking: None,
    });
    let service = service_fn(|request| {
        let refused = slot.is_over_budget();
        answer_stream(refused, Arc::clone(&routes), Arc::clone(&info), request)
    });
    let mut connection = pin!(
        http2::Builder::new(Streams { tracker: streams, slot: Arc::clone(&slot) })
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_send_buf_size(STREAM_BUFFER)
            .max_header_list_size(HEAD_MAX)
            .serve_connection(TokioIo::new(paced), service)
    );
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
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
        let charged = ChargedStream::new(&self.slot);
        self.tracker.spawn(async move {
            stream.await;
            drop(charged);
        });
    }
}

struct ChargedStream(Arc<Slot>);

impl ChargedStream {
    fn new(slot: &Arc<Slot>) -> Self {
        slot.grow(STREAM);
        Self(Arc::clone(slot))
    }
}

impl Drop for ChargedStream {
    fn drop(&mut self) {
        self.0.shrink(STREAM);
    }
}

fn answer(
    routes: Arc<Routes>,
    connection: Arc<ConnectionInfo>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> {
    connection.state.requested();
    async move {
        // No resource here has a use for a request body. What the client still sends of it is taken in at the end.
        let (request, body) = request.into_parts();
        let is_complete = body.is_end_stream();
        if !is_complete {
            connection.state.leave_unread();
        }
        drop(body);
        let mut exchange = Exchange::begin(request, connection);
        if is_complete && exchange.request.headers.contains_key(PREFER) {
            exchange.may_park();
        }
        let client = exchange.identify_client();
        let reply = routes.answer(&exchange.request, exchange.connection.peer, client).await;
        Ok(exchange.answer(reply))
    }
}

/// Answers a request of an HTTP/2 connection, unless its memory was refused.
async fn answer_stream(
    refused: bool,
    routes: Arc<Routes>,
    connection: Arc<ConnectionInfo>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    if !refused {
        return answer(routes, connection, request).await;
    }
    connection.state.requested();
    let exchange = Exchange::begin(request.into_parts().0, connection);
    Ok(exchange.answer(unavailable("too much is being answered at once").into()))
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
