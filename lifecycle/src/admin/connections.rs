//! The admin server's connections.
//!
//! SECURITY: the port is open to the cluster, and a kubelet restarts a container whose probes get no answer within a
//! second. The number of connections is bounded. When the limit is reached, the oldest connection without a request in
//! progress is evicted, so a probe always gets in.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::task::AbortOnDropHandle;

use super::Admin;
use crate::Ignore as _;

/// Connections at once. Probes, a scraper and a person need few.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to send a request's head, and may stay connected without sending another.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between attempts to accept where the system is out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running admin server; it stops when this is dropped.
#[derive(Debug)]
#[must_use = "the server stops when its handle is dropped"]
pub struct AdminHandle {
    table: Arc<ConnectionTable>,
    accepting: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct ConnectionTable {
    slots: Mutex<VecDeque<Slot>>,
    /// Requests in progress, over all connections.
    answering: AtomicUsize,
    answered: Notify,
}

#[derive(Debug)]
struct Slot {
    connection: AbortHandle,
    /// Requests of this connection in progress; with none, nothing is lost when the connection is evicted.
    in_flight: Arc<AtomicUsize>,
}

impl AdminHandle {
    pub(super) fn start(admin: Arc<Admin>, listener: TcpListener) -> Self {
        let table = Arc::<ConnectionTable>::default();
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(admin, listener, Arc::clone(&table))));
        Self { table, accepting }
    }

    /// Stops accepting, and waits at most `limit` for the requests in progress to be answered.
    pub async fn finish(self, limit: Duration) {
        self.accepting.abort();
        let table = &self.table;
        let quiet = async {
            loop {
                let answered = table.answered.notified();
                if table.answering.load(Ordering::SeqCst) == 0 {
                    // The last bytes are with hyper, which hands them to the kernel when its task next runs.
                    tokio::task::yield_now().await;
                    return;
                }
                answered.await;
            }
        };
        // A drain may end by its time running out: the client sees its connection close.
        tokio::time::timeout(limit, quiet).await.ignore();
    }
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        for slot in self.table.slots.lock().drain(..) {
            slot.connection.abort();
        }
    }
}

impl ConnectionTable {
    /// Evicts a connection where the table is full.
    fn make_room(&self) {
        let mut slots = self.slots.lock();
        slots.retain(|slot| !slot.connection.is_finished());
        if slots.len() >= MAX_CONNECTIONS
            && let Some(idle) = slots.iter().position(|slot| slot.in_flight.load(Ordering::SeqCst) == 0)
            && let Some(slot) = slots.remove(idle)
        {
            slot.connection.abort();
        }
    }
}

async fn accept(admin: Arc<Admin>, listener: TcpListener, table: Arc<ConnectionTable>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                table.make_room();
                let in_flight = Arc::<AtomicUsize>::default();
                let serving = serve_connection(
                    Arc::clone(&admin),
                    stream,
                    peer,
                    Arc::clone(&in_flight),
                    Arc::clone(&table),
                );
                let connection = tokio::spawn(serving).abort_handle();
                table.slots.lock().push_back(Slot { connection, in_flight });
            }
            Err(error) => {
                // Out of descriptors, most likely. They come back when connections end; trying again at once would only take CPU.
                tracing::warn!(%error, "admin server cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(
    admin: Arc<Admin>,
    stream: TcpStream,
    peer: SocketAddr,
    in_flight: Arc<AtomicUsize>,
    table: Arc<ConnectionTable>,
) {
    let service = service_fn(|request| {
        let (admin, in_flight, table) = (Arc::clone(&admin), Arc::clone(&in_flight), Arc::clone(&table));
        async move {
            let _in_flight = InFlight::begin(in_flight, table);
            Ok::<_, Infallible>(admin.answer(peer, request).await)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%peer, %error, "admin connection ended early");
    }
}

/// One request in progress.
struct InFlight {
    in_flight: Arc<AtomicUsize>,
    table: Arc<ConnectionTable>,
}

impl InFlight {
    fn begin(in_flight: Arc<AtomicUsize>, table: Arc<ConnectionTable>) -> Self {
        in_flight.fetch_add(1, Ordering::SeqCst);
        table.answering.fetch_add(1, Ordering::SeqCst);
        Self { in_flight, table }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.table.answering.fetch_sub(1, Ordering::SeqCst);
        self.table.answered.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Container;
    use crate::admin::{Report, registry};
    use hyper::StatusCode;
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_util::sync::CancellationToken;

    struct Fine;

    impl Report for Fine {
        fn readiness(&self) -> Result<(), String> {
            Ok(())
        }
        fn status(&self) -> Value {
            json!({})
        }
    }

    const CONTAINER: Container = Container { name: "file-puller", admin_port: 0, version: "0" };

    async fn start(release: Arc<Notify>) -> (SocketAddr, AdminHandle) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let admin = Admin::new(CONTAINER, Arc::new(Fine), registry(&CONTAINER), CancellationToken::new());
        let admin = admin.action("/slow", move || {
            let release = Arc::clone(&release);
            async move {
                release.notified().await;
                crate::admin::json(StatusCode::OK, &json!({}))
            }
        });
        (addr, admin.serve(listener))
    }

    async fn ask(addr: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    const LIVEZ: &str = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    const SLOW: &str = "POST /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn silent_connections_keep_no_probe_out() {
        let (addr, _handle) = start(Arc::default()).await;
        let mut silent = Vec::new();
        for _ in 0..3 * MAX_CONNECTIONS {
            silent.push(TcpStream::connect(addr).await.unwrap());
        }
        let answer =
            tokio::time::timeout(Duration::from_secs(1), ask(addr, LIVEZ)).await.expect("within a second");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn an_answer_that_was_begun_is_finished() {
        let release = Arc::<Notify>::default();
        let (addr, handle) = start(Arc::clone(&release)).await;
        let asked = tokio::spawn(async move { ask(addr, SLOW).await });
        while handle.table.answering.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        release.notify_one();
        handle.finish(Duration::from_secs(20)).await;
        assert!(asked.await.unwrap().starts_with("HTTP/1.1 200"));
        assert!(TcpStream::connect(addr).await.is_err(), "it is over");
    }
}
