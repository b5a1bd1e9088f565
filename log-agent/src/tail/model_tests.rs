//! The real catalog and the real reader against a model: files that are written, rotated, copied, truncated and removed, names
//! that cannot be looked at, and an agent that reads, sends, confirms, checkpoints, crashes and comes back, in any order that
//! `proptest` can think of.
//!
//! What is held: every line arrives at every sink, or its loss is entered, unless it went before the agent could know of it; an id
//! never names two records, and no record has two ids; within a content no record overtakes another; and where the agent was never
//! killed, no more is entered than what is missing.
//!
//! `MODEL_CASES` and `MODEL_SEED` make it longer, and repeat it:
//!
//!     MODEL_CASES=100000 cargo test --release --package log-agent model

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use tempfile::TempDir;

use super::catalog::{Catalog, CatalogOptions, Filled, Past};
use super::read::{Multiline, ReadOptions, UnterminatedLine};
use super::start::StartAt;
use crate::checkpoint::{FileEntry, Sent, note_sent};
use crate::identity::{Instance, WINDOW, random};
use crate::loss::{Entered, LossLedger};
use crate::metrics::Metrics;
use crate::position::SinkIndex;
use crate::record::chunk::{Chunk, ChunkMode};
use crate::record::filter::Filter;
use crate::record::parse::{FieldNames, Format};
use crate::watch::{Discovery, Glob, OwnFiles, Symlinks, Watch};

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Whole lines.
    Write(u8),
    /// Half a line, or the other half of it.
    WriteHalf,
    Rotate,
    /// Rotate by copying and truncating.
    CopyTruncate,
    Truncate,
    /// Another content over the one that is there, at once.
    Overwrite(u8),
    /// The oldest file that is not written to any more.
    Remove,
    Scan,
    /// The directory cannot be read for once.
    FailingScan,
    /// Read up to a few chunks for one of the sinks; each is confirmed.
    Ship(usize, u8),
    /// Read a chunk for one of the sinks, checkpoint, and crash before it is sent.
    ReadOnly(usize),
    /// A chunk arrives, its confirmation does not, and the agent is killed.
    LostAnswer(usize),
    Checkpoint,
    Crash,
}

/// Longer than the window by which a beginning is known.
const LONG_HEAD: usize = WINDOW + 476;

/// They stand at different places in every file.
pub(super) const SINKS: [&str; 2] = ["one", "other"];

fn steps() -> impl Strategy<Value = (usize, Vec<Step>)> {
    let step = prop_oneof![
        6 => (1..6_u8).prop_map(Step::Write),
        2 => Just(Step::WriteHalf),
        2 => Just(Step::Rotate),
        2 => Just(Step::CopyTruncate),
        1 => Just(Step::Truncate),
        1 => (1..6_u8).prop_map(Step::Overwrite),
        1 => Just(Step::Remove),
        3 => Just(Step::Scan),
        1 => Just(Step::FailingScan),
        8 => (0..SINKS.len(), 1..5_u8).prop_map(|(sink, chunks)| Step::Ship(sink, chunks)),
        1 => (0..SINKS.len()).prop_map(Step::ReadOnly),
        1 => (0..SINKS.len()).prop_map(Step::LostAnswer),
        2 => Just(Step::Checkpoint),
        2 => Just(Step::Crash),
    ];
    // How long the constant head is that every content begins with. The longest is longer than a window.
    (prop_oneof![Just(0_usize), Just(16), Just(300), Just(LONG_HEAD)], prop::collection::vec(step, 1..60))
}

