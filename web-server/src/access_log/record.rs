//! What a line says: the names are OpenTelemetry's semantic conventions, the order is the contract's (docs/contract.md).

use std::cell::RefCell;
use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{HOST, HeaderName, REFERER, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, StatusCode, Uri, Version};

use crate::published::ReleaseId;

/// One response, when it came to its end.
#[derive(Debug)]
pub struct Record<'a> {
    /// What was asked; none where what came was no request.
    pub request: Option<&'a Parts>,
    /// As the response's X-Request-Id has it.
    pub request_id: &'a HeaderValue,
    /// Who asked.
    pub peer: SocketAddr,
    /// When the request arrived.
    pub arrived: SystemTime,
    /// From then to the end of the response.
    pub took: Duration,
    /// As it was sent.
    pub status: StatusCode,
    /// Body bytes that were sent.
    pub sent: u64,
    /// The release that it was answered from.
    pub release: Option<&'a ReleaseId>,
}

impl Record<'_> {
    /// One JSON object. JSON escapes whatever a client may have put into it, line feeds first of all.
    pub(super) fn write_json(&self, line: &mut Vec<u8>) {
        let uri = self.request.map(|request| &request.uri);
        let server = match uri.and_then(Uri::authority) {
            Some(authority) => authority.as_str().as_bytes(),
            None => self.header(&HOST),
        };
        line.extend_from_slice(b"{\"timestamp\":\"");
        write_timestamp(self.arrived, line);
        line.extend_from_slice(b"\",\"client.address\":\"");
        append(line, format_args!("{}\"", self.peer.ip().to_canonical()));
        let mut object = Object { line };
        object.text("http.request.method", self.request.map_or("", |request| request.method.as_str()));
        object.text("url.path", uri.map_or("", Uri::path));
        object.text("url.query", uri.and_then(Uri::query).unwrap_or_default());
        object.number("http.response.status_code", format_args!("{}", self.status.as_u16()));
        object.number("http.response.body.size", format_args!("{}", self.sent));
        let (seconds, micros) = (self.took.as_secs(), self.took.subsec_micros());
        object.number("http.server.request.duration", format_args!("{seconds}.{micros:06}"));
        object.text("network.protocol.version", self.request.map_or("", |request| version(request.version)));
        object.bytes("server.address", server);
        object.bytes("user_agent.original", self.header(&USER_AGENT));
        object.bytes("http.request.header.referer", self.header(&REFERER));
        object.bytes("request.id", self.request_id.as_bytes());
        object.text("release.id", self.release.map_or("", ReleaseId::as_str));
        line.push(b'}');
    }

    fn header(&self, name: &HeaderName) -> &[u8] {
        let value = self.request.and_then(|request| request.headers.get(name));
        value.map_or(b"", HeaderValue::as_bytes)
    }
}

/// As OpenTelemetry names the versions of HTTP.
fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

/// Members of a JSON object after the first, written as they come.
struct Object<'a> {
    line: &'a mut Vec<u8>,
}

impl Object<'_> {
    fn key(&mut self, key: &str) {
        self.line.extend_from_slice(b",\"");
        self.line.extend_from_slice(key.as_bytes());
        self.line.extend_from_slice(b"\":");
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
        if value.bytes().all(plain) {
            self.line.push(b'"');
            self.line.extend_from_slice(value.as_bytes());
            self.line.push(b'"');
        } else {
            self.line.extend_from_slice(serde_json::Value::from(value).to_string().as_bytes());
        }
    }

    /// A header's bytes need not be text; a line of the log has to be.
    fn bytes(&mut self, key: &str, value: &[u8]) {
        self.text(key, &String::from_utf8_lossy(value));
    }

    fn number(&mut self, key: &str, value: fmt::Arguments<'_>) {
        self.key(key);
        append(self.line, value);
    }
}

fn append(line: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    line.write_fmt(text).expect("memory takes any text");
}

thread_local! {
    /// The last second that was written, and how: many lines share it.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// RFC 3339, UTC, microseconds.
fn write_timestamp(time: SystemTime, line: &mut Vec<u8>) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() {
            *second = since.as_secs();
            *text = humantime::format_rfc3339_seconds(time).to_string();
        }
        line.extend_from_slice(text.trim_end_matches('Z').as_bytes());
    });
    append(line, format_args!(".{:06}Z", since.subsec_micros()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_what_humantime_makes_of_them() {
        for micros in [0, 1, 999_999, 1_000_000, 1_732_400_000_000_007_u64] {
            let time = UNIX_EPOCH + Duration::from_micros(micros);
            let mut line = Vec::new();
            write_timestamp(time, &mut line);
            let expected = humantime::format_rfc3339_micros(time).to_string();
            assert_eq!(String::from_utf8(line).unwrap(), expected);
        }
    }
}
