//! Why the content manager's answer is not content, in words that show no query string.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use lifecycle::escape::escaped;
use reqwest::{Response, Url};

use super::client::{TIMED_OUT, causes};
use super::kind::WrongKind;
use super::url;

/// Why there is no answer to work with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// No connection, no name, no answer in time, or a connection that broke.
    #[error("cannot fetch {url}: {cause}")]
    Unreachable { url: String, cause: String },
    /// An answer that is not content.
    #[error("cannot fetch {url}: it answers {status}{}", explanation.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Status {
        url: String,
        status: StatusCode,
        /// The server's own words, where it has some for people.
        explanation: Option<String>,
        /// When it may be asked again.
        retry_after: Option<Duration>,
    },
    /// Bytes come, but at this rate never all of them.
    #[error("cannot fetch {url}: slower than --min-throughput {limit} a second")]
    TooSlow { url: String, limit: bytesize::ByteSize },
    /// The content manager sends us elsewhere.
    #[error("cannot fetch {url}: {cause}")]
    Redirect {
        url: String,
        /// Where to, and why not.
        cause: String,
    },
    /// The content manager answers with something else.
    #[error("{what} refused: {url} {answer}")]
    NotContent {
        /// Manifest, archive, or content where either would do.
        what: &'static str,
        url: String,
        answer: Box<Answer>,
    },
    /// It answers with the other kind of content.
    #[error("{} refused: {url}: {wrong}", wrong.found.name())]
    Kind {
        url: String,
        /// Which kind, and why that is wrong.
        wrong: WrongKind,
    },
    /// More bytes than a manifest may have.
    #[error("manifest refused: {url} is larger than --max-manifest-size {limit}")]
    ManifestTooLarge { url: String, limit: bytesize::ByteSize },
}

impl SourceError {
    /// No byte came in time.
    pub(super) fn timed_out(url: &Url) -> Self {
        Self::Unreachable { url: url::display(url), cause: TIMED_OUT.to_owned() }
    }

    /// What came back instead of content.
    pub(crate) async fn of_status(response: Response, url: &Url) -> Self {
        Self::Status {
            url: url::display(url),
            status: response.status(),
            retry_after: response.headers().get(RETRY_AFTER).and_then(retry_after),
            explanation: explanation(response).await,
        }
    }
}

/// The first line of an error page that is plain text, if it comes within a moment.
async fn explanation(mut response: Response) -> Option<String> {
    const MAX_LEN: usize = 300;
    let content_type = response.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    if !content_type.starts_with("text/plain") || response.headers().contains_key(CONTENT_ENCODING) {
        return None;
    }
    let first = tokio::time::timeout(Duration::from_secs(1), response.chunk()).await.ok()?.ok()??;
    let text = String::from_utf8_lossy(&first[..first.len().min(MAX_LEN)]).into_owned();
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| escaped(line).to_string())
}

/// An answer in words: what a person has to see to recognise a login page, a proxy's error, or a compression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    status: StatusCode,
    content_type: Option<String>,
    content_encoding: Option<String>,
    first: String,
}

impl Answer {
    /// How many of the first bytes are shown.
    const SHOWN: usize = 60;

    pub(super) fn of(status: StatusCode, headers: &HeaderMap, first: &[u8]) -> Self {
        let shown = |name| {
            headers
                .get(name)
                .map(|value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let first = String::from_utf8_lossy(&first[..first.len().min(Self::SHOWN)]).trim().to_owned();
        Self { status, content_type: shown(CONTENT_TYPE), content_encoding: shown(CONTENT_ENCODING), first }
    }

    /// Whether the server says that it has compressed what it sends.
    pub(super) fn is_encoded(&self) -> bool {
        self.content_encoding.as_ref().is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity"))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "answers {} with ", self.status)?;
        match &self.content_type {
            Some(content_type) => write!(out, "Content-Type {}", escaped(content_type))?,
            None => out.write_str("no Content-Type")?,
        }
        match &self.content_encoding {
            Some(encoding) => write!(out, ", Content-Encoding {}", escaped(encoding))?,
            None => out.write_str(", no Content-Encoding")?,
        }
        match self.first.as_str() {
            "" => out.write_str(", and is empty"),
            first => write!(out, ", and begins \"{}\"", escaped(first)),
        }
    }
}

pub(crate) fn failed(url: &Url, error: &reqwest::Error) -> SourceError {
    SourceError::Unreachable { url: url::display(url), cause: causes(error) }
}

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(value: &HeaderValue) -> Option<Duration> {
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
