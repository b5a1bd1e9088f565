//! The catalog alone, in situations that take more than the model's steps.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use super::catalog::{Catalog, Filled};
use super::model_tests::{Agent, SINKS};
use crate::checkpoint::FileEntry;
use crate::position::SinkIndex;
use crate::record::chunk::{Chunk, ChunkMode};
use crate::watch::Names;

/// A look at the names that finds one more, of a file that cannot be opened.
fn update_beside_an_obstacle(agent: &mut Agent, dir: &Path) {
    let Agent { catalog, discovery, .. } = agent;
    catalog.update(|| {
        let obstacle = dir.join("a.log.1");
        fs::write(&obstacle, "not to be read\n").unwrap();
        let names = discovery.scan();
        fs::remove_file(obstacle).unwrap();
        names
    });
}

/// A look at the names while their directory cannot be read.
fn nothing_of(dir: &Path) -> Names {
    let why = io::Error::from(io::ErrorKind::PermissionDenied);
    let mut names = Names::default();
    names.failures.push((dir.to_owned(), why));
    names
}

fn append(log: &Path, text: &[u8]) {
    fs::OpenOptions::new().append(true).open(log).unwrap().write_all(text).unwrap();
}

/// The file with the most contents has so many that are not its present one.
fn most_previous(catalog: &Catalog) -> usize {
    catalog.files().map(|file| file.previous().len()).max().unwrap_or_default()
}

/// What the checkpoint of an agent knows of `a.log` that was killed more than a week ago.
fn of_long_ago(dir: &Path) -> Vec<FileEntry> {
    fs::write(dir.join("a.log"), "a line\n").unwrap();
    let Agent { mut catalog, mut discovery, .. } = Agent::start(dir, None);
    catalog.update(|| discovery.scan());
    let (known, _) = catalog.entries();
    known.into_iter().map(|entry| FileEntry { seen: 0, ..entry }).collect()
}

#[test]
fn a_long_search_for_the_end_of_a_line_leaves_time_for_others() {
    let dir = tempfile::tempdir().unwrap();
    // Dense: nothing tells that there is no end.
    fs::write(dir.path().join("a.log"), vec![b'x'; 64 << 20]).unwrap();
    fs::write(dir.path().join("a.log_other"), "a line\n").unwrap();
    let Agent { mut catalog, mut discovery, options, .. } = Agent::start(dir.path(), None);
    catalog.update(|| discovery.scan());
    let (mut chunk, mut buffer) = (Chunk::new(1 << 20, ChunkMode::Records), Vec::new());
    let mut fill = || catalog.fill(SinkIndex(0), None, &options, &mut chunk, &mut buffer);
    let mut turns = 1;
    while fill() == Filled::ForNow {
        turns += 1;
    }
    assert!((2..64).contains(&turns), "{turns}");
    assert_eq!(chunk.len(), 1, "the line of the other file");
}

#[test]
fn a_long_run_of_nuls_leaves_time_for_others() {
    const NULS: usize = 64 << 20;
    let dir = tempfile::tempdir().unwrap();
    // Dense: nothing tells that it is a hole.
    fs::write(dir.path().join("a.log"), [&vec![0; NULS][..], b"behind it\n"].concat()).unwrap();
    fs::write(dir.path().join("a.log_other"), "a line\n").unwrap();
    let Agent { mut catalog, mut discovery, options, .. } = Agent::start(dir.path(), None);
    catalog.update(|| discovery.scan());
    let (mut chunk, mut buffer) = (Chunk::new(1 << 20, ChunkMode::Records), Vec::new());
    let (mut turns, mut lines) = (0, Vec::new());
    loop {
        turns += 1;
        let filled = catalog.fill(SinkIndex(0), None, &options, &mut chunk, &mut buffer);
        for part in chunk.parts() {
            lines.extend(chunk.lines(part, &(0..chunk.len())).map(|(line, _)| line.place.clone()));
        }
        if filled == Filled::AsFarAsItGoes && chunk.is_empty() {
            break;
        }
        chunk.clear();
    }
    lines.sort_by_key(|place| place.start);
    assert_eq!(lines, [0..6, NULS as u64..NULS as u64 + 9]);
    assert!(turns > 4, "{turns}");
}

