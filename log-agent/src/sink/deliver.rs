//! Delivery: again and again until it is confirmed.
//!
//! A receiver that will not have the content itself (400, 413, 422) is given it in halves, until the records that it will
//! not have stand alone. Those go to the dead-letter file and into the ledger, and everything else is delivered.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Accepted, Kind, Payload, Refusal, Remedy, Sink};
use crate::backoff::Backoff;
use crate::chunk::{Chunk, Purpose};
use crate::ledger::Reason;
use crate::metrics::BySink;
use crate::record::Encoding;

/// How often a record is tried that a receiver perhaps breaks at.
const PERHAPS: u32 = 8;

impl Sink {
    /// Delivers a chunk: returns when the sink has confirmed all of it but for what it will never have, however long that
    /// takes.
    pub async fn deliver(&mut self, chunk: &mut Chunk) {
        let label = BySink { sink: self.name.clone() };
        let (mut bytes, records, mut refused) = (chunk.bytes() as u64, chunk.records(), 0);
        self.metrics.read_bytes.get_or_create(&label).inc_by(bytes);
        self.metrics.read_records.get_or_create(&label).inc_by(records);
        self.metrics.in_flight_bytes.get_or_create(&label).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let all = 0..chunk.len();
        // None, where every line of the ranges was left out on purpose.
        let mut todo = if all.is_empty() { Vec::new() } else { vec![all] };
        while let Some(numbers) = todo.pop() {
            let reason = match self.deliver_lines(chunk, &numbers).await {
                Ok(some) => {
                    self.proven = true;
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
                bytes -= self.bury(chunk, numbers.start, &reason).await;
                refused += 1;
            }
        }
        self.metrics.in_flight_bytes.get_or_create(&label).set(0);
        self.metrics.refused_records.get_or_create(&label).inc_by(refused);
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
            let attempt = self.attempt(&payload).await;
            let label = BySink { sink: self.name.clone() };
            self.metrics.attempt_time.get_or_create(&label).observe(began.elapsed().as_secs_f64());
            let refusal = match attempt {
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
        // Memory that somebody still holds is let go.
        let memory = if payload.body.is_unique() { payload.body.into() } else { Vec::new() };
        match chunk.purpose() {
            Purpose::Copies => chunk.return_text(memory),
            Purpose::Records => self.spare = memory,
        }
        match outcome? {
            Accepted::All => Ok(0),
            Accepted::AllBut(refused, reason) => {
                self.set_aside(chunk, numbers, refused, &reason).await;
                Ok(refused)
            }
        }
    }

    fn payload(&mut self, chunk: &mut Chunk, numbers: &Range<usize>) -> Payload {
        let mut body = match chunk.purpose() {
            // Nothing is refused by what stays on this machine, so that it is always all of them.
            Purpose::Copies => chunk.lend_text(),
            Purpose::Records => {
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
    async fn set_aside(&self, chunk: &Chunk, numbers: &Range<usize>, refused: u64, reason: &str) {
        let reason = format!("{refused} of these {} records were refused: {reason}", numbers.len());
        self.keep(chunk, numbers, &reason).await;
        self.ledger.refuse_some(self.index, refused, numbers.len(), &reason);
    }

    /// Gives up on one record, once it is safe in the dead-letter file; returns its bytes.
    async fn bury(&self, chunk: &Chunk, number: usize, reason: &str) -> u64 {
        self.keep(chunk, &(number..number + 1), reason).await;
        let Some((origin, line)) = chunk.line(number) else { return 0 };
        self.ledger.lose(Reason::Refused, self.index, origin.path.as_ref().as_ref(), line.place.clone());
        line.bytes()
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
                Ok(Ok(())) => {
                    let label = BySink { sink: self.name.clone() };
                    self.metrics.dead_lettered.get_or_create(&label).inc_by(numbers.len() as u64);
                    break;
                }
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

    fn note_success(&self, bytes: u64, records: u64) {
        let label = BySink { sink: self.name.clone() };
        self.metrics.confirmed_records.get_or_create(&label).inc_by(records);
        self.metrics.confirmed_bytes.get_or_create(&label).inc_by(bytes);
        if let Some((attempts, outage)) = self.health.succeed() {
            self.metrics.sink_up.get_or_create(&label).set(1);
            tracing::info!(sink = self.name, attempts, ?outage, "sink confirms again");
        }
    }
}
