//! The standard `process_…` metrics, which dashboards and alerts know whatever the program.
//!
//! Names and meaning: Prometheus' client library guidelines, "Process metrics". They carry no prefix of ours. All are read at
//! each scrape from `/proc/self` (proc(5)).

use std::fmt::Error;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// A registry without a prefix that holds these metrics alone.
pub(super) fn registry(started: SystemTime) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process { started }));
    registry
}

#[derive(Debug)]
struct Process {
    started: SystemTime,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut gauge = |name: &str, help: &str, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        gauge(
            "process_start_time_seconds",
            "Start of the process since the Unix epoch",
            started.as_secs_f64(),
        )?;
        if let Some(resident) = resident_bytes() {
            gauge("process_resident_memory_bytes", "Resident memory", resident)?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            gauge("process_open_fds", "Open file descriptors", small(open.count()))?;
        }
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a limit of more than 2^52 descriptors does not exist"
            )]
            gauge("process_max_fds", "Limit of open file descriptors", limit as f64)?;
        }
        if let Some(seconds) = cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let help = "User and system CPU time";
            counter.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

/// The second field of `statm`, in pages.
fn resident_bytes() -> Option<f64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: f64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * small(page_size()))
}

/// `utime` and `stime`: fields 14 and 15 of `stat`. The second field is a name in parentheses, which may hold spaces.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "it is 100")]
    let ticks_per_second = clock_ticks_per_second() as f64;
    Some(ticks / ticks_per_second)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn small(value: usize) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_there_under_its_standard_name() {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry(SystemTime::now())).unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.split(' ').next() == Some(name));
            line.unwrap_or_else(|| panic!("{name} in {text}")).split(' ').nth(1).unwrap().parse().unwrap()
        };
        assert!(value("process_start_time_seconds") > 1e9);
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }
}
