//! What a source says of a version of its content (RFC 9110, section 8.8), and how it is asked whether there is another.
//!
//! An `ETag` is compared, and that is all. A source that has none is asked with the date: then a file that was put back with an
//! older date stays unseen by servers that compare "not newer than", so it is asked without the date once in a while.
//!
//! Neither is right while it is fresh. nginx makes an `ETag` of whole seconds and the size, and `Last-Modified` counts seconds
//! anyway: content that changes again within the second in which it was fetched keeps both. So an answer whose
//! `Last-Modified` is less than two seconds before its `Date` is asked for once more without its validator, as Git reads a file
//! again that is no older than its index ("racy").

use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

/// Two changes within this time may look like one.
const RESOLUTION: Duration = Duration::from_secs(2);

/// What a source said of the content that it sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Validator {
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_modified: Option<String>,
    /// Content may have changed since without either of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    racy: bool,
    /// When it was sent, by our clock.
    received: SystemTime,
}

impl Validator {
    /// Takes it from an answer; `before` is that of the answer before it.
    pub(crate) fn of(headers: &HeaderMap, before: Option<&Self>, now: SystemTime) -> Self {
        let text =
            |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let time = |name: HeaderName| text(name).and_then(|text| httpdate::parse_http_date(&text).ok());
        let etag = text(header::ETAG);
        let last_modified =
            text(header::LAST_MODIFIED).filter(|text| httpdate::parse_http_date(text).is_ok());
        let is_fresh = match (time(header::LAST_MODIFIED), time(header::DATE)) {
            // A date in the future is as little reason for trust.
            (Some(modified), Some(date)) => {
                date.duration_since(modified).is_ok_and(|age| age < RESOLUTION) || modified > date
            }
            _ => false,
        };
        // A tag that outlasts a date is not made of it: some servers say of everything that it was modified just now.
        let tag_has_no_date = before.is_some_and(|before| {
            etag.is_some() && before.etag == etag && before.last_modified != last_modified
        });
        Self { etag, last_modified, racy: is_fresh && !tag_has_no_date, received: now }
    }

    /// Of content that has a name of its own, by which it was asked for.
    pub(crate) fn of_tag(tag: String, now: SystemTime) -> Self {
        Self { etag: Some(tag), last_modified: None, racy: false, received: now }
    }

