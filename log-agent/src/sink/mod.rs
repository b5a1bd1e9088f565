//! Where records go. A sink makes one attempt at a time and says how it went; that an attempt is repeated until it is
//! confirmed, in order and without a gap, is decided here, once for all of them.

mod ndjson;
mod stdout;
mod url;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lifecycle::exit::Failure;
use serde_json::{Value, json};

use crate::backoff::Backoff;
use crate::chunk::Chunk;
use crate::enrich::Resource;
use crate::metrics::{BySink, Metrics};
use crate::record;
pub use url::SinkUrl;

/// While a sink fails, it is said again this often.
const REMIND: Duration = Duration::from_secs(60);

/// An attempt that was not confirmed, and may be made again.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Why, in a sentence.
    reason: String,
    /// How long the receiver asked to be left alone.
    retry_after: Option<Duration>,
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
    name: String,
    kind: Kind,
    resource: Arc<Resource>,
    health: Arc<Health>,
    metrics: Metrics,
    /// Memory for the next payload.
    spare: Vec<u8>,
}

#[derive(Debug)]
enum Kind {
    Stdout(stdout::Stdout),
    Ndjson(ndjson::Ndjson),
}

impl Sink {
    /// Prepares a sink; nothing is sent before the first chunk.
    ///
    /// # Errors
    /// 70 or 74 where its client or its thread cannot be made.
    pub fn new(url: &SinkUrl, resource: Arc<Resource>, metrics: Metrics) -> Result<Self, Failure> {
        let name = url.name();
        let kind = match url {
            SinkUrl::Stdout => Kind::Stdout(stdout::Stdout::start()?),
            SinkUrl::Ndjson(url) => Kind::Ndjson(ndjson::Ndjson::new(url.clone())?),
        };
        metrics.sink_up.get_or_create(&BySink { sink: name.clone() }).set(1);
        Ok(Self { name, kind, resource, health: Arc::default(), metrics, spare: Vec::new() })
    }

    /// As it is written in logs, metrics and the checkpoint: its URL without credentials.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is doing, for others to look at.
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Delivers a chunk: returns when the sink has confirmed it, however long that takes.
    pub async fn deliver(&mut self, chunk: &Chunk) {
        let mut body = std::mem::take(&mut self.spare);
        body.clear();
        record::encode(chunk, &self.resource, &mut body);
        let payload = Payload { key: chunk.key(), body: body.into() };
        let mut backoff = Backoff::default();
        while let Err(refusal) = self.attempt(&payload).await {
            let wait = backoff.next(refusal.retry_after);
            self.note_failure(&refusal, wait);
            tokio::time::sleep(wait).await;
        }
        self.note_success(chunk);
        if payload.body.is_unique() {
            self.spare = payload.body.into();
        }
    }

    async fn attempt(&mut self, payload: &Payload) -> Result<(), Refusal> {
        match &mut self.kind {
            Kind::Stdout(stdout) => stdout.attempt(payload).await,
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
