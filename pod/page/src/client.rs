//! A container next door, asked over the Pod's localhost.
//!
//! It may be gone, hang, or answer without end: every question has a deadline, and every answer a greatest size. The
//! connection is kept between questions, so that looking often costs little.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use lifecycle::Ignore as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// The longest answer that is read. log-agent names every file that it follows.
const ANSWER_MAX: usize = 1024 * 1024;

/// A neighbour's admin port.
#[derive(Debug)]
pub(crate) struct Client {
    addr: SocketAddr,
    kept: Option<Conversation>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Client {
    /// Not asked anything yet.
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self { addr, kept: None }
    }

    /// Where its admin port is.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Asks with GET.
    ///
    /// # Errors
    /// Where no whole answer comes within `limit`.
    pub(crate) async fn get(&mut self, path: &'static str, limit: Duration) -> Result<Answer, String> {
        let asked = async {
            // A connection that was kept may have been closed since, which says nothing about the neighbour.
            if let Some(mut kept) = self.kept.take()
                && let Ok(answer) = kept.ask(Method::GET, path).await
            {
                return Ok((answer, kept));
            }
            let mut opened = Conversation::open(self.addr).await?;
            Ok((opened.ask(Method::GET, path).await?, opened))
        };
        let (answer, conversation) = within(limit, asked).await?;
        self.kept = Some(conversation);
        Ok(answer)
    }

    /// Asks for something to be done, once: on a connection of its own, and not again where it fails.
    ///
    /// # Errors
    /// Where no whole answer comes within `limit`; it may have been done all the same.
    pub(crate) async fn post(&self, path: &'static str, limit: Duration) -> Result<Answer, String> {
        within(limit, async { Conversation::open(self.addr).await?.ask(Method::POST, path).await }).await
    }

    /// Ends the conversation until there is another question.
    pub(crate) fn hang_up(&mut self) {
        self.kept = None;
    }
}

/// A connection to a neighbour.
#[derive(Debug)]
struct Conversation {
    host: HeaderValue,
    sender: SendRequest<Empty<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What came of it, or why nothing came, in words for people.
async fn within<T>(limit: Duration, asked: impl Future<Output = Outcome<T>>) -> Result<T, String> {
    let Ok(outcome) = timeout(limit, asked).await else {
        return Err(format!("no answer within {}", humantime::format_duration(limit)));
    };
    outcome.map_err(|error| match error.downcast_ref::<std::io::Error>() {
        // Without the system's number for it.
        Some(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            "nothing listens on its port".to_owned()
        }
        _ => error.to_string(),
    })
}

impl Conversation {
    async fn open(addr: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(addr).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // How the connection ends is what the next request finds out.
        let driver = AbortOnDropHandle::new(tokio::spawn(async move { connection.await.ignore() }));
        Ok(Self { host: HeaderValue::try_from(addr.to_string())?, sender, _driver: driver })
    }

    async fn ask(&mut self, method: Method, path: &'static str) -> Outcome<Answer> {
        self.sender.ready().await?;
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        *request.uri_mut() = http::Uri::from_static(path);
        request.headers_mut().insert(HOST, self.host.clone());
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await?.to_bytes();
        Ok(Answer { status, body })
    }
}
