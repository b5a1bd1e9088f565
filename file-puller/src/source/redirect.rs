//! Which redirects are followed: those within the origin of `--source`, and those to a host that `--redirect-to` names.
//!
//! SECURITY: content is trusted because of where it comes from. A redirect to any other host would let everyone who can write one
//! response header choose that. Redirects are followed here and not by the HTTP client, because the client takes away only
//! the headers that it knows to be secret, and `--header-file` sends others.

use std::str::FromStr;

use http::StatusCode;
use http::header::{HeaderMap, LOCATION};
use reqwest::Url;

/// Redirects in a row before it is a loop.
pub(crate) const MAX_REDIRECTS: usize = 5;

/// A host of `--redirect-to`: one name or address, or, with a dot before it, every name beneath a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RedirectHost {
    Host(String),
    /// With its dot.
    Beneath(String),
}

/// Follows the redirects of one request.
#[derive(Debug)]
pub(crate) struct Redirects<'r> {
    origin: &'r Url,
    allowed: &'r [RedirectHost],
    followed: usize,
    left_origin: bool,
}

/// Why a redirect is not followed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RedirectError {
    #[error("it redirects to {to}, another origin; if that is where content lies, add --redirect-to {host}")]
    OtherOrigin { to: String, host: String },
    #[error(
        "it redirects from https:// to {0}, another origin, where anyone on the way could change content"
    )]
    Downgrade(String),
    #[error("it redirects to a URL with a user or password, which is never followed")]
    Credentials,
    #[error("it redirects to a place that is no http:// or https:// URL")]
    NoUrl,
    #[error("it redirects more than {MAX_REDIRECTS} times")]
    Loop,
}

impl FromStr for RedirectHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (beneath, name) = match text.strip_prefix('.') {
            Some(name) => (true, name),
            None => (false, text),
        };
        // Written as URLs have it: in lower case, and in ASCII.
        let host = url::Host::parse(name).map(|host| host.to_string()).map_err(
            |_| "write a host like codeload.github.com, or a domain with a dot before it like .amazonaws.com",
        )?;
        if !beneath {
            return Ok(Self::Host(host));
        }
        // SECURITY: a suffix like .com would allow nearly every host.
        if !host.contains('.') {
            return Err(format!("every host that ends in .{host} is too many; name more of the domain"));
        }
        Ok(Self::Beneath(format!(".{host}")))
    }
}

impl RedirectHost {
    pub(super) fn covers(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        match self {
            Self::Host(allowed) => host == allowed,
            // An address has no domain, and its last numbers are not a suffix that says anything.
            Self::Beneath(suffix) => url.domain().is_some_and(|domain| domain.ends_with(suffix.as_str())),
        }
    }
}

/// Whether two URLs of `http` or `https` have one origin (RFC 6454, section 4): `Url::origin` makes copies to compare, and this is
/// asked for each file.
fn is_same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
}

impl<'r> Redirects<'r> {
    pub(crate) fn new(origin: &'r Url, allowed: &'r [RedirectHost]) -> Self {
        Self { origin, allowed, followed: 0, left_origin: false }
    }

    /// Whether a request for `url` goes to the origin, and no other host chose it.
    pub(crate) fn at_origin(&mut self, url: &Url) -> bool {
        self.left_origin |= !is_same_origin(url, self.origin);
        !self.left_origin
    }

