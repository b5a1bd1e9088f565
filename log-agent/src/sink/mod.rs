//! Where records go. A sink makes one attempt at a time and says how it went; that an attempt is repeated until it is
//! confirmed, in order and without a gap, is decided here, once for all of them.
//!
//! A receiver that will not have the content itself (400, 413, 422) is given it in halves, until the records that it will
//! not have stand alone. Those go to the dead-letter file and into the ledger, and everything else is delivered.

mod compress;
mod file;
mod forward;
mod health;
mod http;
mod ndjson;
mod otlp;
mod stdout;
mod tls;
mod url;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lifecycle::exit::{Exit, Failure, OrExit as _};

use crate::backoff::Backoff;
use crate::chunk::Chunk;
use crate::dead_letter::DeadLetters;
use crate::enrich::SharedResource;
use crate::ledger::{Ledger, Reason};
use crate::metrics::{BySink, Metrics};
use crate::record::Encoding;
pub use compress::Compression;
use compress::Compressor;
pub use forward::SharedKey;
pub use health::Health;
pub use tls::Roots;
pub use url::{Form, ForwardUrl, SinkUrl};

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
    /// Perhaps other content. A receiver that breaks says the same as one that breaks at a record, so the last record of
    /// a bisection is tried for a while before it is given up.
    PerhapsOtherContent,
}

/// How often a record is tried that a receiver perhaps breaks at.
const PERHAPS: u32 = 8;

/// What was confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// All of it.
    All,
    /// All but so many records; which ones, the receiver does not say.
    AllBut(u64, String),
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
    /// What was done to the body.
    compression: Compression,
    records: usize,
}

/// What sinks are set up with, besides where they are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For what goes over the network.
    pub compression: Compression,
    /// Whom to trust.
    pub roots: Roots,
    /// For Forward receivers that ask for it.
    pub shared_key: Option<forward::SharedKey>,
}

/// What every sink has to do with, besides its receiver.
#[derive(Debug)]
pub struct Records {
    /// What they carry.
    pub resource: SharedResource,
    /// Where those go that a receiver will not have.
    pub dead_letters: DeadLetters,
    /// And where that is said.
    pub ledger: Ledger,
}

/// A sink, ready to deliver.
#[derive(Debug)]
pub struct Sink {
    index: usize,
    name: String,
    kind: Kind,
    encoding: Encoding,
    resource: SharedResource,
    dead_letters: DeadLetters,
    ledger: Ledger,
    health: Arc<Health>,
    metrics: Metrics,
    /// Whether it has ever confirmed anything.
    proven: bool,
    compressor: Compressor,
    /// Memory for the next payload.
    spare: Vec<u8>,
}

#[derive(Debug)]
enum Kind {
    Stdout(stdout::Stdout),
    File(file::FileSink),
    Ndjson(ndjson::Ndjson),
    Otlp(otlp::Otlp),
    Forward(forward::Forward),
}

