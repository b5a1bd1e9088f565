//! The bytes of an answer as they arrive, at no less than a pace.
//!
//! A read timeout alone lets a source send a byte now and then without end. The pace bounds the whole: a body of n bytes takes at
//! most n / `--min-throughput`, and then it is over, one way or the other.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, ETAG};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::{Response, Url};
use tokio::time::timeout;

use super::error::{SourceError, failed};
use super::url;

/// How slow a body may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Bytes a second, on average.
    pub(crate) least: u64,
    /// Waiting for this long is not held against a body: a short one may come slowly.
    pub(crate) grace: Duration,
}

/// A strong entity tag: it stands for the same bytes, not merely for the same meaning.
#[derive(Debug, Clone)]
pub(crate) struct EntityTag(pub(crate) HeaderValue);

/// A file's bytes as they arrive.
#[derive(Debug)]
pub(crate) struct Body {
    response: Response,
    url: Url,
    pace: Pace,
    received: u64,
    /// For the source alone: the time that our own disk takes is not its fault.
    waited: Duration,
    /// Received, looked at, and not handed out yet.
    ahead: Bytes,
}

impl Body {
    pub(crate) fn new(response: Response, url: Url, pace: Pace) -> Self {
        Self { response, url, pace, received: 0, waited: Duration::ZERO, ahead: Bytes::new() }
    }

    /// Where it comes from, before any redirect.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// The length that was announced.
    pub(crate) fn announced(&self) -> Option<u64> {
        self.response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// The tag with which the rest can be asked for.
    pub(crate) fn entity_tag(&self) -> Option<EntityTag> {
        let tag = self.response.headers().get(ETAG)?;
        tag.as_bytes().starts_with(b"\"").then(|| EntityTag(tag.clone()))
    }

    /// The answer's status and headers.
    pub(super) fn head(&self) -> (StatusCode, &HeaderMap) {
        (self.response.status(), self.response.headers())
    }

    /// The first bytes, so many of them as there are up to `count`. They come again with [`Body::chunk`].
    pub(crate) async fn peek(&mut self, count: usize) -> Result<&[u8], SourceError> {
        let mut first = BytesMut::new();
        while first.len() < count {
            match self.chunk().await? {
                Some(chunk) => first.extend_from_slice(&chunk),
                None => break,
            }
        }
        self.ahead = first.freeze();
        Ok(&self.ahead)
    }

    /// All that is left, or `None` where that is more than the limit.
    pub(crate) async fn read(&mut self, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let announced = self.announced().unwrap_or(0).min(limit);
        let mut bytes = Vec::with_capacity(usize::try_from(announced).unwrap_or(0));
        while let Some(chunk) = self.chunk().await? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Ok(None);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    }

    /// The next bytes, or `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, SourceError> {
        if !self.ahead.is_empty() {
            return Ok(Some(std::mem::take(&mut self.ahead)));
        }
        let asked = Instant::now();
        let chunk = match timeout(self.pace.grace, self.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| failed(&self.url, &error))?,
            Err(_) => return Err(SourceError::timed_out(&self.url)),
        };
        self.waited += asked.elapsed();
        self.received += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        let least = u128::from(self.pace.least) * self.waited.as_millis() / 1000;
        if self.waited > self.pace.grace && u128::from(self.received) < least {
            let limit = bytesize::ByteSize(self.pace.least);
            return Err(SourceError::TooSlow { url: url::display(&self.url), limit });
        }
        Ok(chunk)
    }
}
