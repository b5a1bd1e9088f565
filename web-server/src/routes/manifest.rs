//! The server as content manager (docs/contract.md, section 2): the manifest and its signature, for pullers that ask again
//! and again, or that wait to be told.
//!
//! Waiting is long polling (RFC 6202) in the terms of RFC 7240: a conditional request with `Prefer: wait=N` is held until the
//! manifest is another one or N seconds are over. A waiter is a request in progress. A drain answers it at once, and
//! where there is no room for one more, the answer is what it would be without the preference. An HTTP/1.1 connection has no
//! more than its socket while its request is held: see `http::parking`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, IF_NONE_MATCH, VARY};
use http::request::Parts;
use http::{HeaderValue, Response};
use tokio_util::sync::CancellationToken;

use super::files::sent;
use crate::content::edition::Edition;
use crate::content::editions::{Editions, Waited};
use crate::http::body::Payload;
use crate::http::conditional::{Verdict, evaluate};
use crate::http::exchange::PREFERENCE_APPLIED;
use crate::http::parking::ParkingSpace;
use crate::http::response::unavailable;

/// How long a question waits for changes that were noticed before it: a directory that is never quiet is taken in every
/// two seconds.
const SETTLE_LIMIT: Duration = Duration::from_secs(3);
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Seconds over which the pullers that are told of a change spread what they ask next.
const SYNC_SPREAD: HeaderName = HeaderName::from_static("sync-spread");
/// The entity tag of the manifest that a puller is following while it fetches files.
const SYNC_MANIFEST: HeaderName = HeaderName::from_static("sync-manifest");

/// Answers for the manifest.
#[derive(Debug)]
pub(crate) struct ManifestRoutes {
    pub(crate) editions: Arc<Editions>,
    /// The longest that a request is held.
    pub(crate) max_wait: Duration,
    pub(crate) shutdown: CancellationToken,
}

impl ManifestRoutes {
    pub(crate) const PATH: &'static str = "/manifest.json";
    pub(crate) const SIGNATURE_PATH: &'static str = "/manifest.json.sig";

    /// Answers a GET or HEAD request for the manifest, at once or when there is another.
    pub(crate) async fn answer(&self, request: &Parts) -> Response<Payload> {
        let preference = wait(&request.headers);
        let waited = if let Some(waited) = request.extensions.get::<Waited>() {
            Some(*waited)
        } else {
            self.editions.settled(SETTLE_LIMIT).await;
            self.wait(request, preference).await
        };
        let edition = match self.editions.state() {
            Ok(edition) => edition,
            Err(reason) => return unavailable(&reason),
        };
        let mut response = sent(request, Ok(Arc::clone(&edition.manifest))).await;
        let headers = response.headers_mut();
        headers.append(VARY, HeaderValue::from_static("prefer"));
        if preference.is_some() {
            // A cache that held it would answer the next waiter at once, with what the waiter has.
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if waited.is_some_and(|waited| waited.again) {
            headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("wait"));
        }
        if let Some(spread) = waited.and_then(|waited| waited.spread)
            && let Ok(seconds) = HeaderValue::try_from(format!("{:.3}", spread.as_secs_f64()))
        {
            headers.insert(SYNC_SPREAD, seconds);
        }
        response
    }

    /// Holds a request that prefers it, as long as the client has what there is.
    async fn wait(&self, request: &Parts, preference: Option<Duration>) -> Option<Waited> {
        let preference = preference?;
        let edition = self.editions.state().ok()?;
        if !is_known(request, &edition) {
            return Some(Waited { again: true, spread: None });
        }
        let until = Instant::now() + preference.min(self.max_wait);
        let known = edition.manifest.etag.clone();
        drop(edition);
        let waiter = self.editions.wait(known, until, self.shutdown.clone())?;
        match request.extensions.get::<ParkingSpace>() {
            Some(ParkingSpace { parking, arrival }) => parking.park(request, *arrival, waiter).await,
            None => Some(waiter.wait().await),
        }
    }

    /// The signature of the manifest that is meant, where it has one.
    pub(crate) async fn signature(&self, request: &Parts) -> Option<Response<Payload>> {
        let signature = self.edition(&request.headers)?.signature.clone()?;
        Some(sent(request, Ok(signature)).await)
    }

    /// The edition whose files a puller is fetching, by the entity tag that it sends along, or else the current one. A puller that
    /// began before the content changed finishes with what it began.
    pub(crate) fn edition(&self, headers: &HeaderMap) -> Option<Arc<Edition>> {
        let meant =
            headers.get(SYNC_MANIFEST).and_then(|tag| self.editions.find(|known| known.header() == tag));
        meant.or_else(|| self.editions.state().ok())
    }
}

/// Whether the client has this edition's manifest already.
fn is_known(request: &Parts, edition: &Edition) -> bool {
    request.headers.contains_key(IF_NONE_MATCH)
        && evaluate(&request.headers, &edition.manifest.etag, None) == Verdict::NotModified
}

/// How long a client would wait (RFC 7240 section 4.3); the first preference of that name counts.
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(','));
    preferences.find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let seconds = value.trim().trim_matches('"').parse().ok()?;
        name.trim().eq_ignore_ascii_case("wait").then(|| Duration::from_secs(seconds))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_is_a_number_of_seconds() {
        let of = |value: &'static str| {
            wait(&HeaderMap::from_iter([(PREFER, HeaderValue::from_static(value))]))
                .map(|wait| wait.as_secs())
        };
        assert_eq!(of("wait=50"), Some(50));
        assert_eq!(of("respond-async, Wait = \"10\"; foo, wait=5"), Some(10));
        for other in ["", "wait", "wait=", "wait=soon", "wait=-1", "waiting=5", "return=minimal"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(wait(&HeaderMap::new()), None);
    }
}
