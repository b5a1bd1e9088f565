//! Records that a sink will not have, kept for a person to look at: one JSON object a line, in the state directory.
//!
//! A record is on the disk here before its sink's position moves over it. The file is bounded: a full one becomes the
//! `.1` of the next, and the one before that goes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifecycle::Ignore as _;
use parking_lot::Mutex;
use serde_json::json;

const NAME: &str = "dead-letter.ndjson";
const OLDER: &str = "dead-letter.ndjson.1";
const LIMIT: u64 = 16 * 1024 * 1024;

/// The file, by its directory. Clones write to the same one.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetters {
    dir: PathBuf,
    /// Whose turn it is: a letter that fails is cut off again, and must not take another sink's with it.
    turn: Arc<Mutex<()>>,
}

impl DeadLetters {
    /// In the state directory.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.to_owned(), turn: Arc::default() }
    }

    /// Keeps records, one a line, and returns when they are on the disk.
    ///
    /// # Errors
    /// As the disk gives them; the records are then not kept.
    pub(crate) fn keep(&self, sink: &str, reason: &str, records: &[u8]) -> io::Result<()> {
        let _turn = self.turn.lock();
        let path = self.dir.join(NAME);
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LIMIT) {
            fs::rename(&path, self.dir.join(OLDER))?;
        }
        let mut file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(&path)?;
        let before = file.metadata()?.len();
        let mut lines = Vec::with_capacity(records.len());
        if before == 0 {
            // The name has to outlive a crash, as what is under it does.
            File::open(&self.dir)?.sync_all()?;
        } else {
            let mut last = [0];
            file.read_exact_at(&mut last, before - 1)?;
            // A crash in the middle of a letter: what is left of it is a line of its own.
            lines.extend((last != *b"\n").then_some(b'\n'));
        }
        for record in records.split(|byte| *byte == b'\n').filter(|record| !record.is_empty()) {
            // A record is JSON; should it ever not be, it is kept as text.
            let record = serde_json::from_slice(record)
                .unwrap_or_else(|_| serde_json::Value::from(String::from_utf8_lossy(record)));
            writeln!(lines, "{}", json!({"sink": sink, "reason": reason, "record": record}))?;
        }
        file.write_all(&lines).and_then(|()| file.sync_data()).inspect_err(|_| {
            // It is tried again, so that half of it would be there twice. Where even this fails, that is so.
            file.set_len(before).ignore();
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A letter that does not fit fails again and again, while another sink's are kept.
    #[test]
    fn a_letter_that_fails_takes_no_other_with_it() {
        const LETTERS: usize = 200;
        let dir = tempfile::tempdir().unwrap();
        let letters = DeadLetters::new(dir.path());
        letters.keep("s", "400", b"{}").unwrap();
        let path = dir.path().join(NAME);
        let one = fs::metadata(&path).unwrap().len();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // What `keep` does where the disk is full, as often as it can.
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let _turn = letters.turn.lock();
                    let file = OpenOptions::new().append(true).open(&path).unwrap();
                    let before = file.metadata().unwrap().len();
                    (&file).write_all(b"half a let").unwrap();
                    file.set_len(before).unwrap();
                }
            });
            for _ in 0..LETTERS {
                letters.keep("s", "400", b"{}").unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::metadata(&path).unwrap().len(), one * (1 + LETTERS as u64));
    }

    #[test]
    fn kept_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let letters = DeadLetters::new(dir.path());
        letters.keep("s", "400", br#"{"id":"a:1"}"#).unwrap();
        letters.keep("s", "400", b"no json").unwrap();
        let text = fs::read_to_string(dir.path().join(NAME)).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["record"]["id"], "a:1");
        assert_eq!(lines[1]["record"], "no json");
        OpenOptions::new().append(true).open(dir.path().join(NAME)).unwrap().write_all(b"{\"to").unwrap();
        letters.keep("s", "400", b"{}").unwrap();
        let text = fs::read_to_string(dir.path().join(NAME)).unwrap();
        assert!(text.ends_with("\n{\"to\n{\"reason\":\"400\",\"record\":{},\"sink\":\"s\"}\n"), "{text}");
        OpenOptions::new().write(true).open(dir.path().join(NAME)).unwrap().set_len(LIMIT + 1).unwrap();
        letters.keep("s", "400", b"{}").unwrap();
        assert!(fs::metadata(dir.path().join(NAME)).unwrap().len() < 100);
        assert!(dir.path().join(OLDER).exists());
    }
}
