//! Connections: accepted, served, and drained.
//!
//! The drain gives every client an end that it can tell from a failure. Requests in progress are finished. For a moment more
//! connections are accepted and requests answered, with `Connection: close`, because some were on their way when the signal
//! came; then idle connections are closed. What is not done by the deadline is cut.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::exchange::{Accounts, Exchange};
use crate::route::Routes;

/// How long a client may take for a request's line and headers, counted from when the connection is ready for them: also
/// how long a connection may idle between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// Request line and headers together, roughly: it is looked at when the read buffer is full. No browser comes near it.
const HEAD_MAX: usize = 32 * 1024;
/// How long after the signal a request may still arrive.
const LINGER: Duration = Duration::from_millis(100);
/// Between attempts to accept where the system is out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What serves connections.
#[derive(Debug)]
pub struct Server {
    routes: Arc<Routes>,
    accounts: Accounts,
    connections: TaskTracker,
    /// Cancelled when idle connections have to go.
    closing: CancellationToken,
    /// Cancelled when all connections have to go.
    cut: CancellationToken,
}

impl Server {
    /// Has no connections yet.
    pub fn new(routes: Arc<Routes>, accounts: Accounts) -> Self {
        Self {
            routes,
            accounts,
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
        async move {
            let metrics = Arc::clone(&accounts.metrics);
            metrics.connections.inc();
            metrics.connections_accepted.inc();
            tokio::select! {
                () = converse(stream, peer, routes, accounts, closing) => {}
                () = cut.cancelled() => {}
            }
            metrics.connections.dec();
        }
    }
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    routes: Arc<Routes>,
    accounts: Accounts,
    closing: CancellationToken,
) {
    // The last packet of a response must not wait for the client's acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "the connection is gone already");
        return;
    }
    let service = service_fn(|request: Request<Incoming>| {
        let (routes, accounts) = (Arc::clone(&routes), accounts.clone());
        async move {
            // No resource here has a use for a request body.
            let (request, _body) = request.into_parts();
            let exchange = Exchange::begin(request, peer, accounts);
            let reply = routes.answer(&exchange.request, peer).await;
            Ok::<_, Infallible>(exchange.answer(reply))
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
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
