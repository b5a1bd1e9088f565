//! `otlp+http(s)://`: OpenTelemetry's protocol, protobuf over HTTP, version 1. A 200 confirms; what its body calls a partial
//! success has refused some records for good.
//!
//! Only 429, 502, 503 and 504 say "the same again, later" in this protocol. Six more are taken so, on purpose, because they say nothing
//! about the records: a receiver or a proxy that waited for the request for too long or was asked too early (408, 425), and a wrong
//! address or credential (401, 403, 404, 405). Every other status is about the request.

use lifecycle::Ignore as _;
use prost::Message;
use reqwest::{StatusCode, Url};

use super::attempt::{Accepted, DeliveryError, Retry};
use super::http::Answer;

pub(super) const CONTENT_TYPE: &str = "application/x-protobuf";

/// Logs go to `/v1/logs` where the URL names no path.
pub(super) fn url(mut url: Url) -> Url {
    if url.path() == "/" {
        url.set_path("/v1/logs");
    }
    url
}

/// What an answer to so many records means.
pub(super) fn verdict(answer: &Answer, records: usize) -> Result<Accepted, DeliveryError> {
    let retry = match answer.status {
        status if status.is_success() => {
            return Ok(match partial_success(&answer.body) {
                // A receiver may say any number; it cannot have refused more than it was sent.
                Some((refused, reason)) => Accepted::AllBut(refused.min(records as u64), reason),
                None => Accepted::All,
            });
        }
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_EARLY
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT
        | StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED => Retry::After(answer.retry_after),
        // A redirect is a wrong address, too.
        status if status.is_redirection() => Retry::After(None),
        status if status.is_server_error() => Retry::MaybeReject,
        _ => Retry::Reject,
    };
    Err(answer.error(retry))
}

/// `ExportLogsServiceResponse.partial_success`, which is the response's only field: how many records were refused, and why.
///
/// An answer may break off, or be longer than what is read of it. So what can be read of it counts.
fn partial_success(answer: &[u8]) -> Option<(u64, String)> {
    let mut rest = answer.strip_prefix(&[PARTIAL_SUCCESS])?;
    let len = prost::decode_length_delimiter(&mut rest).ok()?;
    let mut partial = PartialSuccess::default();
    // Keeps the fields before whatever is wrong.
    partial.merge(&rest[..len.min(rest.len())]).ignore();
    let reason = String::from_utf8_lossy(&partial.reason).into_owned();
    // A receiver that says a negative number has refused some, and cannot count.
    (partial.rejected != 0).then(|| (partial.rejected.cast_unsigned(), reason))
}

/// Field 1, with a length.
const PARTIAL_SUCCESS: u8 = 1 << 3 | 2;

/// `ExportLogsPartialSuccess`
#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    /// A string, which not every receiver knows to be UTF-8.
    #[prost(bytes = "vec", tag = "2")]
    reason: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_success_is_read() {
        // { partial_success { rejected_log_records: 300, error_message: "no" } }
        assert_eq!(partial_success(b"\x0a\x07\x08\xac\x02\x12\x02no"), Some((300, "no".to_owned())));
        for (broken, reason) in [
            (&b"\x0a\x07\x08\xac\x02\x12\x02\xffo"[..], "\u{fffd}o"),
            (b"\x0a\x07\x12\x02\xffo\x08\xac\x02", "\u{fffd}o"),
            (b"\x0a\x07\x08\xac\x02\x12\x02n", ""),
            (b"\x0a\x80\x80\x08\x08\xac\x02", ""),
        ] {
            assert_eq!(partial_success(broken), Some((300, reason.to_owned())), "{broken:?}");
        }
        for answer in [&b""[..], b"\x0a\x00", b"\x0a\x05\x08", b"{}", b"\xff\xff\xff", b"\x0a\x02\x12\x00"] {
            assert_eq!(partial_success(answer), None, "{answer:?}");
        }
    }
}
