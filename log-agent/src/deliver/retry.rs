//! A sink: one attempt after another until its receiver has confirmed, in order and without a gap.
//!
//! A receiver that will not have the content itself (400, 413, 422) is given it in halves, until the records that it will
//! not have stand alone. Those go to the dead-letter file and into the ledger, and everything else is delivered.
//!
//! A receiver that refuses everything is more likely to be broken than all of its records are to be bad. So where all of a chunk were
//! refused, it is waited for, for `--reject-wait`, before anything becomes a dead letter.
//!
//! A receiver that is slow gets less at once, until it keeps up; a single record gets more and more time.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lifecycle::blocking;
use lifecycle::exit::{Exit, Failure, OrExit as _};

use super::attempt::{Accepted, Payload, Retry};
use super::backoff::Backoff;
use super::compress::Compressor;
use super::credentials::CredentialFiles;
use super::dead_letter::DeadLetters;
use super::health::Health;
use super::spec::SinkSpec;
use super::transport::{Settings, Transport};
use crate::loss::{LossLedger, LossReason};
use crate::metrics::SinkMetrics;
use crate::position::SinkIndex;
use crate::record::chunk::{Chunk, ChunkMode};
use crate::record::encode::Encoding;
use crate::record::resource::SharedResource;

/// How often a record is tried that a receiver perhaps breaks at.
const SUSPECT_ATTEMPTS: u32 = 8;

/// A receiver that refuses so many records in a row, and accepts none, is suspected itself. It is also how many are tried again to see
/// whether it has recovered.
const SUSPECT_RECORDS: usize = 8;

/// A single record gets at most this much time without any progress.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(600);

/// What became of a chunk so far.
#[derive(Debug, Default)]
struct Tally {
    /// Whether the receiver has accepted any of it.
    accepted: bool,
    /// Records that it will never have.
    refused: u64,
    /// Bytes of those of them that are known one by one.
    refused_bytes: u64,
}

/// That a receiver is broken and not the data: since when.
#[derive(Debug)]
struct Suspicion {
    since: Instant,
    backoff: Backoff,
}

/// Why all records of a chunk were refused.
#[derive(Debug)]
enum Verdict {
    /// They are bad.
    Data,
    /// The receiver was broken, and has accepted these now.
    Receiver(Vec<usize>),
}

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

pub(crate) struct Sink {
    index: SinkIndex,
    name: String,
    transport: Transport,
    mode: ChunkMode,
    settings: Settings,
    records: Records,
    health: Arc<Health>,
    metrics: SinkMetrics,
    /// Whether it has ever confirmed anything.
    has_ever_confirmed: bool,
    /// Records that it has refused one by one since it accepted any.
    rejected_in_a_row: usize,
    /// Sent at once at most: less than a chunk has only where the receiver was too slow for one.
    most_records: usize,
    compressor: Compressor,
    /// Memory for the next payload.
    spare: Vec<u8>,
}

impl Sink {
    /// Prepares a sink; nothing is sent before the first chunk.
    ///
    /// # Errors
    /// 70 or 74 where its client cannot be made.
    pub(crate) fn new(
        index: SinkIndex,
        spec: &SinkSpec,
        files: &CredentialFiles,
        settings: &Settings,
        records: Records,
        metrics: SinkMetrics,
    ) -> Result<Self, Failure> {
        let name = spec.name();
        let transport = Transport::new(&name, &spec.url, files)?;
        let compression = transport.compression(settings.compression);
        metrics.up.set(1);
        Ok(Self {
            index,
            name,
            transport,
            mode: spec.url.mode(),
            settings: settings.clone(),
            records,
            health: Arc::default(),
            metrics,
            has_ever_confirmed: false,
            rejected_in_a_row: 0,
            most_records: usize::MAX,
            compressor: Compressor::new(compression).or_exit(Exit::Internal)?,
            spare: Vec::new(),
        })
    }

    /// As it is written in logs, metrics and the checkpoint: its URL without credentials.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What the records carry of the chunks to come.
    pub(crate) fn set_resource(&mut self, resource: SharedResource) {
        self.records.resource = resource;
    }

