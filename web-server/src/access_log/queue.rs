//! Lines on their way to the file: a bounded queue, and the thread that empties it.

use std::sync::Arc;
use std::time::Duration;

use lifecycle::Ignore as _;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::file::{LogFile, WriteReport};
use crate::metrics::Metrics;

/// Lines that wait for the writer, in bytes: some seconds of a busy server. Beyond that they are dropped.
const QUEUE_MAX: usize = 4 * 1024 * 1024;
/// What the queue keeps allocated when it is empty.
const QUEUE_KEPT: usize = 256 * 1024;
/// How long the first line waits for others. Waking the writer for each would cost more than answering does.
const GATHER: Duration = Duration::from_millis(5);

/// What was handed over and is not written yet.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Bytes that the writer has taken and not written yet.
    taken: usize,
    reopen: bool,
    finish: Option<oneshot::Sender<()>>,
}

impl Waiting {
    fn is_urgent(&self) -> bool {
        self.reopen || self.finish.is_some()
    }
}

impl Queue {
    /// Adds a line, and says so, unless too much waits already.
    #[must_use]
    pub(super) fn push(&self, line: &[u8]) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.lines.len() + waiting.taken + line.len() > QUEUE_MAX {
            return false;
        }
        let was_empty = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        if was_empty {
            self.ready.notify_one();
        }
        true
    }

    /// Has the file reopened, once what waits is written.
    pub(super) fn reopen(&self) {
        self.waiting.lock().reopen = true;
        self.ready.notify_one();
    }

    /// Has `done` told when what waits is written.
    pub(super) fn finish(&self, done: oneshot::Sender<()>) {
        self.waiting.lock().finish = Some(done);
        self.ready.notify_one();
    }

    /// How much is not written yet.
    pub(super) fn bytes(&self) -> usize {
        let waiting = self.waiting.lock();
        waiting.lines.len() + waiting.taken
    }

    /// Waits for something to do, exchanges `lines` for what waits, and says what else is wanted.
    fn take(&self, lines: &mut Vec<u8>) -> (bool, Option<oneshot::Sender<()>>) {
        lines.clear();
        lines.shrink_to(QUEUE_KEPT);
        let mut waiting = self.waiting.lock();
        waiting.taken = 0;
        self.ready.wait_while(&mut waiting, |waiting| waiting.lines.is_empty() && !waiting.is_urgent());
        // Whether the time is over or something urgent came: what is there is taken.
        self.ready.wait_while_for(&mut waiting, |waiting| !waiting.is_urgent(), GATHER);
        std::mem::swap(&mut waiting.lines, lines);
        waiting.taken = lines.len();
        (std::mem::take(&mut waiting.reopen), waiting.finish.take())
    }
}

/// Empties the queue into the file, for as long as the process lives.
pub(super) struct Writer {
    file: LogFile,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    /// So that error is said when it begins and when it ends, not at each line.
    failing: bool,
}

impl Writer {
    pub(super) fn new(file: LogFile, queue: Arc<Queue>, metrics: Arc<Metrics>) -> Self {
        Self { file, queue, metrics, failing: false }
    }

    pub(super) fn run(mut self) {
        let mut lines = Vec::new();
        loop {
            let (reopen, finish) = self.queue.take(&mut lines);
            if !lines.is_empty() {
                let written = self.file.append(&lines);
                self.account(written);
            }
            if reopen {
                let reopened = self.file.reopen();
                self.account(reopened);
            }
            if let Some(done) = finish {
                // The caller has stopped waiting.
                done.send(()).ignore();
            }
        }
    }

    fn account(&mut self, written: WriteReport) {
        let WriteReport { lines, dropped, error } = written;
        self.metrics.access_log_lines.inc_by(lines);
        self.metrics.access_log_dropped.inc_by(dropped);
        match error {
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
