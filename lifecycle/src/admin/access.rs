//! Which requests are let through, beyond their path: names against DNS rebinding, origins against other sites' pages.
//!
//! SECURITY: a browser on this machine runs pages of other sites, and each can send requests to `localhost`. Two things tell
//! such a request from one that is meant: the name it is sent to (an attacker can point a name of its own at 127.0.0.1, but
//! the browser still sends that name as `Host`), and for what changes state the site it comes from (`Origin`,
//! `Sec-Fetch-Site`, which a page cannot set).

use hyper::HeaderMap;
use hyper::header::{HOST, HeaderName, ORIGIN};
use hyper::http::uri::Authority;
use std::net::IpAddr;

/// Fetch Metadata, a W3C working draft that all browsers follow: where the request was caused.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Names, besides those that cannot be registered in public DNS, under which a container answers loopback peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts {
    names: Vec<String>,
}

impl AllowedHosts {
    /// From the values of `--allowed-host`.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let names = names.into_iter().map(|name| name.trim_end_matches('.').to_ascii_lowercase()).collect();
        Self { names }
    }

    /// Whether `authority`, a `Host` with or without its port, can only mean this machine, this Pod or this cluster:
    ///
    /// - an IP literal, `localhost` and names beneath it (RFC 6761)
    /// - a name without a dot: the Pod's, a Service's, a Compose service's. No public name is one
    /// - a Service's longer names, which end in `.svc` or `.cluster.local`
    /// - a name from `--allowed-host`
    pub fn allows(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        let service = |suffix: &str| host.len() > suffix.len() && host.ends_with(suffix);
        !host.is_empty()
            && (literal.parse::<IpAddr>().is_ok()
                || !host.contains(['.', '['])
                || [".localhost", ".svc", ".cluster.local"].into_iter().any(service)
                || self.names.contains(&host))
    }
}

/// The `Host` that a request names; HTTP/1.0 clients may leave it out.
pub(super) fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(HOST).map(|host| host.to_str().unwrap_or_default())
}

/// Whether a request that changes state comes from a page of another site. `curl` and neighbours send neither field.
pub fn is_cross_site(headers: &HeaderMap) -> bool {
    let other_site = headers.get(SEC_FETCH_SITE).is_some_and(|site| site != "same-origin" && site != "none");
    let other_origin = headers.get(ORIGIN).is_some_and(|origin| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        !origin.zip(host(headers)).is_some_and(|((_, origin), host)| origin.eq_ignore_ascii_case(host))
    });
    other_site || other_origin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nobody_outside_can_register() {
        let allowed = AllowedHosts::new(["Pod.Example.com".to_owned()]);
        for host in [
            "127.0.0.1:9877",
            "[::1]:9877",
            "10.1.2.3",
            "localhost",
            "LOCALHOST:9876",
            "pod.localhost",
            "web-7d9f",
            "web.default.svc:80",
            "web.default.svc.cluster.local",
            "pod.example.com:9876",
            "pod.example.com.",
        ] {
            assert!(allowed.allows(host), "{host}");
        }
        for host in
            ["evil.example:9877", "svc.evil.example", "localhost.evil.example", "", ":80", ".svc", "a b"]
        {
            assert!(!allowed.allows(host), "{host}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_told_from_curl_and_from_our_own_page() {
        let headers = |fields: &[(&str, &str)]| {
            let field = |(name, value): &(&str, &str)| {
                (HeaderName::try_from(*name).unwrap(), hyper::header::HeaderValue::from_str(value).unwrap())
            };
            fields.iter().map(field).collect::<HeaderMap>()
        };
        let host = ("host", "localhost:9878");
        assert!(!is_cross_site(&headers(&[host])));
        assert!(!is_cross_site(&headers(&[host, ("origin", "http://localhost:9878")])));
        assert!(!is_cross_site(&headers(&[host, ("sec-fetch-site", "same-origin")])));
        for fields in [
            [host, ("origin", "http://evil.example")],
            [host, ("origin", "null")],
            [host, ("origin", "http://localhost:9876")],
            [host, ("sec-fetch-site", "cross-site")],
            [host, ("sec-fetch-site", "same-site")],
        ] {
            assert!(is_cross_site(&headers(&fields)), "{fields:?}");
        }
    }
}