    pub(crate) fn purpose(&self) -> ChunkMode {
        self.mode
    }

    /// How many records it has refused for good.
    pub(crate) fn refused_records(&self) -> u64 {
        self.metrics.refused_records.get()
    }

    /// How it is doing, for others to look at.
    pub(crate) fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Delivers a chunk: returns when the sink has confirmed all of it but for what it will never have, however long that
    /// takes.
    pub(crate) async fn deliver(&mut self, chunk: &mut Chunk) {
        let (bytes, records) = (chunk.bytes() as u64, chunk.records());
        self.metrics.read_bytes.inc_by(bytes);
        self.metrics.read_records.inc_by(records);
        self.metrics.in_flight_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let all = 0..chunk.len();
        // None, where every line of the ranges was left out on purpose.
        let mut todo = if all.is_empty() { Vec::new() } else { vec![all] };
        let (mut tally, mut suspicion) = (Tally::default(), None);
        loop {
            let rejected = self.pass(chunk, todo, &mut tally).await;
            if rejected.is_empty() {
                break;
            }
            // All were refused, one by one. That may be the receiver's fault.
            let suspicion = suspicion
                .get_or_insert_with(|| Suspicion { since: Instant::now(), backoff: Backoff::default() });
            match self.wait_for_acceptance(chunk, &rejected, suspicion, &mut tally).await {
                Verdict::Data => {
                    self.rejected_in_a_row += rejected.len();
                    for (number, reason) in &rejected {
                        self.give_up(chunk, *number, reason, &mut tally).await;
                    }
                    break;
                }
                Verdict::Receiver(accepted) => {
                    let left = rejected
                        .iter()
                        .map(|(number, _)| *number)
                        .filter(|number| !accepted.contains(number));
                    todo = ranges(left);
                    todo.reverse();
                }
            }
        }
        self.metrics.in_flight_bytes.set(0);
        self.metrics.refused_records.inc_by(tally.refused);
        // Also where all of it was given up: the sink goes on.
        self.note_recovery();
        self.metrics.confirmed_records.inc_by(records - tally.refused);
        self.metrics.confirmed_bytes.inc_by(bytes - tally.refused_bytes);
        self.health.count_chunk();
    }

    /// Delivers ranges of a chunk, the last one first, in halves where they are refused or too large for the receiver. Records that are
    /// refused alone are given up as soon as any other of them was accepted. Where none was, all are given back, with the reasons.
    async fn pass(
        &mut self,
        chunk: &mut Chunk,
        mut todo: Vec<Range<usize>>,
        tally: &mut Tally,
    ) -> Vec<(usize, String)> {
        let mut held: Vec<(usize, String)> = Vec::new();
        while let Some(numbers) = todo.pop() {
            if numbers.len() > self.most_records && chunk.purpose() == ChunkMode::Records {
                let at = numbers.start + self.most_records;
                todo.extend([at..numbers.end, numbers.start..at]);
                continue;
            }
            // The first refusal counts after several attempts, where nothing tells that the receiver is in its right mind.
            let attempts = if held.is_empty() || tally.accepted { SUSPECT_ATTEMPTS } else { 1 };
            match self.deliver_lines(chunk, &numbers, attempts).await {
                Ok(partly) => {
                    self.note_acceptance(partly, tally);
                    // The receiver was in order when it refused those before, or it has recovered in between: they are told apart by
                    // asking again.
                    todo.extend(held.drain(..).rev().map(|(number, _)| number..number + 1));
                }
                Err(_) if numbers.len() > 1 => {
                    let middle = numbers.start + numbers.len() / 2;
                    // A stack: the first half is the next, so that the order stays.
                    todo.extend([middle..numbers.end, numbers.start..middle]);
                }
                Err(reason) if tally.accepted => self.give_up(chunk, numbers.start, &reason, tally).await,
                Err(reason) => held.push((numbers.start, reason)),
            }
        }
        held
    }