struct World {
    dir: TempDir,
    /// The head of every content.
    head: String,
    next: usize,
    /// The first half of a line is there.
    half: Option<usize>,
    /// Bytes of lines that were never finished.
    fragments: u64,
    /// Lines that the agent knows of, as far as it lives; and those that a checkpoint knows of.
    known: BTreeSet<usize>,
    checkpoint_knows: BTreeSet<usize>,
    /// Lines that are in no file any more.
    vanished: BTreeSet<usize>,
    /// What may be missing in the end without an entry: it went before the agent, or its checkpoint, knew of it.
    excused: BTreeSet<usize>,
    /// By id: a record that comes twice is the same record, to whichever sink.
    records: BTreeMap<String, String>,
    ids: BTreeMap<String, String>,
    /// By sink and content: the furthest offset that has arrived.
    furthest: BTreeMap<(usize, String), u64>,
    /// What each sink has.
    delivered: [BTreeSet<String>; SINKS.len()],
    checkpoint: Option<Vec<FileEntry>>,
    /// What was sent since.
    sent: Vec<Sent>,
    crashes: usize,
    entered: Vec<Entered>,
    agent: Agent,
}

pub(super) struct Agent {
    pub(super) catalog: Catalog,
    pub(super) discovery: Discovery,
    pub(super) options: ReadOptions,
    pub(super) ledger: LossLedger,
}

impl Agent {
    pub(super) fn start(dir: &Path, checkpoint: Option<Vec<FileEntry>>) -> Self {
        let sinks = SINKS.map(str::to_owned).to_vec();
        let ledger =
            LossLedger::new(&sinks, Metrics::new(&mut prometheus_client::registry::Registry::default()));
        let options = CatalogOptions {
            rotate_wait: Duration::ZERO,
            joins_lines: false,
            start_at: StartAt::Beginning,
            ignore_older: None,
            max_held_bytes: None,
            max_open: 1000,
        };
        let is_first_start = checkpoint.is_none();
        let past = Past { entries: checkpoint.unwrap_or_default(), is_first_start, run: random() };
        let catalog = Catalog::new(sinks, past, options, ledger.clone());
        let include = vec![Glob::new(&format!("{}/a.log*", dir.display())).unwrap()];
        let discovery = Discovery::start(
            include,
            Vec::new(),
            OwnFiles::default(),
            Symlinks::Beneath,
            Watch::Poll,
            Box::new(|| ()),
        );
        let options = ReadOptions {
            format: Format::Raw,
            names: FieldNames::default(),
            multiline: Multiline::Off,
            filter: Filter::default(),
            max_line: 4000,
            instance: Instance(1),
        };
        Self { catalog, discovery, options, ledger }
    }
}

fn line(number: usize) -> String {
    format!("line {number} of it")
}

impl World {
    fn new(head: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            agent: Agent::start(dir.path(), None),
            dir,
            head: if head == 0 { String::new() } else { format!("{}\n", "#".repeat(head)) },
            next: 0,
            half: None,
            fragments: 0,
            known: BTreeSet::new(),
            checkpoint_knows: BTreeSet::new(),
            vanished: BTreeSet::new(),
            excused: BTreeSet::new(),
            records: BTreeMap::new(),
            ids: BTreeMap::new(),
            furthest: BTreeMap::new(),
            delivered: Default::default(),
            checkpoint: None,
            sent: Vec::new(),
            crashes: 0,
            entered: Vec::new(),
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("a.log")
    }

    /// Newest first.
    fn names(dir: &Path) -> Vec<PathBuf> {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort_by_key(|path| Self::rotations(path));
        names
    }

    fn rotations(path: &Path) -> usize {
        path.extension().and_then(|end| end.to_str()?.parse().ok()).unwrap_or_default()
    }

    /// The whole lines that are in any file.
    fn present(&self) -> BTreeSet<usize> {
        let texts = Self::names(self.dir.path()).into_iter().map(|path| fs::read_to_string(path).unwrap());
        texts.flat_map(|text| numbers(&text)).collect()
    }

    fn scan(&mut self) {
        let Agent { catalog, discovery, .. } = &mut self.agent;
        catalog.update(|| discovery.scan());
        self.known.extend(self.present());
    }