#[test]
fn the_end_of_a_long_line_is_found_behind_what_a_scan_has_seen() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("a.log");
    fs::write(&log, "x").unwrap();
    let Agent { mut catalog, mut discovery, options, .. } = Agent::start(dir.path(), None);
    catalog.update(|| discovery.scan());
    append(&log, &[&vec![b'x'; 5 << 20][..], b"\n"].concat());
    catalog.written(&log);
    let (mut chunk, mut buffer) = (Chunk::new(1 << 20, ChunkMode::Records), Vec::new());
    while catalog.fill(SinkIndex(0), None, &options, &mut chunk, &mut buffer) == Filled::ForNow {}
    assert_eq!(chunk.len(), 1, "no other scan is needed");
}

/// What a drain says that runs out of time meanwhile.
#[test]
fn a_line_has_no_end_only_where_it_was_searched_to_the_end_of_its_file() {
    const LEN: u64 = 64 << 20;
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("a.log");
    fs::write(&log, "x").unwrap();
    let Agent { mut catalog, mut discovery, options, .. } = Agent::start(dir.path(), None);
    catalog.update(|| discovery.scan());
    // Nothing knows of this but the search itself.
    append(&log, &vec![b'x'; (64 << 20) - 1]);
    catalog.written(&log);
    let (mut chunk, mut buffer) = (Chunk::new(1 << 20, ChunkMode::Records), Vec::new());
    let unfinished = |catalog: &Catalog| {
        let content = catalog.files().next().unwrap().content();
        (content.unfinished(SinkIndex(0)), content.waiting_since(SinkIndex(0)).is_some())
    };
    while catalog.fill(SinkIndex(0), None, &options, &mut chunk, &mut buffer) == Filled::ForNow {
        assert_eq!(unfinished(&catalog), (0, true), "its end may come");
    }
    assert_eq!(unfinished(&catalog), (LEN, false));
    append(&log, b"x");
    catalog.update(|| discovery.scan());
    assert_eq!(unfinished(&catalog), (0, true), "its end may be in what was added");
    while catalog.fill(SinkIndex(0), None, &options, &mut chunk, &mut buffer) == Filled::ForNow {}
    assert_eq!(unfinished(&catalog), (LEN + 1, false));
}

#[test]
fn what_was_written_before_a_new_file_was_there_comes_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("a.log");
    fs::write(&log, "1\n").unwrap();
    let Agent { mut catalog, mut discovery, options, .. } = Agent::start(dir.path(), None);
    catalog.update(|| discovery.scan());
    let mut chunks = SINKS.map(|_| Chunk::new(1000, ChunkMode::Records));
    let mut fill = |catalog: &mut Catalog| {
        for (sink, chunk) in SinkIndex::all(SINKS.len()).zip(&mut chunks) {
            catalog.fill(sink, None, &options, chunk, &mut Vec::new());
        }
    };
    fill(&mut catalog);
    let mut rotate = Some(|| {
        append(&log, b"2\n");
        fs::rename(&log, dir.path().join("elsewhere")).unwrap();
        fs::write(&log, "3\n").unwrap();
    });
    // Right after the look into the files that are followed.
    catalog.update(|| {
        if let Some(rotate) = rotate.take() {
            rotate();
        }
        discovery.scan()
    });
    fill(&mut catalog);
    for chunk in chunks {
        let ends = chunk.parts().iter().map(|part| (part.segment.content.0, part.segment.end.0));
        assert_eq!(ends.collect::<Vec<_>>(), [(1, 4), (2, 2)]);
    }
}

#[test]
fn what_may_be_there_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(dir.path(), Some(of_long_ago(dir.path())));
    agent.catalog.update(|| nothing_of(dir.path()));
    assert_eq!(agent.catalog.entries().0.len(), 1);
    assert!(agent.ledger.entered.lock().is_empty());
    agent.catalog.update(|| agent.discovery.scan());
    assert_eq!(agent.catalog.files().count(), 1, "and is met again");
}

#[test]
fn what_is_forgotten_unconfirmed_is_entered() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(dir.path(), Some(of_long_ago(dir.path())));
    fs::rename(dir.path().join("a.log"), dir.path().join("elsewhere")).unwrap();
    // A copy of it may be there.
    update_beside_an_obstacle(&mut agent, dir.path());
    assert!(agent.catalog.entries().0.is_empty());
    let entered = agent.ledger.entered.lock();
    let ranges: Vec<_> = entered.iter().map(|(sink, _, range)| (*sink, range.clone())).collect();
    assert_eq!(ranges, [(SinkIndex(0), 0..7), (SinkIndex(1), 0..7)]);
}

