//! The access log: one line per response, written by a thread of its own.
//!
//! Answering never waits for the log's disk. A line is handed over and forgotten; the writer is woken by the first, gives others a
//! moment to join it, and writes them all with one system call. So a line is in the file right after its response, and a busy
//! server pays for two hundred writes a second and not for one per request. What cannot be written, because the disk is full or
//! stalls for too long, is counted and said.

mod clf;
mod file;
mod handle;
mod queue;
mod record;
mod rotation;

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::exit::{Exit, Failure};
use tokio::sync::oneshot;

use crate::content::path_glob::PathGlob;
use crate::metrics::Metrics;
use file::LogFile;
use queue::{Queue, Writer};
pub(crate) use record::Record;
pub(crate) use rotation::Rotation;

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A JSON object with OpenTelemetry's names
    Json,
    /// As Apache writes it by default
    Common,
    /// As nginx writes it by default
    Combined,
}

/// The file that the flag `--access-log` names; none where that is stdout.
pub(crate) fn file_of(flag: &Path) -> Option<&Path> {
    Some(flag).filter(|flag| *flag != Path::new("-"))
}

/// The hand that gives lines to the writer.
#[derive(Debug)]
pub(crate) struct AccessLog {
    format: Format,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    /// Paths without a line, unless something went wrong.
    excluded: Vec<PathGlob>,
}

thread_local! {
    /// Where a line is made, kept from line to line so that none costs an allocation.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl AccessLog {
    /// Opens the log and starts its writer. Requests for `excluded` paths, such as health checks, are left out as long as they are
    /// answered well.
    ///
    /// # Errors
    /// Exit code 74 where the file cannot be opened: better said at the start than found out when the lines are missed.
    pub(crate) fn open(
        flag: &Path,
        format: Format,
        rotation: Rotation,
        excluded: Vec<PathGlob>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Failure> {
        let file = match file_of(flag) {
            None => LogFile::stdout().map_err(|error| cannot("stdout", &error))?,
            Some(path) => LogFile::open(path, rotation).map_err(|error| cannot_open(path, &error))?,
        };
        let queue = Arc::new(Queue::default());
        let writer = Writer::new(file, Arc::clone(&queue), Arc::clone(&metrics));
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| cannot("its thread", &error))?;
        Ok(Self { format, queue, metrics, excluded })
    }

    fn leaves_out(&self, record: &Record<'_>) -> bool {
        let path = || record.request.map_or("", |request| request.uri.path());
        let matches = |glob: &PathGlob| glob.matches(path().trim_start_matches('/'));
        record.status.as_u16() < 400 && self.excluded.iter().any(matches)
    }

    /// Hands over the line of one response.
    pub(crate) fn write(&self, record: &Record<'_>) {
        if self.leaves_out(record) {
            return;
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            match self.format {
                Format::Json => record.write_json(line),
                Format::Common => record.write_common(line),
                Format::Combined => record.write_combined(line),
            }
            line.push(b'\n');
            if !self.queue.push(line) {
                self.metrics.access_log_dropped.inc();
            }
        });
    }

    /// Makes the writer let go of its file and reopen the path, after another program renamed it.
    pub(crate) fn reopen(&self) {
        self.queue.reopen();
    }

    /// Waits until every line handed over before is in the file.
    pub(crate) async fn close(&self, limit: Duration) {
        let (done, finished) = oneshot::channel();
        self.queue.finish(done);
        if !matches!(tokio::time::timeout(limit, finished).await, Ok(Ok(()))) {
            let bytes = self.queue.bytes();
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
