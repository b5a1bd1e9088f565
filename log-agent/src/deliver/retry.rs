//! A sink: one attempt after another until its receiver has confirmed, in order and without a gap.
//!
//! A receiver that will not have the content itself (400, 413, 422) is given it in halves, until the records that it will
//! not have stand alone. Those go to the dead-letter file and into the ledger, and everything else is delivered.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lifecycle::blocking;
use lifecycle::exit::{Exit, Failure, OrExit as _};

use super::attempt::{Accepted, DeliveryError, Payload, Retry};
use super::backoff::Backoff;
use super::compress::Compressor;
use super::dead_letter::DeadLetters;
use super::health::Health;
use super::transport::{self, Settings, Transport};
use super::url::SinkUrl;
use crate::loss::{LossLedger, LossReason};
use crate::metrics::SinkMetrics;
use crate::record::chunk::{Chunk, ChunkMode};
use crate::record::encode::Encoding;
use crate::record::resource::SharedResource;

/// How often a record is tried that a receiver perhaps breaks at.
const SUSPECT_ATTEMPTS: u32 = 8;

/// What every sink has to do with, besides its receiver.
#[derive(Debug)]
pub(crate) struct Records {
    /// What they carry.
    pub(crate) resource: SharedResource,
    /// Where those go that a receiver will not have.
    pub(crate) dead_letters: DeadLetters,
    /// And where that is said.
    pub(crate) ledger: LossLedger,
}

/// A sink, ready to deliver.
#[derive(Debug)]
pub(crate) struct Sink {
    index: usize,
    name: String,
    transport: Transport,
    encoding: Encoding,
    resource: SharedResource,
    dead_letters: DeadLetters,
    ledger: LossLedger,
    health: Arc<Health>,
    metrics: SinkMetrics,
    /// Whether it has ever confirmed anything.
    has_ever_confirmed: bool,
    compressor: Compressor,
    /// Memory for the next payload.
    spare: Vec<u8>,
}

impl Sink {
    /// Prepares a sink; nothing is sent before the first chunk.
    ///
    /// # Errors
    /// 70 or 74 where its client or its thread cannot be made.
    pub(crate) fn new(
        index: usize,
        url: &SinkUrl,
        settings: &Settings,
        records: Records,
        metrics: SinkMetrics,
    ) -> Result<Self, Failure> {
        let Records { resource, dead_letters, ledger } = records;
        let name = url.name();
        let transport = Transport::new(url, settings)?;
        let compression = transport.compression(settings.compression);
        let encoding = transport::encoding(url);
        let compressor = Compressor::new(compression).or_exit(Exit::Internal)?;
        metrics.up.set(1);
        let (health, has_ever_confirmed, spare) = (Arc::default(), false, Vec::new());
        Ok(Self {
            index,
            name,
            transport,
            encoding,
            resource,
            dead_letters,
            ledger,
            health,
            metrics,
            has_ever_confirmed,
            compressor,
            spare,
        })
    }

    /// As it is written in logs, metrics and the checkpoint: its URL without credentials.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What its chunks are for.
    pub(crate) fn purpose(&self) -> ChunkMode {
        match self.encoding {
            Encoding::Raw => ChunkMode::Raw,
            Encoding::Ndjson | Encoding::Otlp | Encoding::Forward => ChunkMode::Records,
        }
    }

    /// How it is doing, for others to look at.
    pub(crate) fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Delivers a chunk: returns when the sink has confirmed all of it but for what it will never have, however long that
    /// takes.
    pub(crate) async fn deliver(&mut self, chunk: &mut Chunk) {
        let (mut bytes, records, mut refused) = (chunk.bytes() as u64, chunk.records(), 0);
        self.metrics.read_bytes.inc_by(bytes);
        self.metrics.read_records.inc_by(records);
        self.metrics.in_flight_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let all = 0..chunk.len();
        // None, where every line of the ranges was left out on purpose.
        let mut todo = if all.is_empty() { Vec::new() } else { vec![all] };
        while let Some(numbers) = todo.pop() {
            let reason = match self.deliver_lines(chunk, &numbers).await {
                Ok(some) => {
                    self.has_ever_confirmed = true;
                    refused += some;
                    continue;
                }
                Err(reason) => reason,
            };
            if numbers.len() > 1 {
                let middle = numbers.start + numbers.len() / 2;
                // A stack: the first half is the next, so that the order stays.
                todo.extend([middle..numbers.end, numbers.start..middle]);
            } else {
                bytes -= self.dead_letter_one(chunk, numbers.start, &reason).await;
                refused += 1;
            }
        }
        self.metrics.in_flight_bytes.set(0);
        self.metrics.refused_records.inc_by(refused);
        self.note_success(bytes, records - refused);
    }

