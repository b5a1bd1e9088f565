//! A POST to a receiver: the client, the headers that every payload has, and the answer as far as it matters.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use lifecycle::exit::{Exit, Failure, OrExit as _};
use parking_lot::Mutex;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use tokio::time::Instant;

use super::attempt::{DeliveryError, Payload, Retry};
use super::credentials::{Credentials, WatchedCredentials};
use super::watchdog::Watchdog;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Handed over at once: small enough to see a slow receiver take one after the other.
const PIECE: usize = 64 * 1024;

/// A longer answer is not read to its end.
const ANSWER_LIMIT: usize = 64 * 1024;

/// A receiver's address and the way there.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    credentials: WatchedCredentials,
    url: Url,
    content_type: &'static str,
    watchdog: Watchdog,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    /// At most [`ANSWER_LIMIT`] of it.
    pub(super) body: Vec<u8>,
}

impl Http {
    pub(super) fn new(
        url: Url,
        content_type: &'static str,
        credentials: WatchedCredentials,
    ) -> Result<Self, Failure> {
        let client = client(credentials.current()).or_exit(Exit::Internal)?;
        Ok(Self { client, credentials, url, content_type, watchdog: Watchdog::default() })
    }

    /// Sends a payload and reads the answer. It may take any time as long as something moves: an attempt is over when nothing has for
    /// as long as the payload says, or when the body of the answer has not come within that time.
    pub(super) async fn post(&mut self, payload: &Payload) -> Result<Answer, DeliveryError> {
        if self.credentials.refresh().await {
            self.client =
                client(self.credentials.current()).map_err(|error| DeliveryError::retry(describe(error)))?;
        }
        let progress = Arc::new(Progress::begin());
        let body = Pieces { rest: payload.body.clone(), progress: Arc::clone(&progress) };
        let mut request = self
            .client
            .post(self.url.clone())
            .headers(self.credentials.current().headers.clone())
            .header(CONTENT_TYPE, self.content_type)
            .header("idempotency-key", &payload.key);
        if let Some(encoding) = payload.compression.as_str() {
            request = request.header(CONTENT_ENCODING, encoding);
        }
        let mut answer = tokio::select! {
            sent = request.body(reqwest::Body::wrap(body)).send() => {
                sent.map_err(|error| DeliveryError::retry(describe(error)))?
            }
            () = progress.stalled(payload.timeout, &mut self.watchdog) => {
                return Err(DeliveryError::slow(payload.timeout));
            }
        };
        progress.note();
        let (status, retry_after) = (answer.status(), retry_after(&answer));
        let mut body = Vec::new();
        // The status has decided already, so that an answer that breaks off or hangs is as good as a whole one.
        tokio::select! {
            () = read(&mut answer, &mut body) => {}
            () = progress.stalled(payload.timeout, &mut self.watchdog) => {}
        }
        Ok(Answer { status, retry_after, body })
    }
}

fn client(credentials: &Credentials) -> reqwest::Result<Client> {
    Client::builder()
        .user_agent(concat!("log-agent/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured((*credentials.tls).clone())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(1)
        // SECURITY: records go where they were configured to go, and nowhere that a receiver names.
        .redirect(redirect::Policy::none())
        .build()
}

/// When something last moved on a connection.
#[derive(Debug)]
struct Progress {
    last: Mutex<Instant>,
}

impl Progress {
    fn begin() -> Self {
        Self { last: Mutex::new(Instant::now()) }
    }

    fn note(&self) {
        *self.last.lock() = Instant::now();
    }

    /// Returns when nothing has moved for this long.
    async fn stalled(&self, timeout: Duration, watchdog: &mut Watchdog) {
        loop {
            let due = *self.last.lock() + timeout;
            if due <= Instant::now() {
                return;
            }
            watchdog.wait_until(due).await;
        }
    }
}

/// A body that notes when a piece of it is taken. Its length is known, so it goes with a `Content-Length`.
struct Pieces {
    rest: Bytes,
    progress: Arc<Progress>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        self.progress.note();
        let piece = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl Answer {
    pub(super) fn error(&self, retry: Retry) -> DeliveryError {
        DeliveryError { reason: format!("it answers {}", self.status), retry }
    }
}

/// Reads what little an answer says, also so that its connection can be used again.
async fn read(answer: &mut Response, body: &mut Vec<u8>) {
    while body.len() < ANSWER_LIMIT
        && let Ok(Some(part)) = answer.chunk().await
    {
        body.extend_from_slice(&part);
    }
}

/// The error with its causes, without the URL, which may hold a secret.
fn describe(error: reqwest::Error) -> String {
    format!("{:#}", anyhow::Error::new(error.without_url()))
}

/// RFC 9110, section 10.2.3: seconds, or a date.
fn retry_after(answer: &Response) -> Option<Duration> {
    let value = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).ok()
}
