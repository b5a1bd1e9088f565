//! What the agent says of itself on its admin port: how its sinks and its files are doing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lifecycle::admin::Report;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use serde_json::{Value, json};

use crate::deliver::Health;
use crate::identity::FileId;
use crate::metrics::SinkMetrics;
use crate::position::SinkIndex;
use crate::tail::{Naming, TailedFile};

/// A sink that has failed for this long makes the agent unready. Shorter outages are what the files are a buffer for.
const UNREADY_AFTER: Duration = Duration::from_secs(30);

/// One file, as it was when the loop last looked.
#[derive(Debug)]
pub(crate) struct FileState {
    path: PathBuf,
    id: Option<FileId>,
    size: u64,
    naming: Naming,
    /// In the order of the sinks.
    progress: Vec<Progress>,
}

/// How far a sink is in a file.
#[derive(Debug)]
struct Progress {
    confirmed: u64,
    /// Bytes that wait.
    lag: u64,
    /// When the first of them was seen; none where nothing waits but a line without an end.
    since: Option<Instant>,
}

impl FileState {
    /// Of a file that is followed for this many sinks.
    pub(crate) fn of(file: &TailedFile, sinks: usize) -> Self {
        let content = file.content();
        let progress = |sink| Progress {
            confirmed: content.confirmed(sink),
            lag: file.unconfirmed(sink),
            since: content.waiting_since(sink).filter(|_| file.unconfirmed(sink) > 0),
        };
        Self {
            path: file.path().to_owned(),
            id: content.id(),
            size: content.size(),
            naming: file.naming(),
            progress: SinkIndex::all(sinks).map(progress).collect(),
        }
    }

    /// Bytes that wait for a sink.
    pub(crate) fn lag(&self, sink: usize) -> u64 {
        self.progress.get(sink).map_or(0, |progress| progress.lag)
    }
}

/// One sink, as far as others may ask about it.
#[derive(Debug)]
pub(crate) struct SinkStatus {
    pub(crate) name: String,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: SinkMetrics,
}

/// Shared between the loop, which writes it, and the admin server, which reads it.
#[derive(Debug)]
pub(crate) struct Status {
    sinks: Vec<SinkStatus>,
    files: Mutex<Vec<FileState>>,
    /// Why not all names can be looked at.
    scan_failure: Mutex<Option<String>>,
}

impl Status {
    pub(crate) fn new(sinks: Vec<SinkStatus>) -> Self {
        Self { sinks, files: Mutex::default(), scan_failure: Mutex::default() }
    }

    /// Replaces what is known of the files, sets the gauges that are sums of it, and says why there may be more.
    pub(crate) fn set_files(&self, files: Vec<FileState>, scan_failure: Option<String>) {
        for (index, sink) in self.sinks.iter().enumerate() {
            let bytes: u64 = files.iter().map(|file| file.lag(index)).sum();
            sink.metrics.unconfirmed_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        *self.files.lock() = files;
        *self.scan_failure.lock() = scan_failure;
    }

    fn file(&self, file: &FileState) -> Value {
        let confirmed: serde_json::Map<_, _> = self
            .sinks
            .iter()
            .zip(&file.progress)
            .map(|(sink, progress)| (sink.name.clone(), json!(progress.confirmed)))
            .collect();
        json!({
            "path": file.path.to_string_lossy(),
            "id": file.id.map(|id| id.to_string()),
            "size": file.size,
            "confirmed": confirmed,
            "named": file.naming == Naming::Named,
        })
    }

    /// The sink that has been failing longest.
    pub(crate) fn longest_outage(&self) -> Option<(&str, Duration, String)> {
        let failing = self.sinks.iter().filter_map(|sink| {
            sink.health.failing().map(|(outage, reason)| (sink.name.as_str(), outage, reason))
        });
        failing.max_by_key(|(_, outage, _)| *outage)
    }
}

impl Report for Status {
    fn readiness(&self) -> Result<(), String> {
        if let Some(reason) = &*self.scan_failure.lock() {
            return Err(reason.clone());
        }
        match self.longest_outage() {
            Some((sink, outage, reason)) if outage >= UNREADY_AFTER => {
                Err(format!("sink {sink} has not confirmed for {}: {reason}", seconds(outage)))
            }
            _ => Ok(()),
        }
    }

    fn status(&self) -> Value {
        let sinks: Vec<_> = self
            .sinks
            .iter()
            .map(|SinkStatus { name, health, metrics }| {
                let mut status = health.status();
                status["sink"] = json!(name);
                status["confirmed_records"] = json!(metrics.confirmed_records.get());
                status["refused_records"] = json!(metrics.refused_records.get());
                status["unconfirmed_bytes"] = json!(metrics.unconfirmed_bytes.get());
                status["lost_bytes"] = json!(metrics.all_lost_bytes());
                status
            })
            .collect();
        let files: Vec<_> = self.files.lock().iter().map(|file| self.file(file)).collect();
        json!({"sinks": sinks, "files": files, "scan_failure": *self.scan_failure.lock()})
    }
}

/// How far behind each sink is in each file, in bytes and in seconds. Made when it is asked for, so that the seconds are those of
/// that moment, and a file that is gone leaves nothing behind.
#[derive(Debug)]
pub(crate) struct FileLag(pub(crate) Arc<Status>);

impl Collector for FileLag {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Files that had the same name, one after the other, are one series: all that waits, since the oldest of it.
        let mut series = BTreeMap::<_, (u64, f64)>::new();
        for file in &*self.0.files.lock() {
            let path = file.path.to_string_lossy().into_owned();
            for (sink, progress) in self.0.sinks.iter().zip(&file.progress) {
                let (bytes, seconds) = series.entry((path.clone(), sink.name.as_str())).or_default();
                *bytes += progress.lag;
                *seconds = progress.since.map_or(0.0, |since| since.elapsed().as_secs_f64()).max(*seconds);
            }
        }
        let help = "Bytes of the file that the sink has not confirmed";
        let mut bytes = encoder.encode_descriptor("file_lag", help, Some(&Unit::Bytes), MetricType::Gauge)?;
        for ((file, sink), (lag, _)) in &series {
            let labels = [("file", file.as_str()), ("sink", *sink)];
            ConstGauge::new(i64::try_from(*lag).unwrap_or(i64::MAX)).encode(bytes.encode_family(&labels)?)?;
        }
        let help = "How long the oldest byte of the file that the sink has not confirmed has been there";
        let mut age = encoder.encode_descriptor("file_lag", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for ((file, sink), (_, seconds)) in &series {
            let labels = [("file", file.as_str()), ("sink", *sink)];
            ConstGauge::new(*seconds).encode(age.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// For people: whole seconds.
pub(crate) fn seconds(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}
