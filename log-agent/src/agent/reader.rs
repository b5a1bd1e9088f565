//! The thread that reads: it owns the files and everything that is known of them, looks at what has changed, and fills chunks.
//!
//! A disk may take its time, and so may a neighbour with fifteen thousand names: nothing else waits here. The event loop, which
//! answers probes and talks to receivers, gets filled chunks over a channel a sink and gives them back when they are confirmed.
//! A chunk fills while the one before is delivered, never more than these two, so that a sink that is slow or down costs two
//! chunks of memory, whatever waits in the files.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use lifecycle::Ignore as _;
use lifecycle::escape::escaped_path;
use tokio::sync::mpsc::UnboundedSender;

use super::checkpoint_schedule::{Checkpoints, Disk};
use super::drain::Remains;
use super::status::{FileState, Status};
use crate::checkpoint::{FileEntry, SentWriter};
use crate::metrics::Metrics;
use crate::position::SinkIndex;
use crate::record::chunk::{Chunk, ChunkMode};
use crate::record::resource::SharedResource;
use crate::tail::{Catalog, Filled, Multiline, ReadOptions, UnterminatedLine};
use crate::watch::Discovery;

/// How often files near their end are looked at.
const NEAR_THE_END: Duration = Duration::from_millis(500);
/// Once the end has come, confirmations that are on their way are waited for this long.
const LAST_CONFIRMATIONS: Duration = Duration::from_secs(1);

/// When to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// When the agent is told to.
    Signalled,
    /// When everything is shipped.
    EndOfFiles,
}

/// What the reader is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// The kernel has said something about files.
    Changed,
    /// Look at all names.
    Rescan,
    /// A sink has confirmed a chunk.
    Delivered(SinkIndex, Chunk),
    /// A checkpoint was written, or could not be.
    Checkpointed(bool),
    /// Ship what is there, then end.
    Drain,
    /// Nothing is delivered any more: end.
    Stop,
}

/// What the reader tells.
#[derive(Debug)]
pub(crate) enum Report {
    /// Entries of the next checkpoint.
    Checkpoint(Vec<FileEntry>),
    /// Everything is shipped, or no more will be.
    Finished,
    /// The last word: entries of the last checkpoint, and what they leave.
    Ended(Vec<FileEntry>, Remains),
}

#[derive(Debug)]
pub(crate) struct Feed {
    /// None while both are with the sink.
    filling: Option<Chunk>,
    spare: Option<Chunk>,
    with_sink: usize,
    to: UnboundedSender<Chunk>,
}

impl Feed {
    /// Chunks of this size for the sink at the other end of `to`.
    pub(crate) fn new(chunk_size: usize, purpose: ChunkMode, to: UnboundedSender<Chunk>) -> Self {
        let chunk = || Chunk::new(chunk_size, purpose);
        Self { filling: Some(chunk()), spare: Some(chunk()), with_sink: 0, to }
    }

    fn is_idle(&self) -> bool {
        self.with_sink == 0 && self.filling.as_ref().is_none_or(Chunk::is_empty)
    }
}

pub(crate) struct Reader {
    pub(crate) inbox: Receiver<Message>,
    pub(crate) reports: UnboundedSender<Report>,
    pub(crate) discovery: Discovery,
    pub(crate) catalog: Catalog,
    pub(crate) options: ReadOptions,
    pub(crate) feeds: Vec<Feed>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) sent_log: SentWriter,
    pub(crate) resource: SharedResource,
    pub(crate) status: Arc<Status>,
    pub(crate) metrics: Metrics,
    pub(crate) names: Vec<String>,
    pub(crate) until: Until,
    pub(crate) rescan_period: Duration,
    /// With `--exit-at-eof`, a sink that fails for this long is the end.
    pub(crate) shutdown_timeout: Duration,
}

/// What one run of the reader keeps besides its parts.
struct Run {
    buffer: Vec<u8>,
    next_scan: Instant,
    last_scan: Instant,
    /// How long the last scan took: one that names ask for is not begun before as much time has passed.
    scan_took: Duration,
    names_changed: bool,
    draining: bool,
    stopped: bool,
}

impl Reader {
    /// Reads until it is told to stop.
    pub(crate) fn run(mut self) {
        let now = Instant::now();
        let mut run = Run {
            buffer: Vec::new(),
            next_scan: now,
            last_scan: now,
            scan_took: Duration::ZERO,
            names_changed: false,
            draining: false,
            stopped: false,
        };
        self.rescan(&mut run);
        while !self.turn(&mut run) {}
        self.end(&run);
    }

