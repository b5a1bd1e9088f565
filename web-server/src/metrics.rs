//! What is counted, under the names that `/metrics` shows.

use std::time::Duration;

use http::{Method, StatusCode};
use lifecycle::metrics::Registrar;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;

/// From a body in memory on a quiet machine to a download over a slow line, in seconds.
const DURATIONS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];

/// Every counter of this container, shared behind an `Arc`. What each counts is said where it is registered.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) connections: Gauge,
    pub(crate) connections_accepted: Counter,
    /// Connections refused because there were too many.
    pub(crate) connections_refused: Counter,
    /// Connections closed in favour of newer ones.
    pub(crate) connections_evicted: Counter,
    /// What came and was no HTTP request.
    pub(crate) refused: Counter,
    pub(crate) in_flight: Gauge,
    /// Times that something else began to be served.
    pub(crate) swaps: Counter,
    pub(crate) release_refused: Gauge,
    pub(crate) manifest_refused: Gauge,
    /// Bytes of bodies in memory.
    pub(crate) held: Gauge,
    /// Bodies that were sent from memory.
    pub(crate) from_memory: Counter,
    /// Bodies that were sent from a file.
    pub(crate) from_volume: Counter,
    pub(crate) manifest_waiters: Gauge,
    pub(crate) access_log_lines: Counter,
    pub(crate) access_log_dropped: Counter,
    overdue: Family<[(&'static str, &'static str); 1], Counter>,
    /// By method and status class, looked up once: they are counted with each request.
    requests: [[Counter; 5]; 4],
    durations: Histogram,
    body_bytes: Counter,
    release: Family<ReleaseLabel, Gauge>,
    /// The label that `release` has now.
    served: Mutex<Option<ReleaseLabel>>,
}

type ReleaseLabel = [(&'static str, String); 1];

/// Only methods that exist, and one name for all others: a client must not be able to make up time series.
const METHODS: [&str; 4] = ["GET", "HEAD", "OPTIONS", "Other"];
const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What a client took too long for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// To send a request's head.
    Header,
    /// To send another request.
    Idle,
    /// To take what was sent.
    Send,
}

impl Metrics {
    /// Registers everything.
    pub(crate) fn register(new: &mut Registrar<'_>) -> Self {
        let requests: Family<[(&str, &str); 2], Counter> =
            new.metric("http_requests", "Responses by method and status class");
        let requests = METHODS.map(|method| {
            let labels = |status| [("method", method), ("status", status)];
            STATUS_CLASSES.map(|status| requests.get_or_create(&labels(status)).clone())
        });
        Self {
            connections: new.metric("connections", "Open connections"),
            connections_accepted: new.metric("connections_accepted", "Connections accepted since the start"),
            connections_refused: new.metric(
                "connections_refused",
                "Connections answered 503 because all others were being answered",
            ),
            connections_evicted: new.metric(
                "connections_evicted",
                "Connections closed to make room for others: the longest silent first",
            ),
            overdue: new.metric("connections_overdue", "Connections closed because the client took too long"),
            refused: new.metric("http_malformed_requests", "Requests that were not valid HTTP"),
            in_flight: new.metric("http_requests_in_flight", "Requests being answered"),
            durations: new.seconds(
                "http_request_duration",
                "From the request's arrival to the last byte of its response",
                &DURATIONS,
            ),
            body_bytes: new.metric_in(Unit::Bytes, "http_response_body", "Body bytes handed to the network"),
            swaps: new.metric("swaps", "Times that other content began to be served"),
            release: new.metric("release_info", "The release that is served, as a label"),
            release_refused: new.metric(
                "release_refused",
                "1 while a release is not served because it does not fit into memory",
            ),
            manifest_refused: new.metric(
                "manifest_refused",
                "1 while the manifest is not brought up to date because it does not fit into memory",
            ),
            held: new.metric_in(Unit::Bytes, "cache", "Bodies of the served content that are in memory"),
            from_memory: new.metric("cache_hits", "Answers whose body came from memory"),
            from_volume: new.metric("cache_misses", "Answers whose body came from a file"),
            manifest_waiters: new.metric("manifest_waiters", "Pullers that wait for another manifest"),
            access_log_lines: new.metric("access_log_lines", "Access-log lines written"),
            access_log_dropped: new
                .metric("access_log_dropped_lines", "Access-log lines that could not be written"),
            requests,
            served: Mutex::default(),
        }
    }

    /// A response came to its end. `took` is none where the client wanted to wait.
    pub(crate) fn answered(
        &self,
        method: &Method,
        status: StatusCode,
        body_bytes: u64,
        took: Option<Duration>,
    ) {
        let known = METHODS.iter().position(|known| *known == method.as_str());
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.requests[known.unwrap_or(METHODS.len() - 1)][class - 1].inc();
        if let Some(took) = took {
            self.durations.observe(took.as_secs_f64());
        }
        self.body_bytes.inc_by(body_bytes);
    }

    /// Responses so far, from 1xx to 5xx.
    pub(crate) fn answered_by_class(&self) -> [u64; 5] {
        [0, 1, 2, 3, 4].map(|class| self.requests.iter().map(|method| method[class].get()).sum())
    }

    /// A connection was closed because its client took too long.
    pub(crate) fn overdue(&self, waited_for: Overdue) {
        let waited_for = match waited_for {
            Overdue::Header => "header",
            Overdue::Idle => "idle",
            Overdue::Send => "send",
        };
        self.overdue.get_or_create(&[("waited_for", waited_for)]).inc();
    }

    /// Says which release is served from here on. The new label is set before the old one goes, so that no scrape finds none.
    pub(crate) fn serves(&self, release: Option<&str>, held: u64) {
        self.held.set(i64::try_from(held).unwrap_or(i64::MAX));
        let now = release.map(|release| [("release", release.to_owned())]);
        if let Some(labels) = &now {
            self.release.get_or_create(labels).set(1);
        }
        let mut served = self.served.lock();
        if let Some(before) = served.take().filter(|before| Some(before) != now.as_ref()) {
            self.release.remove(&before);
        }
        *served = now;
    }
}
