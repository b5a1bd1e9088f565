//! What Prometheus can ask: how syncs end, what they cost, and how old the content may be.

use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lifecycle::metrics::Registrar;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::content::ReleaseId;

/// From a request that was answered "not modified" to a first sync of many gigabytes.
const DURATIONS: [f64; 10] = [0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0, 300.0, 1200.0];

/// A metric's only label, and its value.
type Label = [(&'static str, &'static str); 1];

/// The puller's metrics. Clones share their values.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    syncs: Family<Label, Counter>,
    failures: Family<Label, Counter>,
    durations: Histogram,
    phases: Family<Label, Histogram, fn() -> Histogram>,
    retries: Family<Label, Counter>,
    volume_free: Gauge,
    release_size: Gauge,
    release: Family<[(&'static str, String); 1], Gauge>,
    revision: Family<[(&'static str, String); 2], Gauge>,
    fetched_files: Counter,
    fetched_bytes: Counter,
    reused_files: Counter,
    repaired_files: Counter,
    webhook_posts: Family<Label, Counter>,
    old_releases: Gauge,
    waits: Family<Label, Counter>,
    waiting: Gauge,
    last_success: LastSuccess,
}

/// How a sync ended, as far as it is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SyncResult<'r> {
    Published(&'r ReleaseId),
    Unchanged(&'r ReleaseId),
    Failed { reason: &'static str },
}

/// A part of a sync that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
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
pub(crate) enum Retry {
    /// The manifest, because it and what it names did not fit together.
    Manifest,
    /// A file, or the rest of it, because the connection broke.
    File,
}

/// When the volume was last known to be in step, or when this process started.
#[derive(Debug, Clone)]
struct LastSuccess(Arc<Mutex<Instant>>);

impl Metrics {
    /// Registers all of them.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let last_success = LastSuccess(Arc::new(Mutex::new(Instant::now())));
        registry.register_collector(Box::new(last_success.clone()));
        let mut registrar = Registrar::new(registry);
        let seconds = || Histogram::new(DURATIONS);
        Self {
            syncs: registrar.metric("syncs", "Syncs by how they ended"),
            failures: registrar.metric("sync_failures", "Failed syncs by reason"),
            durations: registrar.seconds("sync_duration", "How long syncs took, failed ones included, without the time that the content manager was asked to wait", &DURATIONS),
            phases: registrar.add_in(
                Unit::Seconds,
                "phase_duration",
                "How long the phases of syncs took that got through them",
                Family::new_with_constructor(seconds),
            ),
            retries: registrar.metric(
                "retries",
                "What was asked for a second time within a sync, because the first answer broke off or did not fit",
            ),
            volume_free: registrar.metric_in(
                Unit::Bytes,
                "volume_free",
                "Space that is free on the volume's file system for this user, as of the last sync that published",
            ),
            release_size: registrar.metric_in(
                Unit::Bytes,
                "release_size",
                "All files of the last release that was published",
            ),
            release: registrar.metric("release_info", "The release that is published, as its label: always 1"),
            revision: registrar.metric(
                "revision_info",
                "The commit of the git repository, or the digest of the image, that is published, as its labels: always 1",
            ),
            fetched_files: registrar.metric("fetched_files", "Files fetched from the content manager"),
            fetched_bytes: registrar.metric_in(
                Unit::Bytes,
                "fetched",
                "Content fetched from the content manager, manifests not included",
            ),
            reused_files: registrar.metric("reused_files", "Files of new releases that were on the volume already"),
            repaired_files: registrar.metric(
                "repaired_files",
                "Files of the published release that were found damaged and put right",
            ),
            webhook_posts: registrar.metric("webhook_posts", "Posts to the webhook by how they ended"),
            old_releases: registrar.metric("old_releases", "Releases on the volume besides the current one"),
            waits: registrar.metric("waits", "Requests that the content manager was asked to hold until there is a change, by how they ended"),
            waiting: registrar.metric("waiting", "1 while the content manager holds a request until there is a change, else 0"),
            last_success,
        }
    }

    /// Counts a sync that ended.
    pub(crate) fn sync_finished(&self, result: SyncResult<'_>, took: Duration) {
        self.durations.observe(took.as_secs_f64());
        let (result, release) = match result {
            SyncResult::Published(release) => ("published", Some(release)),
            SyncResult::Unchanged(release) => ("unchanged", Some(release)),
            SyncResult::Failed { reason } => {
                self.failures.get_or_create(&[("reason", reason)]).inc();
                ("failed", None)
            }
        };
        self.syncs.get_or_create(&[("result", result)]).inc();
        if let Some(release) = release {
            self.current(release);
            *self.last_success.0.lock() = Instant::now();
        }
    }

    /// Notes which release is published.
    pub(crate) fn current(&self, release: &ReleaseId) {
        set_only(&self.release, &[("release", release.to_string())]);
    }

    /// Notes what the published release is in its source.
    pub(crate) fn follows(&self, (kind, revision): (&'static str, &str)) {
        set_only(&self.revision, &[("kind", kind.to_owned()), ("revision", revision.to_owned())]);
    }

    /// Notes how long a phase took that began then.
    pub(crate) fn phase(&self, phase: Phase, began: Instant) {
        let phase = match phase {
            Phase::Plan => "plan",
            Phase::Link => "link",
            Phase::Fetch => "fetch",
            Phase::Unpack => "unpack",
            Phase::Publish => "publish",
        };
        self.phases.get_or_create(&[("phase", phase)]).observe(began.elapsed().as_secs_f64());
    }

    /// Counts what is asked for again.
    pub(crate) fn retried(&self, retry: Retry) {
        let what = match retry {
            Retry::Manifest => "manifest",
            Retry::File => "file",
        };
        self.retries.get_or_create(&[("what", what)]).inc();
    }

    /// Notes what a new release takes, and what it leaves.
    pub(crate) fn space(&self, release: u64, free: u64) {
        self.release_size.set(i64::try_from(release).unwrap_or(i64::MAX));
        self.volume_free.set(i64::try_from(free).unwrap_or(i64::MAX));
    }

    /// Counts what was fetched.
    pub(crate) fn fetched(&self, files: usize, bytes: u64) {
        self.fetched_files.inc_by(files as u64);
        self.fetched_bytes.inc_by(bytes);
    }

    /// Counts files that did not have to be fetched.
    pub(crate) fn reused(&self, files: usize) {
        self.reused_files.inc_by(files as u64);
    }

    /// Counts a post to the webhook.
    pub(crate) fn announced(&self, result: &'static str) {
        self.webhook_posts.get_or_create(&[("result", result)]).inc();
    }

    /// Notes whether a request is held.
    pub(crate) fn waiting(&self, is_waiting: bool) {
        self.waiting.set(i64::from(is_waiting));
    }

    /// Counts a request that was held.
    pub(crate) fn waited(&self, result: &'static str) {
        self.waits.get_or_create(&[("result", result)]).inc();
    }

    /// Counts files that were put right.
    pub(crate) fn repaired(&self, files: usize) {
        self.repaired_files.inc_by(files as u64);
    }

    /// Notes how many old releases there are.
    pub(crate) fn old_releases(&self, releases: usize) {
        self.old_releases.set(i64::try_from(releases).unwrap_or(i64::MAX));
    }
}

/// Makes these labels the only ones of a metric that is always 1.
fn set_only<L: Clone + Eq + Hash>(info: &Family<L, Gauge>, labels: &L) {
    // A scrape between the two would find none, so that is left for when the labels are other ones.
    if info.get(labels).is_none() {
        info.clear();
    }
    info.get_or_create(labels).set(1);
}

impl Collector for LastSuccess {
    /// Reckoned at each scrape, so that it grows while nothing else happens.
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let gauge = ConstGauge::new(self.0.lock().elapsed().as_secs_f64());
        let help = "Time since the volume was last in step, or since the start if it never was.";
        let kind = gauge.metric_type();
        gauge.encode(encoder.encode_descriptor("staleness", help, Some(&Unit::Seconds), kind)?)
    }
}