    /// Reads and sends what can be read and sent, then waits for something to happen. True where the end has come.
    fn turn(&mut self, run: &mut Run) -> bool {
        let mut filled = self.fill_and_send(run);
        let is_last = run.draining || self.until == Until::EndOfFiles;
        if (is_last && self.has_shipped_all(run, &mut filled)) || self.sink_failed_too_long() {
            return true;
        }
        if let Some(entries) = self.checkpoints.begin(|| self.catalog.entries()) {
            self.sent_log.checkpoint_begins();
            self.reports.send(Report::Checkpoint(entries)).ignore();
            self.publish();
        }
        let now = Instant::now();
        let next = if filled == Filled::ForNow { now } else { self.next_deadline(run, now) };
        let wait = next.saturating_duration_since(now);
        let mut message = match self.inbox.recv_timeout(wait) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return true,
        };
        while let Some(next) = message {
            self.handle(next, run);
            message = self.inbox.try_recv().ok();
        }
        if run.stopped {
            return true;
        }
        let now = Instant::now();
        let asked = run.names_changed && now >= run.last_scan + run.scan_took;
        if asked || now >= run.next_scan || (self.looks_often() && self.catalog.poll_quiet()) {
            self.rescan(run);
        }
        false
    }

    fn handle(&mut self, message: Message, run: &mut Run) {
        match message {
            Message::Changed => {
                let changes = self.discovery.changes();
                run.names_changed |= changes.names;
                changes.written.iter().for_each(|path| self.catalog.written(path));
            }
            Message::Rescan => self.rescan(run),
            Message::Delivered(sink, chunk) => self.on_delivered(sink, chunk),
            Message::Checkpointed(written) => {
                self.sent_log.checkpoint_ended(written);
                if let Some(snapshot) = self.checkpoints.ended(written) {
                    self.catalog.note_durable(&snapshot);
                }
            }
            Message::Drain => {
                run.draining = true;
                // The writers have left, or are about to: a record is at its end where it ends now.
                if let Multiline::StartsWith { quiet, .. } = &mut self.options.multiline {
                    *quiet = Duration::ZERO;
                }
                self.rescan(run);
            }
            Message::Stop => run.stopped = true,
        }
    }

    /// Whether something is waited for that no event tells of.
    fn looks_often(&self) -> bool {
        // Who waits for the end of the files waits for a sink that fails, too, but not until the next scan.
        self.until == Until::EndOfFiles || self.catalog.any_awaits_quiet()
    }

    fn next_deadline(&self, run: &Run, now: Instant) -> Instant {
        let mut next = run.next_scan;
        if run.names_changed {
            next = next.min(run.last_scan + run.scan_took);
        }
        if self.looks_often() {
            next = next.min(now + NEAR_THE_END);
        }
        self.checkpoints.due().map_or(next, |due| next.min(due))
    }

    /// Looks at all names and all sizes.
    fn rescan(&mut self, run: &mut Run) {
        let begin = Instant::now();
        run.names_changed = false;
        self.resource.refresh();
        let discovery = &mut self.discovery;
        self.catalog.update(|| discovery.scan());
        self.catalog.close_drained();
        if self.catalog.scan_failure().is_some() {
            self.metrics.scan_failures.inc();
        }
        self.checkpoints.note_files(self.catalog.extent());
        self.publish();
        if self.is_idle() {
            // An idle agent keeps no buffer for reading.
            run.buffer = Vec::new();
        }
        run.last_scan = Instant::now();
        run.scan_took = run.last_scan - begin;
        run.next_scan = run.last_scan + self.rescan_period;
    }

    /// There is no waiting for a chunk to fill: while the sink is quick, a line leaves as soon as it is read. While it is slow, chunks
    /// fill by themselves, and a full one is at hand as soon as the sink is free.
    fn fill_and_send(&mut self, run: &mut Run) -> Filled {
        let last_lines = (self.until == Until::EndOfFiles).then_some(UnterminatedLine::Emit);
        let mut at = 0;
        let mut scanned = false;
        let mut all = Filled::AsFarAsItGoes;
        while let Some(feed) = self.feeds.get_mut(at) {
            let sink = SinkIndex(u16::try_from(at).unwrap_or(u16::MAX));
            let Some(filling) = &mut feed.filling else {
                at += 1;
                continue;
            };
            let filled = self.catalog.fill(sink, last_lines, &self.options, filling, &mut run.buffer);
            if filled == Filled::NeedsScan && !scanned {
                scanned = true;
                self.rescan(run);
                continue;
            }
            if filled == Filled::ForNow {
                all = filled;
                self.send(at);
                at += 1;
                continue;
            }
            // The other chunk may be filled while that one is delivered.
            at += usize::from(!self.send(at));
        }
        all
    }

    /// Sends a chunk off if it is full or the sink is free, and a restart would know what is sent; true where it was.
    fn send(&mut self, at: usize) -> bool {
        let Some(feed) = self.feeds.get_mut(at) else { return false };
        let due = |chunk: &mut Chunk| !chunk.is_empty() && (feed.with_sink == 0 || chunk.is_full());
        let Some(mut chunk) = feed.filling.take_if(due) else { return false };
        let sent = match chunk.purpose() {
            ChunkMode::Records => self.catalog.uncovered(&chunk),
            // Copies have no ids.
            ChunkMode::Raw => Vec::new(),
        };
        let answers = self.checkpoints.disk() == Disk::Answers && !self.sent_log.is_stalled();
        let is_kept =
            self.catalog.is_durable(&chunk) && (sent.is_empty() || (answers && self.sent_log.append(sent)));
        if !is_kept && self.checkpoints.hold() {
            feed.filling = Some(chunk);
            return false;
        }
        if !is_kept {
            self.catalog.disown(&mut chunk);
        }
        feed.filling = feed.spare.take();
        feed.with_sink += 1;
        // Where the sink has ended, so has the agent.
        feed.to.send(chunk).ignore();
        true
    }

    /// Takes back what was delivered, and notes its ranges as confirmed.
    fn on_delivered(&mut self, sink: SinkIndex, mut chunk: Chunk) {
        for part in chunk.parts() {
            self.catalog.confirm(sink, &part.segment);
        }
        chunk.clear();
        if let Some(feed) = self.feeds.get_mut(sink.get()) {
            feed.with_sink -= 1;
            match feed.filling {
                Some(_) => feed.spare = Some(chunk),
                None => feed.filling = Some(chunk),
            }
        }
        self.checkpoints.changed();
    }

    /// Whether all that is in the files now is confirmed; what was written since the last event is found here, and `filled` says how far
    /// that was read.
    fn has_shipped_all(&mut self, run: &mut Run, filled: &mut Filled) -> bool {
        // A drain leaves what may be a copy to the next start; who waits for the end of the files waits until that is settled.
        let pending = self.until == Until::EndOfFiles && self.catalog.any_pending();
        if pending || !self.is_idle() {
            return false;
        }
        if !self.catalog.has_grown() {
            return true;
        }
        *filled = self.fill_and_send(run);
        self.is_idle()
    }

    fn is_idle(&self) -> bool {
        self.catalog.is_idle() && self.feeds.iter().all(Feed::is_idle)
    }

    /// With `--exit-at-eof` the end is waited for: a sink that fails for too long is the end.
    fn sink_failed_too_long(&self) -> bool {
        self.until == Until::EndOfFiles
            && self.status.longest_outage().is_some_and(|(_, outage, _)| outage >= self.shutdown_timeout)
    }

    /// Waits until nothing is delivered any more, then says what remains.
    fn end(mut self, run: &Run) {
        self.reports.send(Report::Finished).ignore();
        let now = Instant::now();
        let mut until = if run.stopped { now } else { now + LAST_CONFIRMATIONS };
        while let Ok(message) = self.inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
            match message {
                Message::Delivered(sink, chunk) => self.on_delivered(sink, chunk),
                // What is in the inbox by now is taken, and nothing is waited for.
                Message::Stop => until = Instant::now(),
                _ => {}
            }
        }
        let mut unread = None;
        if self.until == Until::EndOfFiles && !run.stopped {
            // All that is there was asked for. At a signal's end, files that cannot be read are not mentioned: they may be another
            // program's.
            unread = self.catalog.unread();
            for include in self.discovery.unmatched() {
                let include = escaped_path(Path::new(include.text()));
                tracing::warn!(%include, "no file matches: nothing was read");
            }
        }
        let remains = Remains::of(&mut self.catalog, &self.names, unread);
        let (entries, _) = self.catalog.entries();
        self.publish();
        self.reports.send(Report::Ended(entries, remains)).ignore();
    }

    /// Tells the admin server what it may say.
    fn publish(&mut self) {
        let sinks = self.names.len();
        let files: Vec<_> = self.catalog.files().map(|file| FileState::of(file, sinks)).collect();
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.open_files.set(gauge(files.len() as u64));
        self.metrics.held_bytes.set(gauge(self.catalog.held_bytes()));
        let failure = self.catalog.scan_failure().map(str::to_owned);
        self.metrics.scan_up.set(i64::from(failure.is_none()));
        self.status.set_files(files, failure);
    }
}
