//! Connections: accepted, served, and drained.
//!
//! Each of several threads has a listener and an event loop of its own, and the kernel deals connections out among them. What a
//! request needs is shared and only read, so that threads have nothing to wait for one another. A connection stays with the
//! thread that accepted it.
//!
//! The drain gives every client an end that it can tell from a failure. Requests in progress are finished. For a moment more
//! connections are accepted and requests answered, with `Connection: close`, because some were on their way when the signal
//! came; then idle connections are closed. What is not done by the deadline is cut.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lifecycle::Ignore as _;
use lifecycle::exit::{Exit, Failure};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::task::unconstrained;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::exchange::Telemetry;
use crate::http::send_buffer::SHARE_MIN;
use crate::memory::Budget;
use crate::metrics::Metrics;
use crate::net::closed_windows::Endpoints;
use crate::net::connection::{ServerContext, serve_connection};
use crate::net::deadlines::Deadlines;
use crate::net::table::{ConnectionTable, Slot};
use crate::routes::Routes;

/// How long after the signal a request may still arrive.
const LINGER: Duration = Duration::from_millis(100);
/// Between attempts to accept where the system is out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// So many connections are accepted in a row, if so many wait, before those that are open get their turn.
const TURN: u64 = 512;
/// What a connection may have received and not looked at, where memory is limited. The kernel takes twice as much, for its own part.
const RECEIVE_BUFFER: usize = 4 * 1024;

/// What a connection gets that is one too many.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// What serves connections.
#[derive(Debug)]
pub(crate) struct Server {
    context: Arc<ServerContext>,
    table: Arc<ConnectionTable>,
    connections: TaskTracker,
    shutdown: CancellationToken,
    /// Cancelled when all connections have to go.
    cut: CancellationToken,
}

impl Server {
    /// Has no connections yet, and at most so many at once. The drain begins with the shutdown.
    pub(crate) fn new(
        routes: Routes,
        telemetry: Telemetry,
        connections: usize,
        deadlines: Deadlines,
        budget: Arc<Budget>,
        shutdown: CancellationToken,
    ) -> Self {
        let Metrics { connections: open, connections_evicted: evicted, .. } = &*telemetry.metrics;
        let table = ConnectionTable::new(connections, Arc::clone(&budget), open.clone(), evicted.clone());
        let context = Arc::new(ServerContext {
            routes: Arc::new(routes),
            telemetry: Arc::new(telemetry),
            deadlines,
            budget,
            closing: CancellationToken::new(),
            streams: TaskTracker::new(),
        });
        Self { context, table, connections: TaskTracker::new(), shutdown, cut: CancellationToken::new() }
    }

