//! The access log, counted where it lies: in its files.
//!
//! web-server counts the lines that it has written and log-agent those that were confirmed, each since its own start. After a
//! restart such a number says nothing about the log, and the two do not fit together. The files do: they hold the lines, and
//! log-agent says up to which byte of each a sink has confirmed. So both numbers are counted here, in the same files, and no
//! restart changes them. Only what was added since the last look is read.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{DirEntry, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use lifecycle::blocking;
use memchr::memmem;

/// How much of a file is read at once. A line is much shorter.
const CHUNK: usize = 128 * 1024;

/// The files of one log: the one that is written, and those that rotation has left.
#[derive(Debug)]
pub(crate) struct LogFiles {
    path: PathBuf,
    known: HashMap<FileId, Counts>,
}

/// How far a sink has confirmed each file, by the file's name.
pub(crate) type Confirmed = HashMap<OsString, u64>;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Found {
    /// Lines in all files.
    pub(crate) lines: u64,
    /// Lines by the first digit of their status, from 1xx to 5xx.
    pub(crate) classes: [u64; 5],
    /// For each sink that was asked about, the lines that it has confirmed; none where log-agent has not looked at a file yet.
    pub(crate) confirmed: Vec<Option<u64>>,
}

/// What a file is known by, whatever its name.
type FileId = (u64, u64);

/// What was counted of one file so far.
#[derive(Debug, Default)]
struct Counts {
    all: Count,
    /// In the order of the sinks.
    confirmed: Vec<Count>,
}

/// Whole lines before an offset.
#[derive(Debug, Default, Clone)]
struct Count {
    offset: u64,
    lines: u64,
    classes: [u64; 5],
}

impl LogFiles {
    /// The log at this path. Nothing was looked at yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, known: HashMap::new() }
    }

    /// Counts what is there now, for these sinks.
    ///
    /// # Errors
    /// As the file system gives them.
    pub(crate) async fn count(&mut self, sinks: Vec<Confirmed>) -> io::Result<Found> {
        let path = self.path.clone();
        let mut known = std::mem::take(&mut self.known);
        let (known, found) = blocking(move || {
            let found = count(&path, &mut known, &sinks);
            (known, found)
        })
        .await;
        self.known = known;
        found
    }
}

fn count(path: &Path, known: &mut HashMap<FileId, Counts>, sinks: &[Confirmed]) -> io::Result<Found> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default();
    let mut found = Found { confirmed: vec![Some(0); sinks.len()], ..Found::default() };
    let mut before = std::mem::take(known);
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !is_of(&entry.file_name(), name) {
            continue;
        }
        // A file that was renamed or removed in this moment is met under its new name the next time.
        let Ok(Some((id, size, file))) = open(&entry) else { continue };
        let mut counts = before.remove(&id).unwrap_or_default();
        counts.all.go_to(&file, size)?;
        counts.confirmed.resize(sinks.len(), Count::default());
        for ((sink, count), sum) in sinks.iter().zip(&mut counts.confirmed).zip(&mut found.confirmed) {
            match sink.get(&entry.file_name()) {
                // Most of the time a sink has everything.
                Some(&offset) if offset == counts.all.offset => *count = counts.all.clone(),
                Some(&offset) if offset <= size => count.go_to(&file, offset)?,
                _ if size == 0 => {}
                // log-agent has not seen this file, or not under this name.
                _ => *sum = None,
            }
            *sum = sum.map(|sum| sum + count.lines);
        }
        found.lines += counts.all.lines;
        for (sum, class) in found.classes.iter_mut().zip(counts.all.classes) {
            *sum += class;
        }
        known.insert(id, counts);
    }
    Ok(found)
}

/// Whether a file belongs to the log: `access.log`, `access.log.1`, and however else rotation names it.
fn is_of(file: &OsStr, log: &OsStr) -> bool {
    file.as_encoded_bytes().starts_with(log.as_encoded_bytes())
}

