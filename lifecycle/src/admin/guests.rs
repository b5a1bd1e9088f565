//! The admin server's connections.
//!
//! SECURITY: the port is open to the cluster, and a kubelet restarts a container whose probes get no answer within a
//! second. So nobody may fill the house: when it is full, the oldest guest who has not asked anything yet is shown the door,
//! and a probe, which asks at once, is always let in.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::task::AbortOnDropHandle;

use super::Admin;

/// Connections at once. Probes, a scraper and a person need few.
const GUESTS: usize = 64;
/// How long a guest may take to say what it wants, and may stay without asking again.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between attempts to accept where the system is out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running admin server; it stops when this is dropped.
#[derive(Debug)]
#[must_use = "the server stops when its handle is dropped"]
pub struct Serving {
    house: Arc<House>,
    accepting: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct House {
    guests: Mutex<VecDeque<Guest>>,
    /// Answers that are being made or sent.
    answering: AtomicUsize,
    answered: Notify,
}

#[derive(Debug)]
struct Guest {
    connection: AbortHandle,
    /// Its requests that are being answered; with none, nothing is lost when it has to go.
    asking: Arc<AtomicUsize>,
}

impl Serving {
    pub(super) fn start(admin: Arc<Admin>, listener: TcpListener) -> Self {
        let house = Arc::<House>::default();
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(admin, listener, Arc::clone(&house))));
        Self { house, accepting }
    }

    /// Lets answers that were begun reach who asked, for at most `patience`, and stops.
    pub async fn finish(self, patience: Duration) {
        self.accepting.abort();
        let house = &self.house;
        let quiet = async {
            loop {
                let answered = house.answered.notified();
                if house.answering.load(Ordering::SeqCst) == 0 {
                    // The last bytes are with hyper, which hands them to the kernel when its task next runs.
                    tokio::task::yield_now().await;
                    return;
                }
                answered.await;
            }
        };
        // Out of patience is how a drain may end: whoever asked sees the connection close.
        drop(tokio::time::timeout(patience, quiet).await);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        for guest in self.house.guests().drain(..) {
            guest.connection.abort();
        }
    }
}

impl House {
    fn guests(&self) -> MutexGuard<'_, VecDeque<Guest>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for one more.
    fn make_room(&self) {
        let mut guests = self.guests();
        guests.retain(|guest| !guest.connection.is_finished());
        if guests.len() >= GUESTS
            && let Some(idle) = guests.iter().position(|guest| guest.asking.load(Ordering::SeqCst) == 0)
            && let Some(guest) = guests.remove(idle)
        {
            guest.connection.abort();
        }
    }
}

async fn accept(admin: Arc<Admin>, listener: TcpListener, house: Arc<House>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                house.make_room();
                let asking = Arc::<AtomicUsize>::default();
                let conversation =
                    converse(Arc::clone(&admin), stream, peer, Arc::clone(&asking), Arc::clone(&house));
                let connection = tokio::spawn(conversation).abort_handle();
                house.guests().push_back(Guest { connection, asking });
            }
            Err(error) => {
                // Out of descriptors, most likely: they come back when connections end, and a tight loop helps nobody.
                tracing::warn!(%error, "admin server cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(
    admin: Arc<Admin>,
    stream: TcpStream,
    peer: SocketAddr,
    asking: Arc<AtomicUsize>,
    house: Arc<House>,
) {
    let service = service_fn(|request| {
        let (admin, asking, house) = (Arc::clone(&admin), Arc::clone(&asking), Arc::clone(&house));
        async move {
            let _asking = Asking::begin(asking, house);
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

/// One request that is being answered.
struct Asking {
    asking: Arc<AtomicUsize>,
    house: Arc<House>,
}

impl Asking {
    fn begin(asking: Arc<AtomicUsize>, house: Arc<House>) -> Self {
        asking.fetch_add(1, Ordering::SeqCst);
        house.answering.fetch_add(1, Ordering::SeqCst);
        Self { asking, house }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.asking.fetch_sub(1, Ordering::SeqCst);
        self.house.answering.fetch_sub(1, Ordering::SeqCst);
        self.house.answered.notify_waiters();
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

    async fn start(release: Arc<Notify>) -> (SocketAddr, Serving) {
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
    async fn silent_guests_keep_no_probe_out() {
        let (addr, _serving) = start(Arc::default()).await;
        let mut silent = Vec::new();
        for _ in 0..3 * GUESTS {
            silent.push(TcpStream::connect(addr).await.unwrap());
        }
        let answer =
            tokio::time::timeout(Duration::from_secs(1), ask(addr, LIVEZ)).await.expect("within a second");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn an_answer_that_was_begun_is_finished() {
        let release = Arc::<Notify>::default();
        let (addr, serving) = start(Arc::clone(&release)).await;
        let asked = tokio::spawn(async move { ask(addr, SLOW).await });
        while serving.house.answering.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        release.notify_one();
        serving.finish(Duration::from_secs(20)).await;
        assert!(asked.await.unwrap().starts_with("HTTP/1.1 200"));
        assert!(TcpStream::connect(addr).await.is_err(), "it is over");
    }
}
