//! `ndjson+http(s)://`: records in the body of a POST, one a line. Any 2xx confirms all of them.
//!
//! Every chunk carries an `Idempotency-Key` that is the same at every repetition, so that a receiver whose answer was lost
//! can tell that it has it.

use lifecycle::exit::Failure;
use reqwest::{StatusCode, Url};

use super::http::Http;
use super::{Payload, Refusal, Remedy, Roots};

/// A receiver.
#[derive(Debug)]
pub(super) struct Ndjson {
    http: Http,
}

impl Ndjson {
    pub(super) fn new(url: Url, roots: &Roots) -> Result<Self, Failure> {
        Ok(Self { http: Http::new(url, "application/x-ndjson", roots)? })
    }

    pub(super) async fn attempt(&self, payload: &Payload) -> Result<(), Refusal> {
        let answer = self.http.post(payload).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        let remedy = match answer.status {
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                Remedy::OtherContent
            }
            // Whatever else: a receiver that is overloaded, being mended, or not yet given the right path or
            // credentials. Lines wait for that in their files.
            _ => Remedy::Wait(answer.retry_after),
        };
        Err(answer.refusal(remedy))
    }
}
