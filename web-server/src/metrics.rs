//! What is counted, under the names that `/metrics` shows.

use std::time::Duration;

use http::{Method, StatusCode};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// From a body in memory on a quiet machine to a download over a slow line, in seconds.
const DURATIONS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];

/// Every counter of this container. Cloning is not needed: it is shared behind an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    /// Open connections.
    pub connections: Gauge,
    /// Connections accepted since the start.
    pub connections_accepted: Counter,
    /// Connections refused because there were too many.
    pub connections_refused: Counter,
    /// What came and was no HTTP request.
    pub refused: Counter,
    /// Requests being answered.
    pub in_flight: Gauge,
    /// Times that something else began to be served.
    pub swaps: Counter,
    /// How often the root was found to be something else, or the same anew.
    pub generation: Gauge,
    /// Bytes of bodies in memory.
    pub held: Gauge,
    /// Bodies that were sent from memory.
    pub from_memory: Counter,
    /// Bodies that were sent from a file.
    pub from_volume: Counter,
    /// Access-log lines written.
    pub access_log_lines: Counter,
    /// Access-log lines that could not be written.
    pub access_log_dropped: Counter,
    overdue: Family<OverdueLabels, Counter>,
    /// By method and status class, looked up once: they are counted with each request.
    requests: [[Counter; 5]; 4],
    durations: Histogram,
    body_bytes: Counter,
    release: Family<ReleaseLabels, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: MethodLabel,
    status: StatusClass,
}

/// Only methods that exist: a client must not be able to make up time series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(clippy::upper_case_acronyms, reason = "the label is spelled as the method is")]
enum MethodLabel {
    GET,
    HEAD,
    OPTIONS,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct StatusClass(u16);

impl EncodeLabelValue for StatusClass {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        format!("{}xx", self.0).as_str().encode(encoder)
    }
}

/// What a client took too long for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Overdue {
    /// To send a request's head.
    Header,
    /// To send another request.
    Idle,
    /// To take what was sent.
    Send,
}

impl EncodeLabelValue for Overdue {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        let name = match self {
            Self::Header => "header",
            Self::Idle => "idle",
            Self::Send => "send",
        };
        name.encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OverdueLabels {
    waited_for: Overdue,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReleaseLabels {
    release: String,
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &mut Registry) -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        let counters =
            [MethodLabel::GET, MethodLabel::HEAD, MethodLabel::OPTIONS, MethodLabel::Other].map(|method| {
                [1, 2, 3, 4, 5].map(|class| {
                    requests.get_or_create(&RequestLabels { method, status: StatusClass(class) }).clone()
                })
            });
        let metrics = Self {
            connections: Gauge::default(),
            connections_accepted: Counter::default(),
            connections_refused: Counter::default(),
            overdue: Family::default(),
            refused: Counter::default(),
            in_flight: Gauge::default(),
            swaps: Counter::default(),
            access_log_lines: Counter::default(),
            access_log_dropped: Counter::default(),
            requests: counters,
            durations: Histogram::new(DURATIONS),
            body_bytes: Counter::default(),
            release: Family::default(),
            generation: Gauge::default(),
            held: Gauge::default(),
            from_memory: Counter::default(),
            from_volume: Counter::default(),
        };
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register(
            "connections_accepted",
            "Connections accepted since the start",
            metrics.connections_accepted.clone(),
        );
        registry.register(
            "connections_refused",
            "Connections answered 503 because there were too many",
            metrics.connections_refused.clone(),
        );
        registry.register(
            "connections_overdue",
            "Connections closed because the client took too long",
            metrics.overdue.clone(),
        );
        registry.register("http_requests", "Responses by method and status class", requests);
        registry.register(
            "http_malformed_requests",
            "What came and was no HTTP request",
            metrics.refused.clone(),
        );
        registry.register("http_requests_in_flight", "Requests being answered", metrics.in_flight.clone());
        registry.register_with_unit(
            "http_request_duration",
            "From the request's arrival to the last byte of its response",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register_with_unit(
            "http_response_body",
            "Body bytes handed to the network",
            Unit::Bytes,
            metrics.body_bytes.clone(),
        );
        registry.register("swaps", "Times that other content began to be served", metrics.swaps.clone());
        registry.register(
            "generation",
            "Counts up with each release that is loaded, and with each look that found the root to be something else",
            metrics.generation.clone(),
        );
        registry.register("release", "The release that is served, as a label", metrics.release.clone());
        registry.register_with_unit(
            "cache",
            "Bodies of the served content that are in memory",
            Unit::Bytes,
            metrics.held.clone(),
        );
        registry.register("cache_hits", "Answers whose body came from memory", metrics.from_memory.clone());
        registry.register("cache_misses", "Answers whose body came from a file", metrics.from_volume.clone());
        registry.register("access_log_lines", "Lines written", metrics.access_log_lines.clone());
        registry.register(
            "access_log_dropped_lines",
            "Lines that could not be written",
            metrics.access_log_dropped.clone(),
        );
        metrics
    }

    /// A response came to its end.
    pub fn answered(&self, method: &Method, status: StatusCode, body_bytes: u64, took: Duration) {
        let method = match *method {
            Method::GET => MethodLabel::GET,
            Method::HEAD => MethodLabel::HEAD,
            Method::OPTIONS => MethodLabel::OPTIONS,
            _ => MethodLabel::Other,
        };
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.requests[method as usize][class - 1].inc();
        self.durations.observe(took.as_secs_f64());
        self.body_bytes.inc_by(body_bytes);
    }

    /// Responses so far, from 1xx to 5xx.
    pub fn answered_by_class(&self) -> [u64; 5] {
        [0, 1, 2, 3, 4].map(|class| self.requests.iter().map(|method| method[class].get()).sum())
    }

    /// A connection was closed because its client took too long.
    pub fn overdue(&self, waited_for: Overdue) {
        self.overdue.get_or_create(&OverdueLabels { waited_for }).inc();
    }

    /// What is served from here on.
    pub fn serves(&self, release: Option<&str>, held: u64) {
        self.held.set(i64::try_from(held).unwrap_or(i64::MAX));
        self.release.clear();
        if let Some(release) = release {
            self.release.get_or_create(&ReleaseLabels { release: release.to_owned() }).set(1);
        }
    }
}
