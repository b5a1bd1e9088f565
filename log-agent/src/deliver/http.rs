//! A POST to a receiver: the client, the headers that every payload has, and the answer as far as it matters.

use std::time::{Duration, SystemTime};

use lifecycle::exit::{Exit, Failure, OrExit as _};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Certificate, Client, Response, StatusCode, Url, redirect};

use super::attempt::{DeliveryError, Payload, Retry};
use super::{Roots, tls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the first byte sent to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A longer answer is not read to its end.
const ANSWER_LIMIT: usize = 64 * 1024;

/// A receiver's address and the way there.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    url: Url,
    content_type: &'static str,
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
    pub(super) fn new(url: Url, content_type: &'static str, roots: &Roots) -> Result<Self, Failure> {
        tls::install();
        // A plain receiver needs no roots, and they are a megabyte of memory.
        let roots = if url.scheme() == "https" { roots.certificates() } else { Vec::new() };
        let roots: Result<Vec<_>, _> = roots.iter().map(|der| Certificate::from_der(der)).collect();
        let client = Client::builder()
            .user_agent(concat!("log-agent/", env!("CARGO_PKG_VERSION")))
            .tls_certs_only(roots.or_exit(Exit::Internal)?)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(1)
            // SECURITY: records go where they were configured to go, and nowhere that a receiver names.
            .redirect(redirect::Policy::none())
            .build()
            .or_exit(Exit::Internal)?;
        Ok(Self { client, url, content_type })
    }

    pub(super) async fn post(&self, payload: &Payload) -> Result<Answer, DeliveryError> {
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, self.content_type)
            .header("idempotency-key", &payload.key);
        if let Some(encoding) = payload.compression.as_str() {
            request = request.header(CONTENT_ENCODING, encoding);
        }
        let sent = request.body(payload.body.clone()).send().await;
        let mut answer = sent.map_err(|error| DeliveryError::retry(describe(error)))?;
        let (status, retry_after) = (answer.status(), retry_after(&answer));
        Ok(Answer { status, retry_after, body: read(&mut answer).await })
    }
}

impl Answer {
    pub(super) fn error(&self, retry: Retry) -> DeliveryError {
        DeliveryError { reason: format!("it answers {}", self.status), retry }
    }
}

/// Reads what little an answer says, also so that its connection can be used again. The status has decided already, so
/// that an answer that breaks off is as good as a whole one.
async fn read(answer: &mut Response) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < ANSWER_LIMIT
        && let Ok(Some(part)) = answer.chunk().await
    {
        body.extend_from_slice(&part);
    }
    body
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
