//! Waiting for another manifest instead of asking again and again: long polling in RFC 7240's terms.
//!
//! Each question for the manifest says `Prefer: wait=0`, and an answer with `Preference-Applied: wait` says that the content
//! manager can hold one. Only then is it asked to: a server that knows nothing of this is asked as it always was.

use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use lifecycle::units;

use super::error::SourceError;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const SYNC_SPREAD: HeaderName = HeaderName::from_static("sync-spread");
/// The entity tag of the manifest that a request for a file belongs to.
pub(super) const SYNC_MANIFEST: HeaderName = HeaderName::from_static("sync-manifest");

/// How long to wait, and how long to step aside afterwards.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Waiting")]
pub(crate) struct Waiting {
    /// Let the content manager hold a request for the manifest this long, until the manifest changes; 0s for never
    #[arg(long, value_name = "DURATION", default_value = "50s", value_parser = whole_seconds)]
    pub(super) wait: Duration,

    /// Wait a random time up to this before fetching, when the content manager says that it has told many pullers at once
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = units::duration)]
    pub(super) spread: Duration,
}

/// What came of a question that the content manager was asked to hold.
#[derive(Debug)]
pub(crate) enum Change<T> {
    /// There is another manifest.
    Arrived(T),
    /// There was none as long as it was held.
    None,
    /// Something on the way does not let a request wait for so long, or the content manager has gone.
    Cut(SourceError),
    /// It cannot be asked: there is no entity tag to ask with.
    Unable,
}

impl Waiting {
    /// Shortens the wait, so that an answer comes well before this age: each counts as a success, and the silence before it does not.
    pub(crate) fn keep_within(&mut self, age: Duration) {
        self.wait = self.wait.min(Duration::from_secs((age / 2).as_secs()));
    }

    pub(super) fn is_on(&self) -> bool {
        !self.wait.is_zero()
    }
}

/// The header that says for how long a question may be held.
pub(super) fn prefer(wait: Duration) -> (HeaderName, HeaderValue) {
    let value = HeaderValue::try_from(format!("wait={}", wait.as_secs()));
    (PREFER, value.unwrap_or(HeaderValue::from_static("wait=0")))
}

/// Whether the content manager can wait.
pub(super) fn is_applied(headers: &HeaderMap) -> bool {
    let values = headers.get_all(PREFERENCE_APPLIED).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .filter_map(|preference| preference.split(['=', ';']).next())
        .any(|name| name.trim().eq_ignore_ascii_case("wait"))
}

/// How long to step aside: a random part of what the content manager asks for, and of no more than `longest`.
pub(super) fn step_aside(headers: &HeaderMap, longest: Duration) -> Duration {
    let seconds = headers.get(SYNC_SPREAD).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let asked = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default();
    asked.min(longest).mul_f64(fastrand::f64())
}

/// Whether a request that was to be held has failed as it does behind a proxy that times out.
pub(super) fn is_cut(error: &SourceError) -> bool {
    match error {
        SourceError::Unreachable { .. } => true,
        SourceError::Status { status, .. } => matches!(
            *status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT
        ),
        _ => false,
    }
}

fn whole_seconds(text: &str) -> Result<Duration, String> {
    let duration = units::duration(text)?;
    if duration.subsec_nanos() != 0 {
        return Err("HTTP waits for whole seconds, so write them like 50s".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_preference_counts_where_it_was_applied() {
        for applied in ["wait", "Wait", "wait=50", "respond-async, wait", "wait; x=y"] {
            assert!(is_applied(&headers(PREFERENCE_APPLIED, applied)), "{applied}");
        }
        for other in ["respond-async", "waiting", ""] {
            assert!(!is_applied(&headers(PREFERENCE_APPLIED, other)), "{other}");
        }
        assert!(!is_applied(&HeaderMap::new()));
    }

    #[test]
    fn a_spread_is_obeyed_within_reason() {
        let longest = Duration::from_secs(1);
        let of = |value: &str| (0..100).map(|_| step_aside(&headers(SYNC_SPREAD, value), longest)).max();
        assert!(of("0.025").is_some_and(|most| most <= Duration::from_millis(25) && !most.is_zero()));
        assert!(of("3600").is_some_and(|most| most <= longest && most > longest / 2));
        for nothing in ["-1", "nan", "inf", "1e300", "soon", ""] {
            assert_eq!(of(nothing), Some(Duration::ZERO), "{nothing}");
        }
        assert_eq!(step_aside(&HeaderMap::new(), longest), Duration::ZERO);
    }

    #[test]
    fn a_wait_is_whole_seconds_and_short_enough_for_the_staleness() {
        assert!(whole_seconds("1500ms").is_err());
        let mut waiting = Waiting { wait: whole_seconds("50s").unwrap(), spread: Duration::ZERO };
        assert_eq!(prefer(waiting.wait).1, "wait=50");
        waiting.keep_within(Duration::from_secs(31));
        assert_eq!(waiting.wait, Duration::from_secs(15));
        waiting.keep_within(Duration::from_millis(300));
        assert!(!waiting.is_on());
    }
}