#[test]
fn beside_a_file_that_cannot_be_opened_what_was_truncated_is_kept_within_bounds() {
    const ROUNDS: usize = 40;
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(dir.path(), None);
    for round in 0..ROUNDS {
        fs::write(dir.path().join("a.log"), format!("{round} {}\n", "x".repeat(round))).unwrap();
        update_beside_an_obstacle(&mut agent, dir.path());
        assert!(most_previous(&agent.catalog) <= 16, "{round}");
    }
    assert_eq!(most_previous(&agent.catalog), 16);
    let lost = agent.ledger.entered.lock().len();
    assert_eq!(lost, (ROUNDS - 1 - 16) * SINKS.len(), "the oldest are entered");
    let unseen = agent.catalog.unseen().unwrap();
    assert!(unseen.contains("a.log, which may be in a file that could not be read so far"), "{unseen}");
    agent.catalog.update(|| agent.discovery.scan());
    assert_eq!((most_previous(&agent.catalog), agent.catalog.unseen()), (0, None));
    assert_eq!(agent.ledger.entered.lock().len(), (ROUNDS - 1) * SINKS.len(), "all are");
}

#[test]
fn what_is_drained_is_remembered_where_the_drain_gives_up_what_was_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("a.log");
    let mut agent = Agent::start(dir.path(), None);
    fs::write(&log, "old\n").unwrap();
    update_beside_an_obstacle(&mut agent, dir.path());
    fs::write(&log, "new line\n").unwrap();
    update_beside_an_obstacle(&mut agent, dir.path());
    for sink in SinkIndex::all(SINKS.len()) {
        let mut chunk = Chunk::new(1000, ChunkMode::Records);
        agent.catalog.fill(sink, None, &agent.options, &mut chunk, &mut Vec::new());
        assert_eq!(chunk.len(), 1);
        chunk.parts().iter().for_each(|part| agent.catalog.confirm(sink, &part.segment));
    }
    fs::rename(&log, dir.path().join("elsewhere")).unwrap();
    update_beside_an_obstacle(&mut agent, dir.path());
    assert_eq!(most_previous(&agent.catalog), 1);
    assert_eq!(agent.catalog.give_up_unshippable(), 4 * SINKS.len() as u64);
    let (entries, _) = agent.catalog.entries();
    let sizes: Vec<_> = entries.iter().map(|entry| (entry.size, entry.given_up)).collect();
    assert_eq!(sizes, [(9, 0)]);
    assert!(entries[0].unconfirmed(&SINKS.map(str::to_owned)).is_empty());
}

#[test]
fn a_copy_that_the_checkpoint_knew_is_not_sent_again_where_it_is_seen_only_after_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("a.log");
    fs::write(&log, "a line\n").unwrap();
    let fill = |agent: &mut Agent, sink| {
        let mut chunk = Chunk::new(1000, ChunkMode::Records);
        agent.catalog.fill(sink, None, &agent.options, &mut chunk, &mut Vec::new());
        chunk
    };
    let mut agent = Agent::start(dir.path(), None);
    agent.catalog.update(|| agent.discovery.scan());
    for sink in SinkIndex::all(SINKS.len()) {
        let chunk = fill(&mut agent, sink);
        chunk.parts().iter().for_each(|part| agent.catalog.confirm(sink, &part.segment));
    }
    fs::copy(&log, dir.path().join("a.log.1")).unwrap();
    agent.catalog.update(|| agent.discovery.scan());
    let (entries, _) = agent.catalog.entries();
    let is_copy = |entry: &FileEntry| entry.path.ends_with("a.log.1");
    let waits = |entry: FileEntry| FileEntry { pending_copy: is_copy(&entry), ..entry };
    let mut agent = Agent::start(dir.path(), Some(entries.into_iter().map(waits).collect()));
    agent.catalog.update(|| {
        let mut names = agent.discovery.scan();
        names.files.retain(|found| found.place.path == log);
        names.failures = nothing_of(dir.path()).failures;
        names
    });
    agent.catalog.update(|| agent.discovery.scan());
    assert_eq!(agent.catalog.files().count(), 2);
    for sink in SinkIndex::all(SINKS.len()) {
        assert!(fill(&mut agent, sink).is_empty());
    }
}
