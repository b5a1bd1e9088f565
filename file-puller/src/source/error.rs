//! Why the content manager's answer is not content, in words that show no query string.

use std::time::{Duration, SystemTime};

use http::{HeaderValue, StatusCode};
use reqwest::Url;

use super::client::causes;
use super::url;

/// Why there is no answer to work with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// No connection, no name, no answer in time, or a connection that broke.
    #[error("cannot fetch {url}: {cause}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// The chain of causes.
        cause: String,
    },
    /// An answer that is not content.
    #[error("cannot fetch {url}: it answers {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// What came back.
        status: StatusCode,
        /// When it may be asked again.
        retry_after: Option<Duration>,
    },
    /// Bytes come, but at this rate never all of them.
    #[error("cannot fetch {url}: slower than --min-throughput {limit} a second")]
    TooSlow {
        /// What was asked for.
        url: String,
        /// The limit.
        limit: bytesize::ByteSize,
    },
    /// The content manager sends us elsewhere.
    #[error("cannot fetch {url}: {cause}")]
    Redirect {
        /// What was asked for.
        url: String,
        /// Where to, and why not.
        cause: String,
    },
    /// More bytes than a manifest may have.
    #[error("manifest refused: {url} is larger than --max-manifest-size {limit}")]
    ManifestTooLarge {
        /// What was asked for.
        url: String,
        /// The limit.
        limit: bytesize::ByteSize,
    },
}

pub(crate) fn failed(url: &Url, error: &reqwest::Error) -> SourceError {
    let (url, cause) = (url::display(url), causes(error));
    if error.is_redirect() {
        SourceError::Redirect { url, cause }
    } else {
        SourceError::Unreachable { url, cause }
    }
}

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let parse = |text: &str| retry_after(&HeaderValue::from_str(text).unwrap());
        assert_eq!(parse("120"), Some(Duration::from_secs(120)));
        assert_eq!(parse("Thu, 01 Jan 1970 00:00:00 GMT"), Some(Duration::ZERO));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        assert!(parse(&date).is_some_and(|wait| wait > Duration::from_secs(50)));
        assert_eq!(parse("soon"), None);
    }
}
