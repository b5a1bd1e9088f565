//! Records that a sink will not have, kept for a person to look at: one JSON object a line, in the state directory.
//!
//! A record is on the disk here before its sink's position moves over it. The file is bounded: a full one becomes the
//! `.1` of the next, and the one before that goes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;

use super::file::{append_lines, open_lines};

const NAME: &str = "dead-letter.ndjson";
/// What [`older`] makes of it.
const OLDER: &str = "dead-letter.ndjson.1";
const LIMIT: u64 = 16 * 1024 * 1024;

/// The file. Clones write to the same one.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetters {
    file: PathBuf,
    /// Whose turn it is: a letter that fails is cut off again, and must not take another sink's with it.
    turn: Arc<Mutex<()>>,
}

impl DeadLetters {
    /// What is written to the state directory from here.
    pub(crate) const FILES: [&str; 2] = [NAME, OLDER];

    /// In the state directory.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self::at(state_dir.join(NAME))
    }

    pub(crate) fn at(file: PathBuf) -> Self {
        Self { file, turn: Arc::default() }
    }

    /// Keeps records, one a line, and returns when they are on the disk.
    ///
    /// # Errors
    /// As the disk gives them; the records are then not kept.
    pub(crate) fn keep(&self, sink: &str, reason: &str, records: &[u8]) -> io::Result<()> {
        let _turn = self.turn.lock();
        if fs::metadata(&self.file).is_ok_and(|metadata| metadata.len() > LIMIT) {
            fs::rename(&self.file, older(&self.file))?;
        }
        let mut lines = Vec::with_capacity(records.len());
        let head = json!({"reason": reason, "sink": sink}).to_string();
        let head = head.strip_suffix('}').unwrap_or_default();
        for record in records.split(|byte| *byte == b'\n').filter(|record| !record.is_empty()) {
            // As it is, so that nothing of it is written in another way when it is sent again.
            lines.extend_from_slice(head.as_bytes());
            lines.extend_from_slice(b",\"record\":");
            lines.extend_from_slice(record);
            lines.extend_from_slice(b"}\n");
        }
        append_lines(&open_lines(&self.file, 0o600)?, &lines).map(drop)
    }
}

/// The name of a full file.
fn older(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;

    use std::process::Command;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Where the test below finds itself with a limit on what it may write.
    const LIMITED: &str = "DEAD_LETTERS_UNDER_A_LIMIT";

    /// A disk that is full is a file that may not grow: the write of a large letter fails in the middle, again and again, while
    /// another sink's small ones are kept. The limit is the whole process's, so the test runs itself in one of its own.
    #[test]
    fn a_letter_that_fails_takes_no_other_with_it() {
        const LETTERS: usize = 200;
        let Some(dir) = std::env::var_os(LIMITED) else {
            let dir = tempfile::tempdir().unwrap();
            let limited = "trap '' XFSZ && ulimit -f 2048 && exec \"$0\" \"$@\"";
            let name = "deliver::dead_letter::tests::a_letter_that_fails_takes_no_other_with_it";
            let mut command = Command::new("sh");
            command.args(["-c", limited]).arg(std::env::current_exe().unwrap());
            let output = command.args(["--exact", name]).env(LIMITED, dir.path()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        };
        let letters = DeadLetters::new(Path::new(&dir));
        letters.keep("s", "400", b"{}").unwrap();
        let path = Path::new(&dir).join(NAME);
        let one = fs::metadata(&path).unwrap().len();
        let large = format!("\"{}\"", "x".repeat(2 * 1024 * 1024)).into_bytes();
        let (tried, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let kept = std::thread::scope(|scope| {
            scope.spawn(|| {
                while tried.load(Ordering::SeqCst) < LETTERS {
                    let error = letters.keep("large", "400", &large).unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
                    failed.fetch_add(1, Ordering::SeqCst);
                }
            });
            let mut kept = 0;
            while tried.fetch_add(1, Ordering::SeqCst) < LETTERS {
                kept += usize::from(letters.keep("s", "400", b"{}").is_ok());
            }
            kept
        });
        assert_eq!(kept, LETTERS);
        assert!(failed.load(Ordering::SeqCst) > 0);
        assert_eq!(fs::metadata(&path).unwrap().len(), one * (1 + LETTERS as u64));
    }

    #[test]
    fn kept_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let letters = DeadLetters::new(dir.path());
        letters.keep("s", "400", br#"{"id":"a:1"}"#).unwrap();
        letters.keep("s", "400", br#"{"n":1.50}"#).unwrap();
        let text = fs::read_to_string(dir.path().join(NAME)).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["record"]["id"], "a:1");
        assert!(text.ends_with("\"record\":{\"n\":1.50}}\n"), "{text}");
        OpenOptions::new().append(true).open(dir.path().join(NAME)).unwrap().write_all(b"{\"to").unwrap();
        letters.keep("s", "400", b"{}").unwrap();
        let text = fs::read_to_string(dir.path().join(NAME)).unwrap();
        assert!(text.ends_with("\n{\"to\n{\"reason\":\"400\",\"sink\":\"s\",\"record\":{}}\n"), "{text}");
        OpenOptions::new().write(true).open(dir.path().join(NAME)).unwrap().set_len(LIMIT + 1).unwrap();
        letters.keep("s", "400", b"{}").unwrap();
        assert!(fs::metadata(dir.path().join(NAME)).unwrap().len() < 100);
        assert!(dir.path().join(OLDER).exists());
    }
}