    /// Whether there is nothing to ask with: each question is answered with the whole content.
    pub(crate) fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }

    /// Whether a later process has to ask with this one instead of `before`, which is of the same release: with a tag that the source has
    /// no more, or a date that is trusted no more, each start would fetch everything.
    pub(crate) fn replaces(&self, before: &Self, date_for: Option<Duration>) -> bool {
        let says_the_same = Self { received: before.received, ..self.clone() } == *before;
        !says_the_same || !self.is_empty() && before.condition(date_for, self.received).is_none()
    }

    /// The entity tag alone.
    pub(crate) fn tag(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(self.etag.as_ref()?).ok()
    }

    /// The header to ask with, or `None` where the whole content is to be asked for. A date is trusted for `date_for`.
    pub(crate) fn condition(
        &self,
        date_for: Option<Duration>,
        now: SystemTime,
    ) -> Option<(HeaderName, HeaderValue)> {
        if self.racy {
            return None;
        }
        let value = |text: &String| HeaderValue::from_str(text).ok();
        if let Some(etag) = &self.etag {
            return Some((header::IF_NONE_MATCH, value(etag)?));
        }
        let date = self.last_modified.as_ref()?;
        // A clock that was set back says nothing about how long ago it was.
        let age = now.duration_since(self.received).ok()?;
        if date_for.is_some_and(|limit| age >= limit) {
            return None;
        }
        Some((header::IF_MODIFIED_SINCE, value(date)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODIFIED: &str = "Mon, 23 Nov 2026 18:00:00 GMT";
    const SOON: &str = "Mon, 23 Nov 2026 18:00:01 GMT";
    const LATER: &str = "Mon, 23 Nov 2026 18:00:02 GMT";
    const HOUR: Duration = Duration::from_secs(3600);

    fn answer(etag: Option<&'static str>, modified: Option<&'static str>, date: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::DATE, HeaderValue::from_static(date));
        headers.extend(etag.map(|etag| (header::ETAG, HeaderValue::from_static(etag))));
        headers.extend(modified.map(|date| (header::LAST_MODIFIED, HeaderValue::from_static(date))));
        headers
    }

    fn asks(validator: &Validator) -> Option<HeaderName> {
        validator.condition(Some(HOUR), SystemTime::now()).map(|(name, _)| name)
    }

    fn of(headers: &HeaderMap) -> Validator {
        Validator::of(headers, None, SystemTime::now())
    }

    #[test]
    fn a_tag_is_asked_with_before_a_date_and_a_date_before_nothing() {
        assert_eq!(asks(&of(&answer(Some("\"a\""), Some(MODIFIED), LATER))), Some(header::IF_NONE_MATCH));
        assert_eq!(asks(&of(&answer(Some("W/\"a\""), None, LATER))), Some(header::IF_NONE_MATCH));
        let date = of(&answer(None, Some(MODIFIED), LATER));
        assert_eq!((date.is_empty(), asks(&date)), (false, Some(header::IF_MODIFIED_SINCE)));
        let nothing = of(&answer(None, None, LATER));
        assert_eq!((nothing.is_empty(), asks(&nothing)), (true, None));
        assert!(of(&answer(None, Some("yesterday"), LATER)).is_empty());
    }

    #[test]
    fn a_date_is_trusted_for_a_while() {
        let now = SystemTime::now();
        let date = Validator::of(&answer(None, Some(MODIFIED), LATER), None, now);
        assert!(date.condition(Some(HOUR), now + HOUR / 2).is_some());
        assert!(date.condition(Some(HOUR), now + HOUR).is_none());
        assert!(date.condition(None, now + HOUR).is_some());
        assert!(date.condition(Some(HOUR), now - HOUR).is_none(), "the clock was set back");
        let tag = Validator::of(&answer(Some("\"a\""), None, LATER), None, now);
        assert!(tag.condition(Some(HOUR), now + HOUR).is_some());
    }

    #[test]
    fn what_is_fresh_is_asked_for_once_more() {
        for fresh in [
            answer(Some("\"a\""), Some(MODIFIED), SOON),
            answer(None, Some(MODIFIED), MODIFIED),
            answer(Some("\"a\""), Some(LATER), MODIFIED),
        ] {
            assert_eq!(asks(&of(&fresh)), None, "{fresh:?}");
        }
        // The same, a second later.
        assert!(asks(&of(&answer(Some("\"a\""), Some(MODIFIED), LATER))).is_some());
    }

    #[test]
    fn a_tag_that_has_nothing_to_do_with_the_date_is_trusted() {
        let first = of(&answer(Some("\"a\""), Some(MODIFIED), MODIFIED));
        assert_eq!(asks(&first), None);
        let again = answer(Some("\"a\""), Some(SOON), SOON);
        let again = Validator::of(&again, Some(&first), SystemTime::now());
        assert_eq!(asks(&again), Some(header::IF_NONE_MATCH));
    }

    #[test]
    fn what_is_written_is_replaced_where_a_later_process_could_not_ask_with_it() {
        let now = SystemTime::now();
        let replaces_after = |time: Duration, new: &HeaderMap, old: &HeaderMap| {
            Validator::of(new, None, now + time).replaces(&Validator::of(old, None, now), Some(HOUR))
        };
        let replaces = |new: &HeaderMap, old: &HeaderMap| replaces_after(HOUR / 2, new, old);
        let tag = answer(Some("\"a\""), Some(MODIFIED), LATER);
        assert!(!replaces(&tag, &tag), "while nothing changes, nothing is written");
        assert!(replaces(&tag, &answer(Some("\"a\""), Some(MODIFIED), SOON)), "that was fresh");
        assert!(replaces(&tag, &answer(Some("\"b\""), Some(MODIFIED), LATER)), "another tag");
        let date = answer(None, Some(MODIFIED), LATER);
        assert!(!replaces(&date, &date));
        assert!(replaces_after(HOUR, &date, &date), "a date is trusted for a while only");
        let nothing = answer(None, None, LATER);
        assert!(!replaces(&nothing, &nothing));
    }

    #[test]
    fn it_survives_being_written() {
        let validator = of(&answer(Some("W/\"a\\b\""), Some(MODIFIED), SOON));
        let json = serde_json::to_string(&validator).unwrap();
        assert_eq!(serde_json::from_str::<Validator>(&json).unwrap(), validator);
    }
}
