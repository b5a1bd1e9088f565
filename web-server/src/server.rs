//! Connections: accepted, served, and drained.
//!
//! The drain gives every client an end that it can tell from a failure. Requests in progress are finished. For a moment more
//! connections are accepted and requests answered, with `Connection: close`, because some were on their way when the signal
//! came; then idle connections are closed. What is not done by the deadline is cut.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::deadline::{Deadlines, Paced};
use crate::exchange::{Accounts, Exchange};
use crate::route::Routes;

/// Request line and headers together, roughly: it is looked at when the read buffer is full. No browser comes near it.
const HEAD_MAX: usize = 32 * 1024;
/// How long after the signal a request may still arrive.
const LINGER: Duration = Duration::from_millis(100);
/// Between attempts to accept where the system is out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a connection gets that is one too many.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// What clients may ask of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// At once.
    pub connections: usize,
    /// For each of them.
    pub deadlines: Deadlines,
}

/// What serves connections.
#[derive(Debug)]
pub struct Server {
    routes: Arc<Routes>,
    accounts: Accounts,
    limits: Limits,
    connections: TaskTracker,
    /// Cancelled when idle connections have to go.
    closing: CancellationToken,
    /// Cancelled when all connections have to go.
    cut: CancellationToken,
}

impl Server {
    /// Has no connections yet.
    pub fn new(routes: Arc<Routes>, accounts: Accounts, limits: Limits) -> Self {
        Self {
            routes,
            accounts,
            limits,
            connections: TaskTracker::new(),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Serves until the shutdown begins, and returns a moment after with connections still open.
    pub async fn serve(&self, listener: TcpListener) {
        let mut over = pin!(async {
            self.accounts.shutdown.cancelled().await;
            tokio::time::sleep(LINGER).await;
        });
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut over => return,
            };
            match accepted {
                Ok((stream, peer)) if self.connections.len() >= self.limits.connections => {
                    self.accounts.metrics.connections_refused.inc();
                    refuse(stream, peer);
                }
                Ok((stream, peer)) => {
                    self.connections.spawn(self.connection(stream, peer));
                }
                Err(error) => {
                    // Out of descriptors, most likely. They come back when connections end, and a tight loop helps nobody.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Lets connections finish, for at most `patience`; says how many had to be cut.
    pub async fn drain(&self, patience: Duration) -> usize {
        self.closing.cancel();
        self.connections.close();
        let in_time = tokio::time::timeout(patience, self.connections.wait()).await.is_ok();
        let left = self.connections.len();
        if in_time {
            return 0;
        }
        self.cut.cancel();
        self.connections.wait().await;
        left
    }

    fn connection(&self, stream: TcpStream, peer: SocketAddr) -> impl Future<Output = ()> + use<> {
        let (routes, accounts) = (Arc::clone(&self.routes), self.accounts.clone());
        let (closing, cut) = (self.closing.clone(), self.cut.clone());
        let deadlines = self.limits.deadlines;
        async move {
            let metrics = Arc::clone(&accounts.metrics);
            metrics.connections.inc();
            metrics.connections_accepted.inc();
            tokio::select! {
                () = converse(stream, peer, deadlines, routes, accounts, closing) => {}
                () = cut.cancelled() => {}
            }
            metrics.connections.dec();
        }
    }
}

/// Says why, as far as that is possible without waiting for anybody.
fn refuse(stream: TcpStream, peer: SocketAddr) {
    let said = stream.into_std().and_then(|mut stream| stream.write_all(TOO_MANY));
    tracing::debug!(%peer, ?said, "refused a connection: there are too many");
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    deadlines: Deadlines,
    routes: Arc<Routes>,
    accounts: Accounts,
    closing: CancellationToken,
) {
    // The last packet of a response must not wait for the client's acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "the connection is gone already");
        return;
    }
    let (stream, turn) = Paced::new(stream, deadlines, Arc::clone(&accounts.metrics));
    let service = service_fn(|request: Request<Incoming>| {
        let (routes, accounts, turn) = (Arc::clone(&routes), accounts.clone(), turn.clone());
        turn.requested();
        async move {
            // No resource here has a use for a request body.
            let (request, _body) = request.into_parts();
            let exchange = Exchange::begin(request, peer, accounts, turn);
            let reply = routes.answer(&exchange.request, peer).await;
            Ok::<_, Infallible>(exchange.answer(reply))
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            // The deadlines are kept beneath HTTP, where an idle connection can be told from a slow request.
            .header_read_timeout(None)
            .max_buf_size(HEAD_MAX)
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended early");
        if error.is_parse() {
            // hyper has answered what was no request; that response is one like any other.
            let status = if error.is_parse_too_large() {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            } else {
                StatusCode::BAD_REQUEST
            };
            accounts.refused(peer, status);
        }
    }
}
