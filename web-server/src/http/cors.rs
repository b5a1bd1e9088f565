//! Cross-origin requests (CORS): which other sites' scripts may read the content.
//!
//! Content here needs no credentials, so an origin that is allowed gets the same answer as every other client. Lists are
//! answered with the one origin that asked, and every answer says that it varies by `Origin`, so that a shared cache keeps
//! them apart.

use std::str::FromStr;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method};

/// What a script may read of an answer beyond the names that it always may.
const EXPOSED: HeaderValue = HeaderValue::from_static("accept-ranges, content-range, etag, x-request-id");
/// How long a browser need not ask again, in seconds; browsers cut it to two hours or less.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// The origins that are allowed. Empty where `--cors` is not given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cors(pub(crate) Vec<Origin>);

impl Cors {
    /// Adds to an answer who may read it.
    pub(crate) fn apply(&self, request: &Parts, headers: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        if !self.0.contains(&Origin::Any) {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        if let Some(allowed) = self.allowed(request) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }

    /// Adds to the answer of an OPTIONS request what a preflight asks for.
    pub(crate) fn apply_preflight(&self, request: &Parts, headers: &mut HeaderMap) {
        let asked = request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if self.0.is_empty() || request.method != Method::OPTIONS || !asked {
            return;
        }
        headers.append(
            VARY,
            HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers"),
        );
        let Some(allowed) = self.allowed(request) else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        // A header of a GET changes nothing here, whatever it is.
        if let Some(wanted) = request.headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
    }

    fn allowed(&self, request: &Parts) -> Option<HeaderValue> {
        let origin = request.headers.get(ORIGIN)?;
        self.0.iter().find_map(|allowed| match allowed {
            Origin::Any => Some(HeaderValue::from_static("*")),
            Origin::One(allowed) => (allowed == origin).then(|| origin.clone()),
        })
    }
}

/// One value of `--cors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Any,
    /// As browsers write it (RFC 6454 section 6.2): in lower case, and without the port that the scheme has anyway.
    One(HeaderValue),
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let wrong =
            || format!("{text} is no origin; write scheme, host and port, such as https://app.example, or *");
        let lower = text.to_ascii_lowercase();
        let (scheme, authority) = lower.split_once("://").ok_or_else(wrong)?;
        let authority: Authority = authority.parse().map_err(|_| wrong())?;
        let host = authority.host();
        let name = |c: char| c.is_ascii_alphanumeric() || "-.:[]_".contains(c);
        if scheme.is_empty() || host.is_empty() || !host.chars().all(name) || scheme.contains(['/', ' ']) {
            return Err(wrong());
        }
        let port = match authority.as_str().strip_prefix(host).ok_or_else(wrong)?.strip_prefix(':') {
            None => None,
            Some(port) => Some(port.parse::<u16>().map_err(|_| wrong())?),
        };
        let origin = match (scheme, port) {
            (_, None) | ("http", Some(80)) | ("https", Some(443)) => format!("{scheme}://{host}"),
            (_, Some(port)) => format!("{scheme}://{host}:{port}"),
        };
        HeaderValue::from_str(&origin).map(Self::One).map_err(|_| wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for good in ["*", "https://app.example", "http://localhost:3000", "http://[::1]:80"] {
            assert!(good.parse::<Origin>().is_ok(), "{good}");
        }
        let bad = [
            "app.example",
            "https://app.example/",
            "https://a@app.example",
            "https://:1",
            "https://a:",
            "https://a:99999",
            "https://",
            "null",
            "",
        ];
        for bad in bad {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_origin_is_compared_as_browsers_write_it() {
        for (given, written) in [
            ("HTTPS://App.example", "https://app.example"),
            ("https://app.example:443", "https://app.example"),
            ("http://app.example:80", "http://app.example"),
            ("https://app.example:80", "https://app.example:80"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://localhost:03000", "http://localhost:3000"),
            ("app://localhost", "app://localhost"),
        ] {
            assert_eq!(given.parse(), Ok(Origin::One(HeaderValue::from_static(written))), "{given}");
        }
    }
}
