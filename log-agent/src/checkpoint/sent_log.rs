//! What was sent since the last checkpoint: for each content how far, and a fingerprint of the bytes before that.
//!
//! A checkpoint is written once a second at most, and lines are sent as soon as they are there. Should the agent be killed in between,
//! and a file be rewritten before it is back, with the same beginning, then other lines would get the ids of those that were sent. So
//! before anything is sent that no checkpoint covers, a line is written here. It reaches the kernel and not the disk, which is enough for
//! the death of a process: a power loss takes the last of it away. To sync it would cost every chunk the time of a disk.
//!
//! It is written on a thread of its own, so that a state directory that stalls does not stop reading.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use lifecycle::Ignore as _;
use serde::{Deserialize, Serialize};

use super::FileEntry;
use crate::identity::FileId;
use crate::position::Confirmed;

const NAME: &str = "sent.ndjson";
const TEMPORARY: &str = "sent.tmp";
/// What a checkpoint covers is taken out when it is more than this.
const LIMIT: u64 = 256 * 1024;
/// A note that takes longer is not waited for.
const IN_TIME: Duration = Duration::from_millis(500);

/// How far a content was read for what is sent next.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) id: FileId,
    #[serde(flatten)]
    pub(crate) end: Confirmed,
}

#[derive(Debug)]
pub(crate) struct SentLog {
    path: PathBuf,
    file: Option<File>,
    length: u64,
    /// Lines since the checkpoint began that is being written; none where none is.
    since_checkpoint: Option<Vec<u8>>,
    /// Logged once.
    failed: bool,
}

impl SentLog {
    /// What is written to the state directory from here.
    pub(crate) const FILES: [&str; 2] = [NAME, TEMPORARY];

    /// In this state directory. What is there stays until a checkpoint covers it.
    pub(crate) fn new(state_dir: &Path) -> Self {
        let path = state_dir.join(NAME);
        let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Self { path, file: None, length, since_checkpoint: None, failed: false }
    }

    /// What it says. A line that is torn is the last one of a dead process, and nothing was sent after it.
    pub(crate) fn load(&self) -> Vec<Sent> {
        let text = fs::read(&self.path).unwrap_or_default();
        text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    /// Notes what is sent next; false where that cannot be written.
    fn append(&mut self, sent: &[Sent]) -> bool {
        let mut lines = Vec::with_capacity(sent.len() * 128);
        for one in sent {
            serde_json::to_writer(&mut lines, one).expect("it is always JSON and a vector always takes it");
            lines.push(b'\n');
        }
        if let Some(since) = &mut self.since_checkpoint {
            since.extend_from_slice(&lines);
        }
        let outcome = self.write(&lines);
        self.note(outcome);
        !self.failed
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let file = if let Some(file) = &mut self.file {
            file
        } else {
            let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
            // What is there may end within a line.
            file.write_all(b"\n")?;
            self.file.insert(file)
        };
        file.write_all(lines)?;
        self.length += lines.len() as u64;
        Ok(())
    }

    /// A checkpoint begins to be written: it covers all that is here now.
    fn checkpoint_begins(&mut self) {
        self.since_checkpoint = Some(Vec::new());
    }

    /// It is on the disk, or could not be written.
    fn checkpoint_ended(&mut self, written: bool) {
        let since = self.since_checkpoint.take().unwrap_or_default();
        if !written || self.length == 0 || (self.length < LIMIT && !since.is_empty()) {
            return;
        }
        let outcome = self.replace(&since);
        self.note(outcome);
    }

    fn replace(&mut self, lines: &[u8]) -> io::Result<()> {
        let temporary = self.path.with_file_name(TEMPORARY);
        let mut file =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(lines)?;
        fs::rename(&temporary, &self.path)?;
        (self.file, self.length) = (None, lines.len() as u64);
        Ok(())
    }

    fn note(&mut self, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => self.failed = false,
            Err(error) if !std::mem::replace(&mut self.failed, true) => tracing::warn!(
                file = %self.path.display(),
                %error,
                "cannot be written: lines wait for a checkpoint before they are sent, and where none can be written, either, their ids are \
                 this process's alone"
            ),
            Err(_) => {}
        }
    }
}

type Task = Box<dyn FnOnce(&mut SentLog) + Send>;

