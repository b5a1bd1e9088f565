//! An HTTP server that does what the test says: a content manager or a log receiver, healthy or not.

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::http::{Length, Message, read_body, read_head};
use crate::wait::DEADLINE;

/// What to do with one request.
pub enum Answer {
    /// A whole response; Content-Length is added, and left out of it for a HEAD request's body.
    Whole {
        /// Status code.
        status: u16,
        /// Besides Content-Length.
        headers: Vec<(String, String)>,
        /// All of it.
        body: Vec<u8>,
    },
    /// The test writes what it likes, and the connection is closed when it returns.
    Raw(Box<dyn FnOnce(&mut TcpStream) + Send>),
}

impl Answer {
    /// A response with this status and body, and no headers of its own.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::Whole { status, headers: Vec::new(), body: body.into() }
    }

    /// Adds a header to a whole response.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        match &mut self {
            Self::Whole { headers, .. } => headers.push((name.to_owned(), value.to_owned())),
            Self::Raw(_) => panic!("a raw answer writes its own headers"),
        }
        self
    }

    /// Whatever the test does with the connection.
    pub fn raw(act: impl FnOnce(&mut TcpStream) + Send + 'static) -> Self {
        Self::Raw(Box::new(act))
    }
}

type Handler = dyn Fn(&Message) -> Answer + Send + Sync;

/// A server on loopback that lives as long as this value, and keeps every request that it got.
pub struct Upstream {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    handler: Mutex<Arc<Handler>>,
    requests: Mutex<Vec<Message>>,
    connections: AtomicUsize,
    stopped: AtomicBool,
}

impl Upstream {
    /// Starts on a free port.
    pub fn start(handler: impl Fn(&Message) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0".parse().expect("an address"), handler)
    }

    /// Starts on a given address: a server that comes back where it was.
    pub fn start_on(addr: SocketAddr, handler: impl Fn(&Message) -> Answer + Send + Sync + 'static) -> Self {
        let listener =
            TcpListener::bind(addr).unwrap_or_else(|error| panic!("cannot listen on {addr}: {error}"));
        let addr = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            handler: Mutex::new(Arc::new(handler)),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || serve(&listener, &serving));
        Self { addr, shared }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// An URL on this server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// From the next request on, answers like this.
    pub fn answer(&self, handler: impl Fn(&Message) -> Answer + Send + Sync + 'static) {
        *self.shared.handler.lock() = Arc::new(handler);
    }

    /// All requests so far, bodies included.
    pub fn requests(&self) -> Vec<Message> {
        self.shared.requests.lock().clone()
    }

    /// Connections so far on which a request came.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Forgets the requests so far, so that a test can count from here.
    pub fn forget(&self) {
        self.shared.requests.lock().clear();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees that it is over and closes the port.
        drop(TcpStream::connect(self.addr));
    }
}

fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        if let Ok(stream) = stream {
            let shared = Arc::clone(shared);
            // A connection that breaks is the test's doing, or the client's right.
            std::thread::spawn(move || drop(converse(stream, &shared)));
        }
    }
}

fn converse(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut is_new = true;
    loop {
        let mut request = read_head(&mut reader)?;
        if std::mem::take(&mut is_new) {
            shared.connections.fetch_add(1, Ordering::SeqCst);
        }
        request.body = read_body(&mut reader, &request, Length::Nothing)?;
        if shared.stopped.load(Ordering::SeqCst) {
            return Ok(());
        }
        let handler = Arc::clone(&*shared.handler.lock());
        shared.requests.lock().push(request.clone());
        match handler(&request) {
            Answer::Raw(act) => {
                act(&mut stream);
                return Ok(());
            }
            Answer::Whole { status, headers, body } => {
                let mut head = format!("HTTP/1.1 {status} Status\r\n");
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                if status != 304 {
                    head.push_str(&format!("Content-Length: {}\r\n", body.len()));
                }
                head.push_str("\r\n");
                stream.write_all(head.as_bytes())?;
                if status != 304 && !request.start.starts_with("HEAD ") {
                    stream.write_all(&body)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::get;

    #[test]
    fn answers_as_told_and_keeps_the_requests() {
        let upstream = Upstream::start(|request| Answer::new(200, request.target()));
        assert_eq!(get(upstream.addr(), "/a?b").text(), "/a?b");
        upstream.answer(|_| Answer::new(503, "").with("Retry-After", "1"));
        let answer = get(upstream.addr(), "/");
        assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")));
        assert_eq!(upstream.requests().len(), 2);
    }

    #[test]
    fn a_dropped_server_is_gone() {
        let upstream = Upstream::start(|_| Answer::new(200, ""));
        let addr = upstream.addr();
        drop(upstream);
        crate::wait_until("nothing listens", || TcpStream::connect(addr).is_err());
    }
}
