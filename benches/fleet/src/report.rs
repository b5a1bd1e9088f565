//! What was measured: rows of case, metric, unit, value and goal, as every benchmark of this repository writes them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde_json::{Value, json};
use testkit::percentile;

/// The rows of this run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    case: String,
    rows: Vec<Value>,
}

/// What a value should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// No more than this.
    AtMost(f64),
    /// It is shown, and means nothing alone.
    None,
}

impl Report {
    /// The rows that follow belong to this case.
    pub(crate) fn begin(&mut self, case: &str) {
        case.clone_into(&mut self.case);
    }

    /// Notes a value, and says it.
    pub(crate) fn row(&mut self, metric: &str, unit: &str, value: f64, goal: Goal) {
        let rounded = (value * 1000.0).round() / 1000.0;
        let (goal, verdict) = match goal {
            Goal::AtMost(most) if value <= most => (json!(most), format!("  (goal: {most})")),
            Goal::AtMost(most) => (json!(most), format!("  MISSED (goal: {most})")),
            Goal::None => (Value::Null, String::new()),
        };
        println!("  {metric:<58} {rounded:>12} {unit}{verdict}");
        self.rows
            .push(json!({"case": self.case, "metric": metric, "unit": unit, "ours": rounded, "goal": goal}));
    }

    /// Notes how long something took for each of many, in milliseconds.
    pub(crate) fn times(&mut self, what: &str, took: &mut [Duration], p99: Goal) {
        took.sort_unstable();
        self.row(&format!("{what}, p50"), "ms", milliseconds(percentile(took, 50)), Goal::None);
        self.row(&format!("{what}, p99"), "ms", milliseconds(percentile(took, 99)), p99);
    }

    /// Writes all rows to a file. Those that it has of other cases stay, with the date and the commit of the run that measured them.
    pub(crate) fn write(self, path: &Path) -> anyhow::Result<()> {
        let before: Option<Value> = fs::read(path).ok().and_then(|json| serde_json::from_slice(&json).ok());
        let before = before.unwrap_or_default();
        let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let commit = output(Command::new("git").args(["rev-parse", "--short", "HEAD"]));
        let mut rows: Vec<Value> = before["results"].as_array().cloned().unwrap_or_default();
        rows.retain(|row| self.rows.iter().all(|new| new["case"] != row["case"]));
        for row in &mut rows {
            // A file of before each row said it for itself.
            for key in ["date", "commit"] {
                if row[key].is_null() {
                    row[key] = before[key].clone();
                }
            }
        }
        for mut row in self.rows {
            (row["date"], row["commit"]) = (date.clone().into(), commit.clone().into());
            rows.push(row);
        }
        let report = json!({"machine": machine()?, "date": date, "commit": commit, "results": rows});
        fs::write(path, serde_json::to_string_pretty(&report)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn machine() -> anyhow::Result<Value> {
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let cpu = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(json!({
        "cpu": cpu.map(|(_, model)| model),
        "cores": std::thread::available_parallelism()?.get(),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
    }))
}

fn output(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}
