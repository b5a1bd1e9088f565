//! The formats that Apache and nginx made common, for readers that know no other.

use std::fmt::Write as _;
use std::time::SystemTime;

use http::header::{HeaderName, REFERER, USER_AGENT};
use http::uri::PathAndQuery;
use lifecycle::Ignore as _;

use super::record::Record;

impl Record<'_> {
    /// `client - - [time] "request line" status size`.
    pub(super) fn write_common(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(self.common().as_bytes());
    }

    /// The same with the referer and the user agent after it.
    pub(super) fn write_combined(&self, line: &mut Vec<u8>) {
        let (referer, agent) = (self.escaped(&REFERER), self.escaped(&USER_AGENT));
        line.extend_from_slice(format!("{} \"{referer}\" \"{agent}\"", self.common()).as_bytes());
    }

    fn common(&self) -> String {
        let request = self.request.map_or_else(String::new, |request| {
            let target = request.uri.path_and_query().map_or("*", PathAndQuery::as_str);
            format!("{} {} {:?}", request.method, escape(target.as_bytes()), request.version)
        });
        format!(
            "{} - - [{}] \"{request}\" {} {}",
            self.client,
            time(self.arrived),
            self.status.as_u16(),
            self.sent
        )
    }

    fn escaped(&self, name: &HeaderName) -> String {
        let value = self.request.and_then(|request| request.headers.get(name));
        value.map_or_else(|| "-".to_owned(), |value| escape(value.as_bytes()))
    }
}

/// `06/Nov/1994:08:49:37 +0000`, made from the HTTP date, which has the same parts.
fn time(time: SystemTime) -> String {
    let date = httpdate::fmt_http_date(time);
    let mut parts = date.split(' ').skip(1);
    let mut next = || parts.next().unwrap_or_default();
    let (day, month, year, clock) = (next(), next(), next(), next());
    format!("{day}/{month}/{year}:{clock} +0000")
}

/// Quotes, backslashes and all that is not printable ASCII as `\xHH`, so that no client can end the field, or the line.
fn escape(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len()), |mut text, byte| {
        if matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\') {
            text.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            write!(text, "\\x{byte:02X}").ignore();
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn time_is_as_apache_writes_it() {
        assert_eq!(time(UNIX_EPOCH + Duration::from_secs(784_111_777)), "06/Nov/1994:08:49:37 +0000");
    }

    #[test]
    fn no_byte_can_end_a_field() {
        assert_eq!(escape(b"a \"b\"\\\n\xff~"), "a \\x22b\\x22\\x5C\\x0A\\xFF~");
    }
}