    /// Delivers some lines, again and again; says how many of them were refused in the end.
    ///
    /// # Errors
    /// Why the receiver will not have this content.
    async fn deliver_lines(&mut self, chunk: &mut Chunk, numbers: &Range<usize>) -> Result<u64, String> {
        let payload = self.payload(chunk, numbers);
        let (mut backoff, mut attempts) = (Backoff::default(), 0);
        let outcome = loop {
            let began = Instant::now();
            let attempt = self.transport.attempt(&payload).await;
            self.metrics.attempt_time.observe(began.elapsed().as_secs_f64());
            let error = match attempt {
                Ok(accepted) => break Ok(accepted),
                Err(error) => error,
            };
            attempts += 1;
            let (alone, has_ever_confirmed) = (numbers.len() == 1, self.has_ever_confirmed);
            let asked = match error.retry {
                Retry::After(asked) => asked,
                Retry::Reject | Retry::MaybeReject if !alone => break Err(error.reason),
                // A receiver that never took anything is more likely to be the wrong one than every record is to be bad.
                Retry::Reject if has_ever_confirmed => break Err(error.reason),
                Retry::MaybeReject if has_ever_confirmed && attempts >= SUSPECT_ATTEMPTS => {
                    break Err(error.reason);
                }
                Retry::Reject | Retry::MaybeReject => None,
            };
            let wait = backoff.next(asked);
            self.note_failure(&error, wait);
            tokio::time::sleep(wait).await;
        };
        // Memory that somebody still holds is let go.
        let memory = if payload.body.is_unique() { payload.body.into() } else { Vec::new() };
        match chunk.purpose() {
            ChunkMode::Raw => chunk.return_text(memory),
            ChunkMode::Records => self.spare = memory,
        }
        match outcome? {
            Accepted::All => Ok(0),
            Accepted::AllBut(refused, reason) => {
                self.dead_letter_batch(chunk, numbers, refused, &reason).await;
                Ok(refused)
            }
        }
    }

    fn payload(&mut self, chunk: &mut Chunk, numbers: &Range<usize>) -> Payload {
        let mut body = match chunk.purpose() {
            // Nothing is refused by what stays on this machine, so that it is always all of them.
            ChunkMode::Raw => chunk.lend_text(),
            ChunkMode::Records => {
                let mut body = std::mem::take(&mut self.spare);
                body.clear();
                self.encoding.encode(chunk, numbers, &self.resource.now(), &mut body);
                body
            }
        };
        let compression = self.compressor.compress(&mut body);
        Payload { key: chunk.key(numbers), body: body.into(), compression, records: numbers.len() }
    }

    /// A receiver that takes a request in part does not say which records it will not have, and must not be sent them again
    /// (OTLP, "Partial Success"). So all that may be among them are kept for a person to look at.
    async fn dead_letter_batch(&self, chunk: &Chunk, numbers: &Range<usize>, refused: u64, reason: &str) {
        let reason = format!("{refused} of these {} records were refused: {reason}", numbers.len());
        self.write_dead_letter(chunk, numbers, &reason).await;
        self.ledger.record_partial_rejection(self.index, refused, numbers.len(), &reason);
    }

    /// Gives up on one record, once it is safe in the dead-letter file; returns its bytes.
    async fn dead_letter_one(&self, chunk: &Chunk, number: usize, reason: &str) -> u64 {
        self.write_dead_letter(chunk, &(number..number + 1), reason).await;
        let Some((origin, line)) = chunk.line(number) else { return 0 };
        self.ledger.record_lost(
            LossReason::Refused,
            self.index,
            origin.path.as_ref().as_ref(),
            line.place.clone(),
        );
        line.bytes()
    }

    /// Writes records to the dead-letter file, and returns when they are on the disk.
    async fn write_dead_letter(&self, chunk: &Chunk, numbers: &Range<usize>, reason: &str) {
        let mut records = Vec::new();
        Encoding::Ndjson.encode(chunk, numbers, &self.resource.now(), &mut records);
        let records = Bytes::from(records);
        let mut backoff = Backoff::default();
        loop {
            let (letters, sink) = (self.dead_letters.clone(), self.name.clone());
            let (why, copy) = (reason.to_owned(), records.clone());
            let Err(failure) = blocking(move || letters.keep(&sink, &why, &copy)).await else {
                self.metrics.dead_lettered.inc_by(numbers.len() as u64);
                break;
            };
            let error = DeliveryError::retry(format!("cannot write the dead-letter file: {failure}"));
            let wait = backoff.next(None);
            self.note_failure(&error, wait);
            tokio::time::sleep(wait).await;
        }
    }

    fn note_failure(&self, error: &DeliveryError, wait: Duration) {
        self.metrics.retries.inc();
        self.metrics.up.set(0);
        let (attempts, say) = self.health.fail(&error.reason);
        if say {
            tracing::warn!(
                sink = self.name,
                attempts,
                retry_in = ?wait,
                reason = error.reason,
                "sink does not confirm: its lines wait in their files"
            );
        }
    }

    fn note_success(&self, bytes: u64, records: u64) {
        self.metrics.confirmed_records.inc_by(records);
        self.metrics.confirmed_bytes.inc_by(bytes);
        if let Some((attempts, outage)) = self.health.succeed() {
            self.metrics.up.set(1);
            tracing::info!(sink = self.name, attempts, ?outage, "sink confirms again");
        }
    }
}
