//! `otlp+http(s)://`: OpenTelemetry's protocol, protobuf over HTTP, version 1. A 200 confirms; what its body calls a partial
//! success has refused some records for good.
//!
//! Only 429, 502, 503 and 504 say "the same again, later" in this protocol. A wrong address or credential (401, 403, 404, 405)
//! says nothing about the records, so they wait in their files. Every other status is about the request.

use lifecycle::exit::Failure;
use reqwest::{StatusCode, Url};

use super::Roots;
use super::attempt::{Accepted, DeliveryError, Payload, Retry};
use super::http::Http;

/// Where logs go when the URL names no path.
const PATH: &str = "/v1/logs";

/// A receiver.
#[derive(Debug)]
pub(super) struct Otlp {
    http: Http,
}

impl Otlp {
    pub(super) fn new(mut url: Url, roots: &Roots) -> Result<Self, Failure> {
        if url.path() == "/" {
            url.set_path(PATH);
        }
        Ok(Self { http: Http::new(url, "application/x-protobuf", roots)? })
    }

    pub(super) async fn attempt(&self, payload: &Payload) -> Result<Accepted, DeliveryError> {
        let answer = self.http.post(payload).await?;
        if answer.status.is_success() {
            return Ok(match partial_success(&answer.body) {
                // A receiver may say any number; it cannot have refused more than it was sent.
                Some((refused, reason)) if refused > 0 => {
                    Accepted::AllBut(refused.min(payload.records as u64), reason)
                }
                _ => Accepted::All,
            });
        }
        let retry = match answer.status {
            StatusCode::TOO_MANY_REQUESTS
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
}

/// `ExportLogsServiceResponse.partial_success`: how many records were refused, and why.
fn partial_success(answer: &[u8]) -> Option<(u64, String)> {
    let partial = field(answer, 1)?;
    let Field::Bytes(partial) = partial else { return None };
    let Some(Field::Number(refused)) = field(partial, 1) else { return None };
    let reason = match field(partial, 2) {
        Some(Field::Bytes(reason)) => String::from_utf8_lossy(reason).into_owned(),
        _ => String::new(),
    };
    Some((refused, reason))
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The first field with this number in a protobuf message.
fn field(mut message: &[u8], wanted: u64) -> Option<Field<'_>> {
    loop {
        let tag = varint(&mut message)?;
        let value = match tag & 7 {
            0 => Field::Number(varint(&mut message)?),
            1 => Field::Bytes(message.split_off(..8)?),
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                Field::Bytes(message.split_off(..length)?)
            }
            5 => Field::Bytes(message.split_off(..4)?),
            _ => return None,
        };
        if tag >> 3 == wanted {
            return Some(value);
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_success_is_read() {
        // { partial_success { rejected_log_records: 300, error_message: "no" } }
        assert_eq!(partial_success(b"\x0a\x07\x08\xac\x02\x12\x02no"), Some((300, "no".to_owned())));
        for answer in [&b""[..], b"\x0a\x00", b"\x0a\x05\x08", b"{}", b"\xff\xff\xff", b"\x0a\x02\x12\x00"] {
            assert_eq!(partial_success(answer), None, "{answer:?}");
        }
    }
}