    /// Serves until the shutdown begins, and returns a moment after with connections still open.
    pub(crate) async fn serve(&self, listener: TcpListener) {
        let mut over = pin!(async {
            self.shutdown.cancelled().await;
            // Each request asks this, and a token is too much to ask for that: it has a lock.
            self.context.telemetry.draining.store(true, Ordering::Relaxed);
            tokio::time::sleep(LINGER).await;
        });
        self.prepare(&listener);
        for accepted in 1_u64.. {
            if accepted % TURN == 0 {
                tokio::task::yield_now().await;
            }
            // Without the runtime's own bound: a queue that overflows makes clients wait for seconds before they try again.
            let accepted = tokio::select! {
                accepted = unconstrained(listener.accept()) => accepted,
                () = &mut over => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // A connection that has failed already has no end of ours.
                    let endpoints = Endpoints::new(stream.local_addr().unwrap_or(peer), peer);
                    let slot = tokio::select! {
                        slot = unconstrained(self.table.admit(endpoints)) => slot,
                        () = &mut over => return,
                    };
                    if let Some(slot) = slot {
                        let number = slot.number();
                        let task = self.connections.spawn(self.connection(stream, peer, slot));
                        self.table.started(number, task.abort_handle());
                    } else {
                        self.context.telemetry.metrics.connections_refused.inc();
                        refuse(stream, peer);
                    }
                }
                // The client has gone before it was its turn.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of descriptors, most likely. They come back when connections end, and a tight loop would only burn CPU.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::select! {
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                        () = &mut over => return,
                    }
                }
            }
        }
    }

    /// What connections inherit from their listener, so that it costs each of them nothing.
    fn prepare(&self, listener: &TcpListener) {
        let socket = SockRef::from(listener);
        // The last packet of a response must not wait for the client's acknowledgement of the one before.
        let mut prepared = socket.set_tcp_nodelay(true);
        if self.context.budget.limit().is_some() {
            // What clients send before anything looks at it counts as well. Nothing here needs more than heads.
            prepared = prepared
                .and_then(|()| socket.set_recv_buffer_size(RECEIVE_BUFFER))
                .and_then(|()| socket.set_tcp_notsent_lowat(SHARE_MIN));
        }
        if let Err(error) = prepared {
            tracing::warn!(%error, "cannot set the options of the listener");
        }
    }

    /// Lets connections finish, for at most `limit`; says how many had to be cut.
    pub(crate) async fn drain(&self, limit: Duration) -> usize {
        self.context.closing.cancel();
        self.connections.close();
        self.context.streams.close();
        let in_time = tokio::time::timeout(limit, self.ended()).await.is_ok();
        let left = self.connections.len();
        if in_time {
            return 0;
        }
        self.cut.cancel();
        self.ended().await;
        left
    }

    /// Waits until no connection is left, once the drain has begun.
    pub(crate) async fn ended(&self) {
        self.connections.wait().await;
        self.context.streams.wait().await;
    }

    fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        slot: Slot,
    ) -> impl Future<Output = ()> + use<> {
        let (context, cut) = (Arc::clone(&self.context), self.cut.clone());
        async move {
            context.telemetry.metrics.connections_accepted.inc();
            // In a box: `select!` would keep room for the future twice, some 2 KiB for each connection.
            let mut served = Box::pin(serve_connection(stream, peer, slot, context));
            tokio::select! {
                () = &mut served => {}
                () = cut.cancelled() => {}
            }
        }
    }
}

/// Says why, as far as that is possible without waiting. A request that has come is read: a socket that is closed with bytes unread
/// resets the connection, and the client would not get the answer.
fn refuse(stream: TcpStream, peer: SocketAddr) {
    let said = stream.into_std().and_then(|mut stream| {
        let mut request = [0; RECEIVE_BUFFER];
        stream.read(&mut request).ignore();
        stream.write_all(TOO_MANY)?;
        stream.shutdown(Shutdown::Write)
    });
    tracing::debug!(%peer, ?said, "refused a connection: there are too many");
}

/// Serves on all listeners until the shutdown begins and none accepts any more; connections may still be open then. The first
/// listener is served here, each other one on a thread that goes on until its connections have ended.
///
/// # Errors
/// Exit code 74 where there are no more threads to be had.
pub(crate) async fn serve_all(server: &Arc<Server>, listeners: Vec<TcpListener>) -> Result<(), Failure> {
    let over = Arc::new(Barrier::new(listeners.len()));
    let mut listeners = listeners.into_iter();
    let Some(first) = listeners.next() else { return Ok(()) };
    for (number, listener) in listeners.enumerate() {
        let (server, over) = (Arc::clone(server), Arc::clone(&over));
        spawn(number + 2, listener, server, over).map_err(|error| {
            Failure::new(Exit::Io, format!("cannot start thread {}: {error}", number + 2))
        })?;
    }
    server.serve(first).await;
    over.wait().await;
    Ok(())
}

fn spawn(number: usize, listener: TcpListener, server: Arc<Server>, over: Arc<Barrier>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // It leaves the first thread's event loop for its own.
    let listener = listener.into_std()?;
    let listener = {
        let _inside = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let work = async move {
        server.serve(listener).await;
        over.wait().await;
        server.ended().await;
    };
    std::thread::Builder::new().name(format!("serve-{number}")).spawn(move || runtime.block_on(work))?;
    Ok(())
}