    fn failing_scan(&mut self) {
        let Agent { catalog, discovery, .. } = &mut self.agent;
        let directory = self.dir.path().to_owned();
        catalog.update(|| {
            let mut names = discovery.scan();
            names.files.clear();
            names.failures.push((directory.clone(), io::Error::from(io::ErrorKind::PermissionDenied)));
            names
        });
        assert!(self.agent.catalog.scan_failure().is_some());
    }

    /// Reads one chunk for a sink.
    fn read(&mut self, sink: usize) -> Chunk {
        let mut chunk = Chunk::new(40, ChunkMode::Records);
        let index = SinkIndex(u16::try_from(sink).unwrap());
        for _ in 0..100 {
            let Agent { catalog, options, .. } = &mut self.agent;
            let hold = Some(UnterminatedLine::Hold);
            match catalog.fill(index, hold, options, &mut chunk, &mut Vec::new()) {
                Filled::AsFarAsItGoes => return chunk,
                Filled::ForNow => {}
                Filled::NeedsScan => self.scan(),
            }
        }
        panic!("names never settle");
    }

    /// What is sent arrives.
    fn send(&mut self, sink: usize, chunk: &Chunk) {
        if !self.agent.catalog.is_durable(chunk) {
            self.make_checkpoint();
            assert!(self.agent.catalog.is_durable(chunk), "a checkpoint knows what it was made of");
        }
        self.sent.extend(self.agent.catalog.uncovered(chunk));
        for part in chunk.parts() {
            for (place, text) in chunk.lines(part, &(0..chunk.len())) {
                let id = format!("{}:{}", part.origin.id, place.place.start);
                let text = String::from_utf8(text.to_vec()).unwrap();
                let known = self.records.entry(id.clone()).or_insert_with(|| text.clone());
                assert_eq!(*known, text, "the same id {id}, another record");
                if !text.starts_with('#') {
                    let known = self.ids.entry(text.clone()).or_insert_with(|| id.clone());
                    assert_eq!(*known, id, "the same record {text:?}, another id");
                }
                let furthest = self.furthest.entry((sink, part.origin.id.to_string())).or_default();
                let new = self.delivered[sink].insert(text.clone());
                assert!(!new || place.place.start >= *furthest, "{text:?} comes behind what follows it");
                *furthest = place.place.start.max(*furthest);
            }
        }
    }

    fn confirm(&mut self, sink: usize, chunk: &Chunk) {
        for part in chunk.parts() {
            self.agent.catalog.confirm(SinkIndex(u16::try_from(sink).unwrap()), &part.segment);
        }
    }

    /// Reads, sends and confirms one chunk; true where there was one.
    fn ship(&mut self, sink: usize) -> bool {
        let chunk = self.read(sink);
        self.send(sink, &chunk);
        self.confirm(sink, &chunk);
        !chunk.is_empty()
    }

    fn make_checkpoint(&mut self) {
        let (entries, snapshot) = self.agent.catalog.entries();
        // Through the format, as a restart has it.
        let text = serde_json::to_string(&entries).unwrap();
        self.checkpoint = Some(serde_json::from_str(&text).unwrap());
        self.agent.catalog.note_durable(&snapshot);
        self.sent.clear();
        self.checkpoint_knows.clone_from(&self.known);
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.entered.append(&mut self.agent.ledger.entered.lock());
        let mut checkpoint = self.checkpoint.clone();
        note_sent(checkpoint.as_deref_mut().unwrap_or_default(), self.sent.clone());
        self.agent = Agent::start(self.dir.path(), checkpoint);
        self.known.clone_from(&self.checkpoint_knows);
        self.excused.extend(self.vanished.difference(&self.known).copied());
    }

    /// Notes what is in no file any more, after `change`.
    fn change(&mut self, change: impl FnOnce(&Path)) {
        let before = self.present();
        change(&self.log());
        let gone: Vec<usize> = before.difference(&self.present()).copied().collect();
        self.excused.extend(gone.iter().filter(|number| !self.known.contains(number)));
        self.vanished.extend(gone);
    }

