//! `ndjson+http(s)://`: records in the body of a POST, one a line. Any 2xx confirms all of them.
//!
//! Every chunk carries an `Idempotency-Key` that is the same at every repetition, so that a receiver whose answer was lost
//! can tell that it has it.

use lifecycle::exit::Failure;
use reqwest::{StatusCode, Url};

use super::attempt::{DeliveryError, Payload, Retry};
use super::credentials::WatchedCredentials;
use super::http::Http;

/// A receiver.
#[derive(Debug)]
pub(super) struct Ndjson {
    http: Http,
}

impl Ndjson {
    pub(super) fn new(url: Url, credentials: WatchedCredentials) -> Result<Self, Failure> {
        Ok(Self { http: Http::new(url, "application/x-ndjson", credentials)? })
    }

    pub(super) async fn attempt(&mut self, payload: &Payload) -> Result<(), DeliveryError> {
        let answer = self.http.post(payload).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        let retry = match answer.status {
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                Retry::Reject
            }
            // Whatever else: a receiver that is overloaded, being mended, or not yet given the right path or
            // credentials. Lines wait for that in their files.
            _ => Retry::After(answer.retry_after),
        };
        Err(answer.error(retry))
    }
}