impl Sink {
    /// Prepares a sink; nothing is sent before the first chunk.
    ///
    /// # Errors
    /// 70 or 74 where its client or its thread cannot be made.
    pub fn new(
        index: usize,
        url: &SinkUrl,
        settings: &Settings,
        records: Records,
        metrics: Metrics,
    ) -> Result<Self, Failure> {
        let Records { resource, dead_letters, ledger } = records;
        let name = url.name();
        let kind = match url {
            SinkUrl::Stdout(_) => Kind::Stdout(stdout::Stdout::start()?),
            SinkUrl::File(_, path) => Kind::File(file::FileSink::new(path)),
            SinkUrl::Ndjson(url) => Kind::Ndjson(ndjson::Ndjson::new(url.clone(), &settings.roots)?),
            SinkUrl::Otlp(url) => Kind::Otlp(otlp::Otlp::new(url.clone(), &settings.roots)?),
            SinkUrl::Forward(url) => Kind::Forward(forward::Forward::new(url.clone(), settings)?),
        };
        let compression = match kind {
            // What stays on this machine is written as it is.
            Kind::Stdout(_) | Kind::File(_) => Compression::None,
            Kind::Ndjson(_) | Kind::Otlp(_) | Kind::Forward(_) => settings.compression,
        };
        let encoding = match url {
            SinkUrl::Stdout(Form::Raw) | SinkUrl::File(Form::Raw, _) => Encoding::Raw,
            SinkUrl::Stdout(Form::Records) | SinkUrl::File(Form::Records, _) | SinkUrl::Ndjson(_) => {
                Encoding::Ndjson
            }
            SinkUrl::Otlp(_) => Encoding::Otlp,
            SinkUrl::Forward(_) => Encoding::Forward,
        };
        let compressor = Compressor::new(compression).or_exit(Exit::Internal)?;
        metrics.sink_up.get_or_create(&BySink { sink: name.clone() }).set(1);
        let (health, proven, spare) = (Arc::default(), false, Vec::new());
        Ok(Self {
            index,
            name,
            kind,
            encoding,
            resource,
            dead_letters,
            ledger,
            health,
            metrics,
            proven,
            compressor,
            spare,
        })
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
        // None, where every line of the ranges was left out on purpose.
        let mut todo = if all.is_empty() { Vec::new() } else { vec![all] };
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
        let payload = self.payload(chunk, numbers);
        let (mut backoff, mut attempts) = (Backoff::default(), 0);
        let outcome = loop {
            let refusal = match self.attempt(&payload).await {
                Ok(accepted) => break Ok(accepted),
                Err(refusal) => refusal,
            };
            attempts += 1;
            let (alone, proven) = (numbers.len() == 1, self.proven);
            let asked = match refusal.remedy {
                Remedy::Wait(asked) => asked,
                Remedy::OtherContent | Remedy::PerhapsOtherContent if !alone => break Err(refusal.reason),
                // A receiver that never took anything is more likely to be the wrong one than every record is to be bad.
                Remedy::OtherContent if proven => break Err(refusal.reason),
                Remedy::PerhapsOtherContent if proven && attempts >= PERHAPS => break Err(refusal.reason),
                Remedy::OtherContent | Remedy::PerhapsOtherContent => None,
            };
            let wait = backoff.next(asked);
            self.note_failure(&refusal, wait);
            tokio::time::sleep(wait).await;
        };
        if payload.body.is_unique() {
            self.spare = payload.body.into();
        }
        if let Accepted::AllBut(refused, reason) = outcome? {
            self.set_aside(chunk, numbers, refused, &reason).await;
        }
        Ok(())
    }

    fn payload(&mut self, chunk: &Chunk, numbers: &Range<usize>) -> Payload {
        let mut body = std::mem::take(&mut self.spare);
        body.clear();
        self.encoding.encode(chunk, numbers, &self.resource.now(), &mut body);
        let compression = self.compressor.compress(&mut body);
        Payload { key: chunk.key(numbers), body: body.into(), compression, records: numbers.len() }
    }

    /// A receiver that takes a request in part does not say which records it will not have, and must not be sent them again
    /// (OTLP, "Partial Success"). So all that may be among them are kept for a person to look at.
    async fn set_aside(&self, chunk: &Chunk, numbers: &Range<usize>, refused: u64, reason: &str) {
        let reason = format!("{refused} of these {} records were refused: {reason}", numbers.len());
        self.keep(chunk, numbers, &reason).await;
        self.ledger.refuse_some(self.index, refused, numbers.len(), &reason);
    }

    /// Gives up on one record, once it is safe in the dead-letter file.
    async fn bury(&self, chunk: &Chunk, number: usize, reason: &str) {
        self.keep(chunk, &(number..number + 1), reason).await;
        if let Some((origin, range)) = chunk.place(number) {
            self.ledger.lose(Reason::Refused, self.index, origin.path.as_ref().as_ref(), range);
        }
    }

    /// Writes records to the dead-letter file, and returns when they are on the disk.
    async fn keep(&self, chunk: &Chunk, numbers: &Range<usize>, reason: &str) {
        let mut records = Vec::new();
        Encoding::Ndjson.encode(chunk, numbers, &self.resource.now(), &mut records);
        let records = Bytes::from(records);
        let mut backoff = Backoff::default();
        loop {
            let (letters, sink) = (self.dead_letters.clone(), self.name.clone());
            let (why, copy) = (reason.to_owned(), records.clone());
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
    }

    async fn attempt(&mut self, payload: &Payload) -> Result<Accepted, Refusal> {
        let confirmed = match &mut self.kind {
            Kind::Stdout(stdout) => stdout.attempt(payload).await,
            Kind::File(file) => file.attempt(payload).await,
            Kind::Ndjson(ndjson) => ndjson.attempt(payload).await,
            Kind::Otlp(otlp) => return otlp.attempt(payload).await,
            Kind::Forward(forward) => forward.attempt(payload).await,
        };
        confirmed.map(|()| Accepted::All)
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