    /// Waits for a receiver that has refused all records of a chunk, each for itself, and accepted none. Once in a while it is asked
    /// again: with all of them, and with some of them alone.
    async fn wait_for_acceptance(
        &mut self,
        chunk: &mut Chunk,
        rejected: &[(usize, String)],
        suspicion: &mut Suspicion,
        tally: &mut Tally,
    ) -> Verdict {
        // Of a few records, each may be bad; of a receiver that never took anything, that is not believed.
        let few = self.rejected_in_a_row + rejected.len() < SUSPECT_RECORDS;
        if few && self.has_ever_confirmed {
            return Verdict::Data;
        }
        let (count, why) = (rejected.len(), rejected.first().map_or("", |(_, reason)| reason));
        let reason = format!("it refuses each of {count} records, one by one, and accepts none: {why}");
        loop {
            let left = self.settings.reject_wait.saturating_sub(suspicion.since.elapsed());
            if left.is_zero() && self.has_ever_confirmed {
                return Verdict::Data;
            }
            let wait = suspicion.backoff.next(None);
            let wait = if self.has_ever_confirmed { wait.min(left) } else { wait };
            self.note_failure(&reason, wait);
            tokio::time::sleep(wait).await;
            let numbers = |at: usize| rejected.get(at).map_or(0..0, |(number, _)| *number..number + 1);
            let contiguous = rejected.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1);
            let all = numbers(0).start..numbers(count - 1).end;
            if contiguous && all.len() <= self.most_records && self.accepts(chunk, &all, tally).await {
                return Verdict::Receiver(all.collect());
            }
            for sample in 0..SUSPECT_RECORDS.min(count) {
                let one = numbers(sample * count / SUSPECT_RECORDS.min(count));
                if self.accepts(chunk, &one, tally).await {
                    return Verdict::Receiver(one.collect());
                }
            }
        }
    }

    async fn accepts(&mut self, chunk: &mut Chunk, numbers: &Range<usize>, tally: &mut Tally) -> bool {
        let accepted = self.deliver_lines(chunk, numbers, 1).await;
        if let Ok(partly) = accepted {
            self.note_acceptance(partly, tally);
        }
        accepted.is_ok()
    }

    /// The receiver has accepted records of a chunk, but for so many of them.
    fn note_acceptance(&mut self, partly_refused: u64, tally: &mut Tally) {
        tally.refused += partly_refused;
        tally.accepted = true;
        self.has_ever_confirmed = true;
        self.rejected_in_a_row = 0;
        self.note_recovery();
    }

    fn note_recovery(&self) {
        if let Some((attempts, outage)) = self.health.recover() {
            self.metrics.up.set(1);
            tracing::info!(sink = self.name, attempts, ?outage, "sink confirms again");
        }
    }

    /// Gives up on one record, once it is safe in the dead-letter file.
    async fn give_up(&self, chunk: &Chunk, number: usize, reason: &str, tally: &mut Tally) {
        self.write_dead_letter(chunk, &(number..number + 1), reason).await;
        tally.refused += 1;
        if let Some((origin, line)) = chunk.line(number) {
            let (path, place) = (Path::new(&*origin.path), line.place.clone());
            self.records.ledger.record_lost(LossReason::Refused, self.index, path, place);
            tally.refused_bytes += line.bytes();
        }
    }

    /// Delivers some lines, again and again; says how many of them were refused in the end. Of a single record, a refusal counts after
    /// so many attempts, where one may have another reason.
    ///
    /// # Errors
    /// Why the receiver will not have these lines, or not all of them at once.
    async fn deliver_lines(
        &mut self,
        chunk: &mut Chunk,
        numbers: &Range<usize>,
        attempts_of_one: u32,
    ) -> Result<u64, String> {
        let mut payload = self.payload(chunk, numbers);
        let (mut backoff, mut attempts) = (Backoff::default(), 0);
        let outcome = loop {
            let began = Instant::now();
            let attempt = self.transport.attempt(&payload).await;
            self.metrics.attempt_time.observe(began.elapsed().as_secs_f64());
            let error = match attempt {
                Ok(accepted) => {
                    self.note_speed(numbers.len(), began.elapsed());
                    break Ok(accepted);
                }
                Err(error) => error,
            };
            attempts += 1;
            let alone = numbers.len() == 1;
            let asked = match error.retry {
                Retry::After(asked) => asked,
                Retry::Slower if !alone => {
                    self.most_records = numbers.len() / 2;
                    self.note_failure(&error.reason, Duration::ZERO);
                    break Err(error.reason);
                }
                Retry::Slower => {
                    payload.timeout = (payload.timeout * 2).min(self.settings.timeout.max(LONGEST_TIMEOUT));
                    None
                }
                Retry::Reject | Retry::MaybeReject if !alone => break Err(error.reason),
                Retry::Reject if self.has_ever_confirmed => break Err(error.reason),
                Retry::Reject | Retry::MaybeReject if attempts >= attempts_of_one => break Err(error.reason),
                Retry::Reject | Retry::MaybeReject => None,
            };
            let wait = backoff.next(asked);
            self.note_failure(&error.reason, wait);
            tokio::time::sleep(wait).await;
        };
        // Memory that is still shared is let go.
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

    /// A receiver that was too slow for what it was sent at once is sent more again once it takes much less time than it has.
    fn note_speed(&mut self, records: usize, took: Duration) {
        if records >= self.most_records && took < self.settings.timeout / 8 {
            self.most_records = self.most_records.saturating_mul(2);
        }
    }

    fn payload(&mut self, chunk: &mut Chunk, numbers: &Range<usize>) -> Payload {
        let mut body = match chunk.purpose() {
            // Nothing is refused by what stays on this machine, so that it is always all of them.
            ChunkMode::Raw => chunk.lend_text(),
            ChunkMode::Records => {
                let mut body = std::mem::take(&mut self.spare);
                body.clear();
                self.transport.encoding().encode(chunk, numbers, &self.records.resource.now(), &mut body);
                body
            }
        };
        let compression = self.compressor.compress(&mut body);
        Payload {
            key: chunk.key(numbers),
            body: body.into(),
            compression,
            records: numbers.len(),
            timeout: self.settings.timeout,
        }
    }

    /// A receiver that takes a request in part does not say which records it will not have, and must not be sent them again
    /// (OTLP, "Partial Success"). So all that may be among them are kept for a person to look at.
    async fn dead_letter_batch(&self, chunk: &Chunk, numbers: &Range<usize>, refused: u64, reason: &str) {
        let reason = format!("{refused} of these {} records were refused: {reason}", numbers.len());
        self.write_dead_letter(chunk, numbers, &reason).await;
        self.records.ledger.record_partial_rejection(self.index, refused, numbers.len(), &reason);
    }

    /// Writes records to the dead-letter file, and returns when they are on the disk.
    async fn write_dead_letter(&self, chunk: &Chunk, numbers: &Range<usize>, reason: &str) {
        let mut records = Vec::new();
        Encoding::Ndjson.encode(chunk, numbers, &self.records.resource.now(), &mut records);
        let records = Bytes::from(records);
        let mut backoff = Backoff::default();
        loop {
            let (letters, sink) = (self.records.dead_letters.clone(), self.name.clone());
            let (why, copy) = (reason.to_owned(), records.clone());
            let Err(failure) = blocking(move || letters.keep(&sink, &why, &copy)).await else {
                self.metrics.dead_lettered.inc_by(numbers.len() as u64);
                break;
            };
            let wait = backoff.next(None);
            self.note_failure(&format!("cannot write the dead-letter file: {failure}"), wait);
            tokio::time::sleep(wait).await;
        }
    }

    fn note_failure(&self, reason: &str, wait: Duration) {
        self.metrics.retries.inc();
        self.metrics.up.set(0);
        let (attempts, say) = self.health.fail(reason);
        if say {
            tracing::warn!(
                sink = self.name,
                attempts,
                retry_in = ?wait,
                reason,
                "sink does not confirm: its lines wait in their files"
            );
        }
    }
}

/// Rising numbers as ranges.
fn ranges(numbers: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(last) if last.end == number => last.end += 1,
            _ => ranges.push(number..number + 1),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_follow_one_another_are_a_range() {
        assert_eq!(ranges([1, 2, 3, 5, 7, 8].into_iter()), [1..4, 5..6, 7..9]);
        assert_eq!(ranges(std::iter::empty()), []);
    }
}
