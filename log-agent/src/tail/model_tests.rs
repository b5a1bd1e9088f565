//! The real catalog and the real options against a model: files that are written, rotated, truncated and removed, and an agent that
//! reads, confirms, checkpoints, crashes and comes back, in any order that `proptest` can think of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Catalog, Multiline, Progress, ReadOptions, UnterminatedLine};
use crate::checkpoint::FileEntry;
use crate::loss::LossLedger;
use crate::metrics::Metrics;
use crate::record::chunk::{Chunk, ChunkMode};
use crate::record::filter::Filter;
use crate::record::parse::{FieldNames, Format};
use proptest::prelude::*;
use tempfile::TempDir;

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
    /// The oldest file that is not written to any more.
    Remove,
    Scan,
    /// Read up to a few chunks for one of the sinks; each is confirmed.
    Ship(usize, u8),
    /// Read a chunk for one of the sinks, checkpoint, and crash before it is confirmed.
    ReadOnly(usize),
    Checkpoint,
    Crash,
}

/// They stand at different places in every file.
const SINKS: [&str; 2] = ["one", "other"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..6_u8).prop_map(Step::Write),
        2 => Just(Step::WriteHalf),
        2 => Just(Step::Rotate),
        1 => Just(Step::CopyTruncate),
        1 => Just(Step::Truncate),
        1 => Just(Step::Remove),
        3 => Just(Step::Scan),
        8 => (0..SINKS.len(), 1..5_u8).prop_map(|(sink, chunks)| Step::Ship(sink, chunks)),
        1 => (0..SINKS.len()).prop_map(Step::ReadOnly),
        2 => Just(Step::Checkpoint),
        2 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..60)
}

struct World {
    dir: TempDir,
    next: usize,
    /// The first half of a line is there.
    half: Option<usize>,
    /// What may be missing in the end, because its bytes went before the agent could see them.
    excused: BTreeSet<usize>,
    /// By id: a record that comes twice is the same record, to whichever sink.
    records: BTreeMap<String, String>,
    /// What each sink has confirmed.
    delivered: [BTreeSet<String>; SINKS.len()],
    checkpoint: Vec<FileEntry>,
    agent: Agent,
}

struct Agent {
    catalog: Catalog,
    options: ReadOptions,
    ledger: LossLedger,
}

impl Agent {
    fn start(checkpoint: Vec<FileEntry>) -> Self {
        let sinks = SINKS.map(str::to_owned).to_vec();
        let ledger =
            LossLedger::new(&sinks, Metrics::new(&mut prometheus_client::registry::Registry::default()));
        let catalog = Catalog::new(sinks, checkpoint, Duration::ZERO, ledger.clone());
        let options = ReadOptions {
            format: Format::Raw,
            names: FieldNames::default(),
            multiline: Multiline::Off,
            filter: Filter::default(),
            max_line: 1000,
            buffer: Vec::new(),
        };
        Self { catalog, options, ledger }
    }
}

impl World {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            next: 0,
            half: None,
            excused: BTreeSet::new(),
            records: BTreeMap::new(),
            delivered: Default::default(),
            checkpoint: Vec::new(),
            agent: Agent::start(Vec::new()),
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

    fn scan(&mut self) {
        let dir = self.dir.path().to_owned();
        self.agent.catalog.update(|| Self::names(&dir));
    }

    /// Reads one chunk for a sink, which confirms it or not; true where there was one.
    fn read(&mut self, sink: usize, confirmed: bool) -> bool {
        let mut chunk = Chunk::new(40, ChunkMode::Records);
        'files: for seq in self.agent.catalog.poll_sizes(|_| true) {
            while !chunk.is_full() {
                let Agent { catalog, options, ledger } = &mut self.agent;
                let Some(source) = catalog.source(seq) else { break };
                match source.read(sink, UnterminatedLine::Hold, options, &mut chunk, ledger).unwrap() {
                    Progress::More => {}
                    Progress::AtEnd => break,
                    Progress::Replaced => self.scan(),
                }
            }
            if chunk.is_full() {
                break 'files;
            }
        }
        if confirmed {
            for part in chunk.parts() {
                for (line, text) in chunk.lines(part, &(0..chunk.len())) {
                    let id = format!("{}:{}", part.origin.id, line.place.start);
                    let text = String::from_utf8(text.to_vec()).unwrap();
                    let known = self.records.entry(id).or_insert_with(|| text.clone());
                    assert_eq!(*known, text, "the same id, another record");
                    self.delivered[sink].insert(text);
                }
                self.agent.catalog.confirm(sink, &part.segment);
            }
        }
        !chunk.is_empty()
    }

    fn excuse(&mut self, path: &Path) {
        let text = fs::read_to_string(path).unwrap_or_default();
        let numbers = text.lines().filter_map(|line| line.split(' ').nth(1)?.parse::<usize>().ok());
        self.excused.extend(numbers);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(lines) => {
                self.finish_half();
                for _ in 0..lines {
                    write(&self.log(), format!("line {} of it\n", self.next));
                    self.next += 1;
                }
            }
            Step::WriteHalf if self.half.is_some() => self.finish_half(),
            Step::WriteHalf => {
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
                let path = self.log();
                fs::copy(&path, self.dir.path().join("a.log.1")).unwrap();
                fs::OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
            }
            Step::Truncate if self.log().exists() => {
                let path = self.log();
                self.excuse(&path);
                self.half = None;
                fs::OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
            }
            Step::Remove => {
                if let Some(oldest) = Self::names(self.dir.path()).last().filter(|path| **path != self.log())
                {
                    // What is open is read to its end, unless the agent dies before.
                    let oldest = oldest.clone();
                    self.excuse(&oldest);
                    fs::remove_file(oldest).unwrap();
                }
            }
            Step::Scan => self.scan(),
            Step::Ship(sink, chunks) => {
                self.scan();
                for _ in 0..chunks {
                    self.read(sink, true);
                }
            }
            // What was read is not what was confirmed, whatever a checkpoint is made of. A sink gives up its place in a
            // file only with the agent.
            Step::ReadOnly(sink) => {
                self.scan();
                self.read(sink, false);
                self.checkpoint = self.agent.catalog.entries();
                self.crash();
            }
            Step::Checkpoint => self.checkpoint = self.agent.catalog.entries(),
            Step::Crash => self.crash(),
            Step::Truncate | Step::CopyTruncate => {}
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

    fn crash(&mut self) {
        self.agent = Agent::start(self.checkpoint.clone());
    }

    fn finish_half(&mut self) {
        if self.half.take().is_some() {
            write(&self.log(), "of it\n");
        }
    }
}

fn write(path: &Path, text: impl AsRef<[u8]>) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_ref()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_lost_silently(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.finish_half();
        world.scan();
        for sink in 0..SINKS.len() {
            for _ in 0..10_000 {
                world.scan();
                if !world.read(sink, true) {
                    break;
                }
            }
            for number in 0..world.next {
                let line = format!("line {number} of it");
                let found = world.delivered[sink].contains(&line) || world.excused.contains(&number);
                prop_assert!(found, "{line} is missing at sink {sink}");
            }
        }
        for line in world.delivered.iter().flatten() {
            let number = line.strip_prefix("line ").and_then(|rest| rest.strip_suffix(" of it"));
            prop_assert!(number.is_some_and(|number| number.parse::<usize>().is_ok_and(|number| number < world.next)), "{line:?} was never written");
        }
    }
}