    /// Where an answer sends the request that went to `at`; `None` where it is no redirect.
    pub(crate) fn next(
        &mut self,
        at: &Url,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<Option<Url>, RedirectError> {
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let Some(location) = headers.get(LOCATION) else { return Ok(None) };
        let location = std::str::from_utf8(location.as_bytes()).map_err(|_| RedirectError::NoUrl)?;
        let to = at.join(location).map_err(|_| RedirectError::NoUrl)?;
        self.followed += 1;
        if self.followed > MAX_REDIRECTS {
            return Err(RedirectError::Loop);
        }
        self.check(at, &to)?;
        Ok(Some(to))
    }

    fn check(&self, at: &Url, to: &Url) -> Result<(), RedirectError> {
        let shown = || super::url::display(to);
        let Some(host) = to.host_str().filter(|_| matches!(to.scheme(), "http" | "https")) else {
            return Err(RedirectError::NoUrl);
        };
        if !to.username().is_empty() || to.password().is_some() {
            return Err(RedirectError::Credentials);
        }
        if to.origin() == self.origin.origin() && to.scheme() == at.scheme() {
            return Ok(());
        }
        let host = host.to_owned();
        if at.scheme() == "https" && to.scheme() == "http" {
            return Err(RedirectError::Downgrade(shown()));
        }
        if self.allowed.iter().any(|allowed| allowed.covers(to)) {
            return Ok(());
        }
        Err(RedirectError::OtherOrigin { to: shown(), host })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> RedirectHost {
        text.parse().unwrap()
    }

    fn next(allowed: &[RedirectHost], from: &str, location: &str) -> Result<Option<String>, RedirectError> {
        let from = Url::parse(from).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, location.parse().unwrap());
        let next = Redirects::new(&from, allowed).next(&from, StatusCode::FOUND, &headers);
        next.map(|url| url.map(String::from))
    }

    #[test]
    fn a_host_is_a_name_an_address_or_a_domain() {
        assert_eq!(host("Codeload.GitHub.com"), RedirectHost::Host("codeload.github.com".to_owned()));
        assert_eq!(host("127.0.0.1"), RedirectHost::Host("127.0.0.1".to_owned()));
        assert_eq!(host("[::1]"), RedirectHost::Host("[::1]".to_owned()));
        assert_eq!(host(".amazonaws.com"), RedirectHost::Beneath(".amazonaws.com".to_owned()));
        for wrong in
            ["", ".", "https://a.example", "a.example/x", "a.example:80", "u@a.example", "a b", ".com"]
        {
            assert!(wrong.parse::<RedirectHost>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_origin_and_what_is_named_is_followed() {
        let allowed = [host("codeload.github.com"), host(".example.org")];
        let from = "https://github.com/o/r/archive/main.tar.gz";
        for (location, to) in [
            ("/x?y", "https://github.com/x?y"),
            ("https://codeload.github.com/o/r?t=1", "https://codeload.github.com/o/r?t=1"),
            ("https://a.b.example.org/", "https://a.b.example.org/"),
            ("//codeload.github.com/x", "https://codeload.github.com/x"),
        ] {
            assert_eq!(next(&allowed, from, location), Ok(Some(to.to_owned())), "{location}");
        }
        for location in [
            "https://example.org/",
            "https://badexample.org/",
            "https://codeload.github.com.evil.example/",
            "https://xcodeload.github.com/",
            "https://github.com:8443/",
        ] {
            let refused = next(&allowed, from, location).unwrap_err();
            assert!(matches!(refused, RedirectError::OtherOrigin { .. }), "{location}: {refused}");
        }
    }

    #[test]
    fn a_refusal_names_the_flag_and_no_query() {
        let refused = next(&[], "https://a.example/x", "https://b.example/y?token=secret").unwrap_err();
        let text = refused.to_string();
        assert!(text.ends_with("add --redirect-to b.example") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn nothing_is_followed_that_is_weaker_or_strange() {
        let allowed = [host("b.example")];
        for (location, why) in [
            ("http://b.example/", RedirectError::Downgrade("http://b.example/".to_owned())),
            ("http://a.example/x", RedirectError::Downgrade("http://a.example/x".to_owned())),
            ("https://u:p@b.example/", RedirectError::Credentials),
            ("file:///etc/passwd", RedirectError::NoUrl),
            ("https://", RedirectError::NoUrl),
        ] {
            assert_eq!(next(&allowed, "https://a.example/x", location), Err(why));
        }
        assert!(next(&allowed, "http://a.example/x", "https://b.example/").is_ok(), "TLS may be added");
    }

    #[test]
    fn what_is_no_redirect_is_left_alone() {
        let at = Url::parse("https://a.example/").unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(Redirects::new(&at, &[]).next(&at, StatusCode::FOUND, &headers), Ok(None));
        headers.insert(LOCATION, "/x".parse().unwrap());
        assert_eq!(Redirects::new(&at, &[]).next(&at, StatusCode::NOT_MODIFIED, &headers), Ok(None));
        assert_eq!(Redirects::new(&at, &[]).next(&at, StatusCode::CREATED, &headers), Ok(None));
    }
}
