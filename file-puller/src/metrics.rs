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
use crate::release::ReleaseId;
use crate::sync::Outcome;

/// From a request that was answered "not modified" to a first sync of many gigabytes.
const DURATIONS: [f64; 10] = [0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0, 300.0, 1200.0];

/// The puller's metrics. Clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    syncs: Family<Ended, Counter>,
    failures: Family<Failed, Counter>,
    durations: Histogram,
    phases: Family<During, Histogram, fn() -> Histogram>,
    retries: Family<Retried, Counter>,
    volume_free: Gauge,
    release_size: Gauge,
    release: Family<Current, Gauge>,
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
struct Current {
    release: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct During {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Retried {
    what: &'static str,
}

/// A part of a sync that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The manifest is fetched, checked and compared with the volume.
    Plan,
    /// What the volume has is linked.
    Link,
    /// The rest is fetched.
    Fetch,
    /// An archive is fetched and unpacked.
    Unpack,
    /// The release is synced to disk and made visible; of an archive's, what did not change is linked first.
    Publish,
}

/// What can be asked for again within a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The manifest, because it and what it names did not fit together.
    Manifest,
    /// A file, or the rest of it, because the connection broke.
    File,
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
            phases: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            retries: Family::default(),
            volume_free: Gauge::default(),
            release_size: Gauge::default(),
            release: Family::default(),
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
        let help = "How long the phases of syncs took that got through them";
        registry.register_with_unit("phase_duration", help, Unit::Seconds, metrics.phases.clone());
        let help = "What was asked for a second time within a sync, because the first answer broke off or did not fit";
        registry.register("retries", help, metrics.retries.clone());
        let help = "Space that is free on the volume's file system for this user, as of the last sync that published";
        registry.register_with_unit("volume_free", help, Unit::Bytes, metrics.volume_free.clone());
        let help = "All files of the last release that was published";
        registry.register_with_unit("release_size", help, Unit::Bytes, metrics.release_size.clone());
        let help = "The release that is published, as its label: always 1";
        registry.register("release_info", help, metrics.release.clone());
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
        if let Ok(outcome) = outcome {
            self.current(outcome.release());
            *self.in_step_at.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }

    /// Notes which release is published.
    pub fn current(&self, release: &ReleaseId) {
        let current = Current { release: release.as_str().to_owned() };
        // A scrape between the two would find none, so that is left for when the release is another one.
        if self.release.get(&current).is_none() {
            self.release.clear();
        }
        self.release.get_or_create(&current).set(1);
    }

    /// Notes how long a phase took that began then.
    pub fn phase(&self, phase: Phase, began: Instant) {
        let phase = match phase {
            Phase::Plan => "plan",
            Phase::Link => "link",
            Phase::Fetch => "fetch",
            Phase::Unpack => "unpack",
            Phase::Publish => "publish",
        };
        self.phases.get_or_create(&During { phase }).observe(began.elapsed().as_secs_f64());
    }

    /// Counts what is asked for again.
    pub fn retried(&self, retry: Retry) {
        let what = match retry {
            Retry::Manifest => "manifest",
            Retry::File => "file",
        };
        self.retries.get_or_create(&Retried { what }).inc();
    }

    /// Notes what a new release takes, and what it leaves.
    pub fn space(&self, release: u64, free: u64) {
        self.release_size.set(i64::try_from(release).unwrap_or(i64::MAX));
        self.volume_free.set(i64::try_from(free).unwrap_or(i64::MAX));
    }

    /// Counts what was fetched.
    pub fn fetched(&self, files: usize, bytes: u64) {
        self.fetched_files.inc_by(files as u64);
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
