//! Where records go. A sink makes one attempt at a time and says how it went; that an attempt is repeated until it is
//! confirmed, in order and without a gap, is decided here, once for all of them.
//!
//! A receiver that will not have the content itself (400, 413, 422) is given it in halves, until the records that it will
//! not have stand alone. Those go to the dead-letter file and into the ledger, and everything else is delivered.

mod file;
mod ndjson;
mod stdout;
mod url;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lifecycle::exit::Failure;
use serde_json::{Value, json};

use crate::backoff::Backoff;
use crate::chunk::Chunk;
use crate::dead_letter::DeadLetters;
use crate::enrich::Resource;
use crate::ledger::{Ledger, Reason};
use crate::metrics::{BySink, Metrics};
use crate::record;
pub use url::SinkUrl;

/// While a sink fails, it is said again this often.
const REMIND: Duration = Duration::from_secs(60);

/// An attempt that was not confirmed.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Why, in a sentence.
    reason: String,
    remedy: Remedy,
}

/// What may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// The same again, after the backoff and after what the receiver asked for.
    Wait(Option<Duration>),
    /// Other content: nothing is wrong with the receiver.
    OtherContent,
}

impl Refusal {
    pub(crate) fn wait(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: Remedy::Wait(None) }
    }
}

/// What one attempt carries: the same bytes and the same key at every repetition.
#[derive(Debug)]
pub(crate) struct Payload {
    key: String,
    body: Bytes,
}

/// A sink, ready to deliver.
#[derive(Debug)]
pub struct Sink {
    index: usize,
    name: String,
    kind: Kind,
    resource: Arc<Resource>,
    dead_letters: DeadLetters,
    ledger: Ledger,
    health: Arc<Health>,
    metrics: Metrics,
    /// Whether it has ever confirmed anything.
    proven: bool,
    /// Memory for the next payload.
    spare: Vec<u8>,
}

#[derive(Debug)]
enum Kind {
    Stdout(stdout::Stdout),
    File(file::FileSink),
    Ndjson(ndjson::Ndjson),
}

impl Sink {
    /// Prepares a sink; nothing is sent before the first chunk.
    ///
    /// # Errors
    /// 70 or 74 where its client or its thread cannot be made.
    pub fn new(
        index: usize,
        url: &SinkUrl,
        resource: Arc<Resource>,
        dead_letters: DeadLetters,
        ledger: Ledger,
        metrics: Metrics,
    ) -> Result<Self, Failure> {
        let name = url.name();
        let kind = match url {
            SinkUrl::Stdout => Kind::Stdout(stdout::Stdout::start()?),
            SinkUrl::File(path) => Kind::File(file::FileSink::new(path)),
            SinkUrl::Ndjson(url) => Kind::Ndjson(ndjson::Ndjson::new(url.clone())?),
        };
        metrics.sink_up.get_or_create(&BySink { sink: name.clone() }).set(1);
        let (health, proven, spare) = (Arc::default(), false, Vec::new());
        Ok(Self { index, name, kind, resource, dead_letters, ledger, health, metrics, proven, spare })
    }

    /// As it is written in logs, metrics and the checkpoint: its URL without credentials.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is doing, for others to look at.
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Delivers a chunk: returns when the sink has confirmed all of it but for what it will never have, however long that
    /// takes.
    pub async fn deliver(&mut self, chunk: &Chunk) {
        let all = 0..chunk.len();
        let mut todo = vec![all];
        while let Some(numbers) = todo.pop() {
            let Err(reason) = self.deliver_lines(chunk, &numbers).await else {
                self.proven = true;
                continue;
            };
            if numbers.len() > 1 {
                let middle = numbers.start + numbers.len() / 2;
                // A stack: the first half is the next, so that the order stays.
                todo.extend([middle..numbers.end, numbers.start..middle]);
            } else {
                self.bury(chunk, numbers.start, &reason).await;
            }
        }
        self.note_success(chunk);
    }

    /// Delivers some lines, again and again.
    ///
    /// # Errors
    /// Why the receiver will not have this content.
    async fn deliver_lines(&mut self, chunk: &Chunk, numbers: &Range<usize>) -> Result<(), String> {
        let mut body = std::mem::take(&mut self.spare);
        body.clear();
        record::encode(chunk, numbers, &self.resource, &mut body);
        let payload = Payload { key: chunk.key(numbers), body: body.into() };
        let mut backoff = Backoff::default();
        let outcome = loop {
            let Err(refusal) = self.attempt(&payload).await else { break Ok(()) };
            let asked = match refusal.remedy {
                Remedy::Wait(asked) => asked,
                // A receiver that never took anything is more likely to be the wrong one than every record is to be bad.
                Remedy::OtherContent if self.proven || numbers.len() > 1 => break Err(refusal.reason),
                Remedy::OtherContent => None,
            };
            let wait = backoff.next(asked);
            self.note_failure(&refusal, wait);
            tokio::time::sleep(wait).await;
        };
        if payload.body.is_unique() {
            self.spare = payload.body.into();
        }
        outcome
    }

