//! `ndjson+http(s)://`: records in the body of a POST, one a line. Any 2xx confirms all of them.
//!
//! Every chunk carries an `Idempotency-Key` that is the same at every repetition, so that a receiver whose answer was lost
//! can tell that it has it.

use std::time::{Duration, SystemTime};

use lifecycle::exit::{Exit, Failure, OrExit as _};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Certificate, Client, Response, StatusCode, Url, redirect};

use super::{Payload, Refusal, Remedy};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the first byte sent to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A longer answer is not read to its end.
const ANSWER_LIMIT: usize = 64 * 1024;

/// A receiver.
#[derive(Debug)]
pub(super) struct Ndjson {
    client: Client,
    url: Url,
}

impl Ndjson {
    pub(super) fn new(url: Url) -> Result<Self, Failure> {
        // Fails only where one is installed already, which then is the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        // A plain receiver needs no roots, and they are a megabyte of memory.
        let roots = if url.scheme() == "https" { webpki_root_certs::TLS_SERVER_ROOT_CERTS } else { &[] };
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
        Ok(Self { client, url })
    }

    pub(super) async fn attempt(&self, payload: &Payload) -> Result<(), Refusal> {
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/x-ndjson")
            .header("idempotency-key", &payload.key)
            .body(payload.body.clone());
        let mut answer = request.send().await.map_err(|error| Refusal::wait(describe(error)))?;
        if answer.status().is_success() {
            drain(&mut answer).await;
            return Ok(());
        }
        let remedy = match answer.status() {
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                Remedy::OtherContent
            }
            // Whatever else: a receiver that is overloaded, being mended, or not yet given the right path or
            // credentials. Lines wait for that in their files.
            _ => Remedy::Wait(retry_after(&answer)),
        };
        Err(Refusal { reason: format!("it answers {}", answer.status()), remedy })
    }
}

/// Reads what little an answer says, so that its connection can be used again. It is confirmed whatever this yields.
async fn drain(answer: &mut Response) {
    let mut rest = ANSWER_LIMIT;
    while let Ok(Some(part)) = answer.chunk().await {
        rest = rest.saturating_sub(part.len());
        if rest == 0 {
            return;
        }
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
