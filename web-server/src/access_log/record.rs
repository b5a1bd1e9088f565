//! What a line says: the names are OpenTelemetry's semantic conventions, the order is the contract's (docs/contract.md).

use std::borrow::Cow;
use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{HOST, HeaderName, REFERER, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, StatusCode, Uri, Version};
use lifecycle::escape;

use crate::content::release::ReleaseId;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// One response, when it came to its end.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    /// What was asked; none where what came was no request.
    pub(crate) request: Option<&'a Parts>,
    /// As the response's X-Request-Id has it.
    pub(crate) request_id: &'a [u8],
    /// Who asked: an IP address.
    pub(crate) client: &'a str,
    /// Who passed the request on for the client: the peer's address, where that is another.
    pub(crate) peer: Option<&'a str>,
    /// When the request arrived.
    pub(crate) arrived: SystemTime,
    /// From then to the end of the response.
    pub(crate) took: Duration,
    /// As it was sent.
    pub(crate) status: StatusCode,
    /// Body bytes that were sent.
    pub(crate) sent: u64,
    /// The release that it was answered from.
    pub(crate) release: Option<&'a ReleaseId>,
}

/// What stands before a member's value.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
}

impl Record<'_> {
    /// One JSON object. Whatever a client may have put into it is escaped, line feeds first of all.
    pub(super) fn write_json(&self, line: &mut Vec<u8>) {
        let uri = self.request.map(|request| &request.uri);
        let method = self.request.map_or("", |request| request.method.as_str());
        let version = self.request.map_or("", |request| version(request.version));
        let server = match uri.and_then(Uri::authority) {
            Some(authority) => authority.as_str().as_bytes(),
            None => self.header(&HOST),
        };
        line.extend_from_slice(b"{\"timestamp\":\"");
        write_timestamp(self.arrived, line);
        line.push(b'"');
        write_text(line, key!("client.address"), self.client.as_bytes());
        write_text(line, key!("http.request.method"), method.as_bytes());
        write_text(line, key!("url.path"), uri.map_or("", Uri::path).as_bytes());
        write_text(line, key!("url.query"), uri.and_then(Uri::query).unwrap_or_default().as_bytes());
        write_number(line, key!("http.response.status_code"), self.status.as_u16().into());
        write_number(line, key!("http.response.body.size"), self.sent);
        write_number(line, key!("http.server.request.duration"), self.took.as_secs());
        line.push(b'.');
        line.extend_from_slice(&six_digits(self.took.subsec_micros()));
        write_text(line, key!("network.protocol.version"), version.as_bytes());
        write_text(line, key!("server.address"), server);
        write_text(line, key!("user_agent.original"), self.header(&USER_AGENT));
        write_text(line, key!("http.request.header.referer"), self.header(&REFERER));
        write_text(line, key!("request.id"), self.request_id);
        write_text(line, key!("release.id"), self.release.map_or("", ReleaseId::as_str).as_bytes());
        if let Some(peer) = self.peer {
            write_text(line, key!("network.peer.address"), peer.as_bytes());
        } else if let Some(value) = self.forwarded_for() {
            // The client's address according to a peer that is not trusted to state it.
            write_text(line, key!("http.request.header.x-forwarded-for"), &value);
        }
        line.push(b'}');
    }

    /// All lines of the field as one list (RFC 9110 section 5.3): the last one is the nearest proxy's.
    fn forwarded_for(&self) -> Option<Cow<'_, [u8]>> {
        let mut lines = self.request?.headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
        let mut list = Cow::Borrowed(lines.next()?);
        for line in lines {
            let list = list.to_mut();
            list.extend_from_slice(b", ");
            list.extend_from_slice(line);
        }
        Some(list)
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

/// A member that is text. A header's bytes need not be text; a line of the log has to be.
fn write_text(line: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    line.extend_from_slice(key);
    let plain = |byte: u8| matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~');
    // To the end, without a way out: most values are short and plain.
    if value.iter().fold(true, |all, byte| all & plain(*byte)) {
        line.push(b'"');
        line.extend_from_slice(value);
        line.push(b'"');
    } else {
        let json = serde_json::Value::from(String::from_utf8_lossy(value)).to_string();
        line.extend_from_slice(escape::json(&json).as_bytes());
    }
}

fn write_number(line: &mut Vec<u8>, key: &[u8], value: u64) {
    line.extend_from_slice(key);
    line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// With zeros before it. What is above 999,999 loses its front.
fn six_digits(number: u32) -> [u8; 6] {
    let mut left = number;
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit += (left % 10) as u8;
        left /= 10;
    }
    digits
}

thread_local! {
    /// The last second that was written, and how, without the `Z`: many lines share it.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// RFC 3339, UTC, microseconds.
fn write_timestamp(time: SystemTime, line: &mut Vec<u8>) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() {
            *second = since.as_secs();
            *text = humantime::format_rfc3339_seconds(time).to_string();
            text.pop();
        }
        line.extend_from_slice(text.as_bytes());
    });
    line.push(b'.');
    line.extend_from_slice(&six_digits(since.subsec_micros()));
    line.push(b'Z');
}

#[cfg(test)]
mod tests {
    use lifecycle::escape::is_unsafe;

    use super::*;

    #[test]
    fn no_character_acts_on_a_terminal_or_ends_a_line() {
        let text = "a\u{85}b\u{9b}2J\u{2028}\u{2029}\u{202e}\u{2066}\u{7f}\n\"\\é";
        let mut line = Vec::new();
        write_text(&mut line, b"", text.as_bytes());
        let line = String::from_utf8(line).unwrap();
        assert!(!line.contains(is_unsafe), "{line:?}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }

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