    /// Gives up on one record, once it is safe in the dead-letter file.
    async fn bury(&mut self, chunk: &Chunk, number: usize, reason: &str) {
        let mut record = Vec::new();
        record::encode(chunk, &(number..number + 1), &self.resource, &mut record);
        let mut backoff = Backoff::default();
        loop {
            let (letters, sink) = (self.dead_letters.clone(), self.name.clone());
            let (why, copy) = (reason.to_owned(), record.clone());
            let kept = tokio::task::spawn_blocking(move || letters.keep(&sink, &why, &copy)).await;
            let failure = match kept {
                Ok(Ok(())) => break,
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            let refusal = Refusal::wait(format!("cannot write the dead-letter file: {failure}"));
            let wait = backoff.next(None);
            self.note_failure(&refusal, wait);
            tokio::time::sleep(wait).await;
        }
        if let Some((origin, range)) = chunk.place(number) {
            self.ledger.lose(Reason::Refused, self.index, origin.path.as_ref().as_ref(), range);
        }
    }

    async fn attempt(&mut self, payload: &Payload) -> Result<(), Refusal> {
        match &mut self.kind {
            Kind::Stdout(stdout) => stdout.attempt(payload).await,
            Kind::File(file) => file.attempt(payload).await,
            Kind::Ndjson(ndjson) => ndjson.attempt(payload).await,
        }
    }

    fn note_failure(&self, refusal: &Refusal, wait: Duration) {
        let label = BySink { sink: self.name.clone() };
        self.metrics.retries.get_or_create(&label).inc();
        self.metrics.sink_up.get_or_create(&label).set(0);
        let (attempts, say) = self.health.fail(&refusal.reason);
        if say {
            tracing::warn!(
                sink = self.name,
                attempts,
                retry_in = ?wait,
                reason = refusal.reason,
                "sink does not confirm: its lines wait in their files"
            );
        }
    }

    fn note_success(&self, chunk: &Chunk) {
        let label = BySink { sink: self.name.clone() };
        self.metrics.confirmed_records.get_or_create(&label).inc_by(chunk.len() as u64);
        self.metrics.confirmed_bytes.get_or_create(&label).inc_by(chunk.bytes() as u64);
        if let Some((attempts, outage)) = self.health.succeed() {
            self.metrics.sink_up.get_or_create(&label).set(1);
            tracing::info!(sink = self.name, attempts, ?outage, "sink confirms again");
        }
    }
}

/// How a sink is doing; shared with the admin server.
#[derive(Debug, Default)]
pub struct Health {
    state: Mutex<HealthState>,
}

#[derive(Debug, Default)]
struct HealthState {
    failing: Option<Failing>,
    confirmed_chunks: u64,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    said: Instant,
    attempts: u64,
    reason: String,
}

impl Health {
    /// How long it has been failing, and why.
    pub fn failing(&self) -> Option<(Duration, String)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failing.as_ref().map(|failing| (failing.since.elapsed(), failing.reason.clone()))
    }

    /// For `/status`.
    pub fn status(&self) -> Value {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let failing = state.failing.as_ref().map(|failing| {
            json!({
                "for_seconds": failing.since.elapsed().as_secs_f64(),
                "attempts": failing.attempts,
                "reason": failing.reason,
            })
        });
        json!({"confirmed_chunks": state.confirmed_chunks, "failing": failing})
    }

    /// The attempts since it began to fail, and whether it is time to say so.
    fn fail(&self, reason: &str) -> (u64, bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let Some(failing) = &mut state.failing else {
            state.failing = Some(Failing { since: now, said: now, attempts: 1, reason: reason.to_owned() });
            return (1, true);
        };
        failing.attempts += 1;
        // Another reason is news; the same one only now and then.
        let say = failing.reason != reason || failing.said.elapsed() >= REMIND;
        reason.clone_into(&mut failing.reason);
        if say {
            failing.said = now;
        }
        (failing.attempts, say)
    }

    /// What has just ended, where it had been failing.
    fn succeed(&self) -> Option<(u64, Duration)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.confirmed_chunks += 1;
        state.failing.take().map(|failing| (failing.attempts, failing.since.elapsed()))
    }
}
