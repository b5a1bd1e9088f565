//! The access log: one line per response, written by a thread of its own.
//!
//! Answering never waits for the log's disk. A line is handed over and forgotten; the writer takes as many as there are and
//! writes them with one system call, so that on a quiet server a line is in the file at once, and on a busy one a write is
//! shared by many. What cannot be written, because the disk is full or stalls for too long, is counted and said.

mod common;
mod file;
mod record;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use lifecycle::exit::{Exit, Failure};
use tokio::sync::oneshot;

use crate::metrics::Metrics;
pub use file::Rotation;
use file::{LogFile, Written};
pub use record::Record;

/// Lines that wait for the writer, in bytes: some seconds of a busy server. Beyond that they are dropped.
const QUEUE_MAX: usize = 4 * 1024 * 1024;
/// Written at once.
const BATCH: usize = 64 * 1024;

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A JSON object with OpenTelemetry's names
    Json,
    /// As Apache writes it by default
    Common,
    /// As nginx writes it by default
    Combined,
}

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To stdout, by explicit choice.
    Stdout,
    /// To a file, rotated.
    File(PathBuf),
}

impl Destination {
    /// Reads what the flag says.
    pub fn from_flag(path: &Path) -> Self {
        if path == Path::new("-") { Self::Stdout } else { Self::File(path.to_owned()) }
    }
}

/// The hand that gives lines to the writer.
#[derive(Debug)]
pub struct AccessLog {
    format: Format,
    writer: mpsc::Sender<Order>,
    queued: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
enum Order {
    Line(Vec<u8>),
    Reopen,
    Close(oneshot::Sender<()>),
}

impl AccessLog {
    /// Opens the log and starts its writer.
    ///
    /// # Errors
    /// Exit code 74 where the file cannot be opened: better said at the start than found out when the lines are missed.
    pub fn open(
        destination: &Destination,
        format: Format,
        rotation: Rotation,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Failure> {
        let file = match destination {
            Destination::Stdout => LogFile::stdout().map_err(|error| cannot("stdout", &error))?,
            Destination::File(path) => {
                LogFile::open(path, rotation).map_err(|error| cannot_open(path, &error))?
            }
        };
        let (writer, orders) = mpsc::channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let thread = Writer {
            file,
            orders,
            queued: Arc::clone(&queued),
            metrics: Arc::clone(&metrics),
            failing: false,
        };
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || thread.run())
            .map_err(|error| cannot("its thread", &error))?;
        Ok(Self { format, writer, queued, metrics })
    }

    /// Hands over the line of one response.
    pub fn write(&self, record: &Record<'_>) {
        let line = match self.format {
            Format::Json => record.to_json_line(),
            Format::Common => record.to_common_line(),
            Format::Combined => record.to_combined_line(),
        };
        let length = line.len();
        if self.queued.fetch_add(length, Ordering::Relaxed) + length > QUEUE_MAX
            || self.writer.send(Order::Line(line)).is_err()
        {
            self.queued.fetch_sub(length, Ordering::Relaxed);
            self.metrics.access_log_dropped.inc();
        }
    }

    /// Makes the writer let go of its file and open the path anew, after it was renamed by somebody else.
    pub fn reopen(&self) {
        if self.writer.send(Order::Reopen).is_err() {
            tracing::error!("the access log's writer is gone");
        }
    }

    /// Waits until every line handed over before is in the file.
    pub async fn close(&self, patience: Duration) {
        let (done, finished) = oneshot::channel();
        let sent = self.writer.send(Order::Close(done)).is_ok();
        if !sent || !matches!(tokio::time::timeout(patience, finished).await, Ok(Ok(()))) {
            let bytes = self.queued.load(Ordering::Relaxed);
            tracing::error!(bytes, "the last lines of the access log could not be written in time");
        }
    }
}

fn cannot(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Io, format!("cannot start the access log: {what}: {error}"))
}

fn cannot_open(path: &Path, error: &std::io::Error) -> Failure {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Failure::new(
        Exit::Io,
        format!(
            "cannot open the access log {}: {error}; mount a directory at {} that this user may write to, or choose another with --access-log",
            path.display(),
            directory.display()
        ),
    )
}

struct Writer {
    file: LogFile,
    orders: mpsc::Receiver<Order>,
    queued: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    /// So that trouble is said when it begins and when it ends, not at each line.
    failing: bool,
}

impl Writer {
    fn run(mut self) {
        let mut lines = Vec::new();
        // Ends with the last sender.
        while let Ok(first) = self.orders.recv() {
            let mut next = Some(first);
            let mut bytes = 0;
            while let Some(order) = next {
                match order {
                    Order::Line(line) => {
                        bytes += line.len();
                        lines.push(line);
                    }
                    Order::Reopen => {
                        self.flush(&mut lines);
                        let reopened = self.file.reopen();
                        self.account(reopened);
                    }
                    Order::Close(done) => {
                        self.flush(&mut lines);
                        // Nobody waits any more: then nobody needs to know.
                        let _ = done.send(());
                    }
                }
                next = if bytes < BATCH { self.orders.try_recv().ok() } else { None };
            }
            self.flush(&mut lines);
        }
    }

    fn flush(&mut self, lines: &mut Vec<Vec<u8>>) {
        if !lines.is_empty() {
            let bytes: usize = lines.iter().map(Vec::len).sum();
            let written = self.file.append(lines);
            lines.clear();
            self.queued.fetch_sub(bytes, Ordering::Relaxed);
            self.account(written);
        }
    }

    fn account(&mut self, written: Written) {
        let Written { lines, dropped, trouble } = written;
        self.metrics.access_log_lines.inc_by(lines);
        self.metrics.access_log_dropped.inc_by(dropped);
        match trouble {
            Some(error) if !self.failing => {
                self.failing = true;
                tracing::error!(%error, "cannot write the access log; lines are dropped and counted until it can be written again");
            }
            None if self.failing && lines > 0 => {
                self.failing = false;
                tracing::info!(
                    dropped = self.metrics.access_log_dropped.get(),
                    "the access log is written again"
                );
            }
            _ => {}
        }
    }
}