/// A regular file: what it is, how long it is, and its content.
fn open(entry: &DirEntry) -> io::Result<Option<(FileId, u64, File)>> {
    if !entry.file_type()?.is_file() {
        return Ok(None);
    }
    let file = File::open(entry.path())?;
    let metadata = file.metadata()?;
    Ok(Some(((metadata.dev(), metadata.ino()), metadata.len(), file)))
}

impl Count {
    /// Counts on, or from the beginning where the file has become shorter.
    fn go_to(&mut self, file: &File, end: u64) -> io::Result<()> {
        if end < self.offset {
            *self = Self::default();
        }
        let mut buffer = Vec::new();
        while self.offset < end {
            let wanted = usize::try_from(end - self.offset).map_or(CHUNK, |left| left.min(CHUNK));
            buffer.resize(wanted, 0);
            let read = file.read_at(&mut buffer, self.offset)?;
            let chunk = &buffer[..read];
            let Some(last) = memchr::memrchr(b'\n', chunk) else {
                // The rest of a line that is being written; or, in a full chunk, no line of ours.
                if read < CHUNK {
                    return Ok(());
                }
                self.offset += read as u64;
                continue;
            };
            for line in chunk[..last].split(|byte| *byte == b'\n') {
                self.lines += 1;
                if let Some(class) = status_class(line) {
                    self.classes[class] += 1;
                }
            }
            self.offset += last as u64 + 1;
        }
        Ok(())
    }
}

/// The index of a line's status class, in each of the formats that web-server writes. What a client has put into the line cannot
/// be taken for the status: its quotes are escaped.
fn status_class(line: &[u8]) -> Option<usize> {
    let status = if line.starts_with(b"{") {
        let key = b",\"http.response.status_code\":";
        memmem::find(line, key)? + key.len()
    } else {
        let escaped = |quote: &usize| quote.checked_sub(1).is_some_and(|before| line[before] == b'\\');
        memmem::find_iter(line, b"\" ").find(|quote| !escaped(quote))? + 2
    };
    let status = line.get(status..)?;
    let digit = status.first().filter(|digit| (b'1'..=b'5').contains(*digit))?;
    Some(usize::from(digit - b'1'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn confirmed(files: &[(&str, u64)]) -> Confirmed {
        files.iter().map(|(name, offset)| (OsString::from(name), *offset)).collect()
    }

    fn append(path: &Path, text: &str) {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[tokio::test]
    async fn both_numbers_are_of_the_files_whatever_has_been_restarted() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        append(
            &log,
            "{\"a\":1,\"http.response.status_code\":200}\n{\"a\":1,\"http.response.status_code\":404}\n",
        );
        let all = std::fs::metadata(&log).unwrap().len();
        append(&log, "{\"half a li");
        let mut files = LogFiles::new(log.clone());
        let first = files.count(vec![confirmed(&[("access.log", all / 2)]), confirmed(&[])]).await.unwrap();
        assert_eq!((first.lines, first.classes), (2, [0, 1, 0, 1, 0]));
        assert_eq!(first.confirmed, [Some(1), None], "the second sink is not known to have seen the file");

        // Another process looks at the same files, and sees the same.
        let mut others = LogFiles::new(log.clone());
        assert_eq!(others.count(vec![confirmed(&[("access.log", all)])]).await.unwrap().confirmed, [Some(2)]);

        append(&log, "ne\"}\n");
        std::fs::rename(&log, dir.path().join("access.log.1")).unwrap();
        append(&log, "::1 - - [x] \"GET /\\\" 500 HTTP/1.1\" 304 0\n");
        let sink = confirmed(&[("access.log.1", all), ("access.log", 0)]);
        let rotated = files.count(vec![sink]).await.unwrap();
        assert_eq!((rotated.lines, rotated.classes), (4, [0, 1, 1, 1, 0]));
        assert_eq!(rotated.confirmed, [Some(2)]);
    }
}