/// The thread that writes the file.
#[derive(Debug)]
pub(crate) struct SentWriter {
    tasks: Sender<Task>,
    done: Sender<bool>,
    /// Whether it is written, of each note.
    appended: Receiver<bool>,
    /// The last note is not written yet.
    is_behind: bool,
}

impl SentWriter {
    /// Starts it.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub(crate) fn start(mut log: SentLog) -> io::Result<Self> {
        let (tasks, queue) = channel::<Task>();
        let (done, appended) = channel();
        let work = move || queue.into_iter().for_each(|task| task(&mut log));
        std::thread::Builder::new().name("sent-log".to_owned()).spawn(work)?;
        Ok(Self { tasks, done, appended, is_behind: false })
    }

    /// Notes what is sent next; false where that takes too long, or cannot be. Then nothing is sent before a checkpoint covers it.
    pub(crate) fn append(&mut self, sent: Vec<Sent>) -> bool {
        let done = self.done.clone();
        self.tell(Box::new(move |log| {
            done.send(log.append(&sent)).ignore();
        }));
        let written = self.appended.recv_timeout(IN_TIME);
        self.is_behind = written.is_err();
        written.unwrap_or_default()
    }

    /// Whether the last note is not written yet: nothing else is to be noted before it is.
    pub(crate) fn is_stalled(&mut self) -> bool {
        self.is_behind = self.is_behind && self.appended.try_recv().is_err();
        self.is_behind
    }

    pub(crate) fn checkpoint_begins(&self) {
        self.tell(Box::new(SentLog::checkpoint_begins));
    }

    pub(crate) fn checkpoint_ended(&self, written: bool) {
        self.tell(Box::new(move |log| log.checkpoint_ended(written)));
    }

    fn tell(&self, task: Task) {
        // The thread ends with this value.
        self.tasks.send(task).ignore();
    }
}

/// Notes in the entries of a checkpoint what was sent since.
pub(crate) fn note_sent(entries: &mut [FileEntry], sent: Vec<Sent>) {
    let mut by_id = HashMap::<FileId, Vec<Confirmed>>::new();
    for Sent { id, end } in sent {
        by_id.entry(id).or_default().push(end);
    }
    for entry in entries {
        if let Some(sent) = entry.id.and_then(|id| by_id.remove(&id)) {
            let furthest = sent.iter().copied().chain(entry.sent).max_by_key(|sent| sent.offset);
            if furthest != entry.sent {
                entry.next_at.get_or_insert(entry.sent.map_or(0, |sent| sent.offset.get()));
                entry.sent = furthest;
                // What follows that was not looked at.
                if entry.next_at < furthest.map(|sent| sent.offset.get()) {
                    entry.next = None;
                }
            }
            entry.sent_since = sent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Fingerprint;

    fn sent(end: u64) -> Sent {
        let id = serde_json::from_str("\"0123456789abcdef\"").unwrap();
        Sent { id, end: Confirmed::skipped_to(end, Fingerprint::of(b"x")) }
    }

    fn ends(log: &SentLog) -> Vec<u64> {
        log.load().iter().map(|sent| sent.end.offset.get()).collect()
    }

    #[test]
    fn it_says_what_no_checkpoint_covers() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = SentLog::new(dir.path());
        log.append(&[sent(1), sent(2)]);
        fs::OpenOptions::new()
            .append(true)
            .open(dir.path().join(NAME))
            .unwrap()
            .write_all(b"{\"id\":\"01")
            .unwrap();
        let mut log = SentLog::new(dir.path());
        assert_eq!(ends(&log), [1, 2], "a torn line says nothing");
        log.checkpoint_begins();
        log.checkpoint_ended(false);
        assert_eq!(ends(&log), [1, 2]);
        log.checkpoint_begins();
        log.append(&[sent(3)]);
        log.checkpoint_ended(true);
        assert_eq!(ends(&log), [1, 2, 3], "it is small, and may say more than it has to");
        while log.length < LIMIT {
            log.append(&[sent(4)]);
        }
        log.checkpoint_begins();
        log.append(&[sent(5)]);
        log.checkpoint_ended(true);
        assert_eq!(ends(&log), [5]);
        log.append(&[sent(6)]);
        assert_eq!(ends(&log), [5, 6]);
        log.checkpoint_begins();
        log.checkpoint_ended(true);
        assert_eq!(ends(&log), [0; 0]);
    }
}