    fn drop_half(&mut self) {
        if let Some(number) = self.half.take() {
            self.excused.insert(number);
            self.fragments += line(number).len() as u64;
        }
    }

    fn finish_half(&mut self) {
        if self.half.take().is_some() {
            write(&self.log(), "of it\n");
        }
    }

    fn begin(&self) {
        if fs::metadata(self.log()).map_or(0, |metadata| metadata.len()) == 0 {
            write(&self.log(), &self.head);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(lines) => {
                self.finish_half();
                self.begin();
                for _ in 0..lines {
                    write(&self.log(), format!("{}\n", line(self.next)));
                    self.next += 1;
                }
            }
            Step::WriteHalf if self.half.is_some() => self.finish_half(),
            Step::WriteHalf => {
                self.begin();
                write(&self.log(), format!("line {} ", self.next));
                self.half = Some(self.next);
                self.next += 1;
            }
            Step::Rotate => {
                self.finish_half();
                self.make_room(0);
            }
            Step::CopyTruncate if self.log().exists() => {
                self.finish_half();
                self.make_room(1);
                let copy = self.dir.path().join("a.log.1");
                self.change(|path| {
                    fs::copy(path, copy).unwrap();
                    truncate(path);
                });
            }
            Step::Truncate if self.log().exists() => {
                self.drop_half();
                self.change(truncate);
            }
            Step::Overwrite(lines) if self.log().exists() => {
                self.drop_half();
                let new: Vec<_> = (self.next..).take(lines.into()).collect();
                self.next += new.len();
                let text: String = new.iter().flat_map(|number| [line(*number), "\n".to_owned()]).collect();
                let text = self.head.clone() + &text;
                self.change(|path| fs::write(path, text).unwrap());
            }
            Step::Remove => {
                let log = self.log();
                if let Some(oldest) = Self::names(self.dir.path()).pop().filter(|path| *path != log) {
                    self.change(|_| fs::remove_file(oldest).unwrap());
                }
            }
            Step::Scan => self.scan(),
            Step::FailingScan => self.failing_scan(),
            Step::Ship(sink, chunks) => {
                self.scan();
                for _ in 0..chunks {
                    self.ship(sink);
                }
            }
            // What was read is not what was confirmed, whatever a checkpoint is made of. A sink gives up its place in a
            // file only with the agent.
            Step::ReadOnly(sink) => {
                self.scan();
                self.read(sink);
                self.make_checkpoint();
                self.crash();
            }
            Step::LostAnswer(sink) => {
                self.scan();
                let chunk = self.read(sink);
                self.send(sink, &chunk);
                self.crash();
            }
            Step::Checkpoint => self.make_checkpoint(),
            Step::Crash => self.crash(),
            Step::Truncate | Step::CopyTruncate | Step::Overwrite(_) => {}
        }
    }

    /// Renames the files from this number on, the oldest first.
    fn make_room(&self, from: usize) {
        for path in Self::names(self.dir.path()).iter().rev() {
            let number = Self::rotations(path);
            if number >= from {
                fs::rename(path, self.dir.path().join(format!("a.log.{}", number + 1))).unwrap();
            }
        }
    }

