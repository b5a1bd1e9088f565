//! What Prometheus can ask: how syncs end, what they cost, and how old the content may be.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::failure::SyncError;
use crate::sync::Outcome;

/// From a request that was answered "not modified" to a first sync of many gigabytes.
const DURATIONS: [f64; 10] = [0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0, 300.0, 1200.0];

/// The puller's metrics. Clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    syncs: Family<Ended, Counter>,
    failures: Family<Failed, Counter>,
    durations: Histogram,
    fetched_files: Counter,
    fetched_bytes: Counter,
    reused_files: Counter,
    repaired_files: Counter,
    announcements: Family<Ended, Counter>,
    old_releases: Gauge,
    in_step_at: InStepAt,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    reason: &'static str,
}

/// When the volume was last known to be in step, or when this process started.
#[derive(Debug, Clone)]
struct InStepAt(Arc<Mutex<Instant>>);

impl Metrics {
    /// Registers all of them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            syncs: Family::default(),
            failures: Family::default(),
            durations: Histogram::new(DURATIONS),
            fetched_files: Counter::default(),
            fetched_bytes: Counter::default(),
            reused_files: Counter::default(),
            repaired_files: Counter::default(),
            announcements: Family::default(),
            old_releases: Gauge::default(),
            in_step_at: InStepAt(Arc::new(Mutex::new(Instant::now()))),
        };
        registry.register("syncs", "Syncs by how they ended", metrics.syncs.clone());
        registry.register("sync_failures", "Failed syncs by reason", metrics.failures.clone());
        let help = "How long syncs took, failed ones included";
        registry.register_with_unit("sync_duration", help, Unit::Seconds, metrics.durations.clone());
        registry.register(
            "fetched_files",
            "Files fetched from the content manager",
            metrics.fetched_files.clone(),
        );
        let help = "Content fetched from the content manager, manifests not included";
        registry.register_with_unit("fetched", help, Unit::Bytes, metrics.fetched_bytes.clone());
        let help = "Files of new releases that were on the volume already";
        registry.register("reused_files", help, metrics.reused_files.clone());
        let help = "Files of the published release that were found damaged and put right";
        registry.register("repaired_files", help, metrics.repaired_files.clone());
        let help = "Posts to the webhook by how they ended";
        registry.register("webhook_posts", help, metrics.announcements.clone());
        let help = "Releases on the volume besides the current one";
        registry.register("old_releases", help, metrics.old_releases.clone());
        registry.register_collector(Box::new(metrics.in_step_at.clone()));
        metrics
    }

    /// Counts a sync that ended.
    pub fn ended(&self, outcome: &Result<Outcome, SyncError>, took: Duration) {
        self.durations.observe(took.as_secs_f64());
        let result = match outcome {
            Ok(Outcome::Published(_)) => "published",
            Ok(Outcome::Unchanged(_)) => "unchanged",
            Err(error) => {
                self.failures.get_or_create(&Failed { reason: error.reason() }).inc();
                "failed"
            }
        };
        self.syncs.get_or_create(&Ended { result }).inc();
        if outcome.is_ok() {
            *self.in_step_at.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }

    /// Counts a file that was fetched.
    pub fn fetched(&self, bytes: u64) {
        self.fetched_files.inc();
        self.fetched_bytes.inc_by(bytes);
    }

    /// Counts files that did not have to be fetched.
    pub fn reused(&self, files: usize) {
        self.reused_files.inc_by(files as u64);
    }

    /// Counts a post to the webhook.
    pub fn announced(&self, outcome: Result<(), ()>) {
        let result = if outcome.is_ok() { "delivered" } else { "failed" };
        self.announcements.get_or_create(&Ended { result }).inc();
    }

    /// Counts files that were put right.
    pub fn repaired(&self, files: usize) {
        self.repaired_files.inc_by(files as u64);
    }

    /// Notes how many old releases there are.
    pub fn old_releases(&self, releases: usize) {
        self.old_releases.set(i64::try_from(releases).unwrap_or(i64::MAX));
    }

    /// How long ago the volume was last known to be in step.
    pub fn staleness(&self) -> Duration {
        self.in_step_at.elapsed()
    }
}

impl InStepAt {
    fn elapsed(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

impl Collector for InStepAt {
    /// Reckoned at each scrape, so that it grows while nothing else happens.
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let gauge = ConstGauge::new(self.elapsed().as_secs_f64());
        let help = "Time since the volume was last in step, or since the start if it never was.";
        let kind = prometheus_client::encoding::EncodeMetric::metric_type(&gauge);
        gauge.encode(encoder.encode_descriptor("staleness", help, Some(&Unit::Seconds), kind)?)
    }
}