    /// Ships all there is, and compares what has come with what was written.
    fn end(mut self) {
        self.finish_half();
        self.scan();
        for sink in 0..SINKS.len() {
            for _ in 0..10_000 {
                self.scan();
                if !self.ship(sink) {
                    break;
                }
            }
        }
        self.scan();
        self.entered.append(&mut self.agent.ledger.entered.lock());
        for sink in 0..SINKS.len() {
            let is_missing = |number: &usize| !self.delivered[sink].contains(&line(*number));
            let bytes = |number: usize| line(number).len() as u64 + 1;
            let missing: Vec<usize> = (0..self.next).filter(is_missing).collect();
            for number in &missing {
                assert!(
                    self.vanished.contains(number) || self.excused.contains(number),
                    "line {number} is there, and missing at sink {sink}"
                );
            }
            let owed: u64 = missing
                .iter()
                .filter(|number| !self.excused.contains(number))
                .map(|number| bytes(*number))
                .sum();
            let entered: u64 = self
                .entered
                .iter()
                .filter(|(index, ..)| index.get() == sink)
                .map(|(.., range)| range.end - range.start)
                .sum();
            assert!(
                entered >= owed,
                "sink {sink}: {entered} bytes entered, {owed} missing: {missing:?}, excused {:?}",
                self.excused
            );
            if self.crashes == 0 {
                let heads = (self.head.len() * self.heads()) as u64;
                let most = missing.iter().map(|number| bytes(*number)).sum::<u64>() + self.fragments + heads;
                assert!(
                    entered <= most,
                    "sink {sink}: {entered} bytes entered, {most} missing at most: {:?}",
                    self.entered
                );
            }
        }
        for text in self.delivered.iter().flatten().filter(|text| !text.starts_with('#')) {
            let number = text.strip_prefix("line ").and_then(|rest| rest.strip_suffix(" of it"));
            let written =
                number.is_some_and(|number| number.parse::<usize>().is_ok_and(|number| number < self.next));
            assert!(written, "{text:?} was never written");
        }
    }

    /// As many heads as may be lost with their contents.
    fn heads(&self) -> usize {
        if self.vanished.is_empty() && self.fragments == 0 { 0 } else { self.next + 1 }
    }
}

fn numbers(text: &str) -> Vec<usize> {
    let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix(" of it\n"));
    lines.filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect()
}

fn truncate(path: &Path) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
}

fn write(path: &Path, text: impl AsRef<[u8]>) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_ref()).unwrap();
}

#[test]
fn whatever_happens_nothing_is_lost_silently() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let cases = u32::try_from(number("MODEL_CASES").unwrap_or(300)).unwrap();
    let seed = number("MODEL_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("MODEL_SEED={seed} MODEL_CASES={cases}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let outcome = TestRunner::new_with_rng(config, rng).run(&steps(), |(head, steps)| {
        run(head, steps);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("MODEL_SEED={seed}: {error}");
    }
}

fn run(head: usize, steps: impl IntoIterator<Item = Step>) {
    let mut world = World::new(head);
    steps.into_iter().for_each(|step| world.step(step));
    world.end();
}

/// The checkpoint knows an unread content that is longer than the copy, and has the same beginning.
#[test]
fn of_contents_with_the_same_beginning_the_one_that_is_whole_in_a_copy_is_its_original() {
    use Step::{CopyTruncate, Crash, Overwrite, Remove, Rotate, Ship, Write};
    let begin = [Write(1), Rotate, Write(2), Rotate, Ship(0, 1), Crash, Remove, Remove, Write(4), Rotate];
    run(LONG_HEAD, begin.into_iter().chain([Write(1), Ship(1, 3), Overwrite(1), Ship(1, 1), CopyTruncate]));
}

#[test]
fn an_unread_content_is_not_found_in_the_copy_of_another_with_the_same_beginning() {
    use Step::{CopyTruncate, ReadOnly, Rotate, Ship, Truncate, Write};
    run(LONG_HEAD, [Write(12), Rotate, ReadOnly(0), Write(4), Ship(0, 1), Truncate, Write(1), CopyTruncate]);
}

#[test]
fn what_was_seen_and_written_over_while_the_agent_was_away_is_entered() {
    use Step::{CopyTruncate, Crash, Overwrite, ReadOnly, Ship, Truncate, Write};
    run(LONG_HEAD, [Write(2), ReadOnly(0), Truncate, CopyTruncate, Write(1), Overwrite(1)]);
    run(LONG_HEAD, [Write(5), Ship(0, 1), Overwrite(1), Crash]);
}
