//! The log's file: lines are appended whole, and it is rotated when it is full or old.
//!
//! No file grows over the limit, unless one line alone does.

use std::io;
use std::path::{Path, PathBuf};

use super::handle::LogHandle;
use super::rotation::Rotation;

/// What became of some lines.
#[derive(Debug, Default)]
pub(super) struct WriteReport {
    /// Lines that are in a file, whole.
    pub(super) lines: u64,
    /// Lines that are not.
    pub(super) dropped: u64,
    /// Why not.
    pub(super) error: Option<io::Error>,
}

impl WriteReport {
    fn lost(mut self, lines: &[u8], error: io::Error) -> Self {
        self.dropped += count(lines);
        self.error = Some(error);
        self
    }
}

/// A file that lines are appended to.
#[derive(Debug)]
pub(super) struct LogFile {
    /// None for stdout, which another program rotates, if any.
    target: Option<Target>,
    open: LogHandle,
    /// The rest of a line of which the disk took only the beginning. It goes first when the disk takes more, so that the
    /// line is whole after all.
    unfinished: Vec<u8>,
}

#[derive(Debug)]
struct Target {
    path: PathBuf,
    rotation: Rotation,
}

impl LogFile {
    /// Writes to stdout.
    pub(super) fn stdout() -> io::Result<Self> {
        Ok(Self { target: None, open: LogHandle::stdout()?, unfinished: Vec::new() })
    }

    /// Opens or makes the file at `path`.
    pub(super) fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let target = Target { path: path.to_owned(), rotation };
        Ok(Self { open: LogHandle::at(path)?, target: Some(target), unfinished: Vec::new() })
    }

    /// Lets go of the file and reopens the path.
    pub(super) fn reopen(&mut self) -> WriteReport {
        let mut written = WriteReport::default();
        match self.target.as_ref().map(|target| LogHandle::at(&target.path)) {
            Some(Ok(opened)) => {
                self.finish(&mut written);
                self.open = opened;
            }
            // The old file is better than none.
            Some(Err(error)) => written.error = Some(error),
            None => {}
        }
        written
    }

    /// Appends lines, each of which ends with a line feed.
    pub(super) fn append(&mut self, lines: &[u8]) -> WriteReport {
        let mut written = WriteReport::default();
        if let Err(error) = self.reopen_if_removed(&mut written) {
            return written.lost(lines, error);
        }
        let mut rest = lines;
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(self.bytes_before_rotation(rest));
            if let Err(error) = self.write_lines(batch, &mut written) {
                return written.lost(later, error);
            }
            rest = later;
            if !rest.is_empty()
                && let Err(error) = self.rotate()
            {
                // Too large is better than lost: the rest goes where the first part went.
                written.error = Some(error);
                return match self.write_lines(rest, &mut written) {
                    Ok(()) => written,
                    Err(error) => written.lost(&[], error),
                };
            }
        }
        written
    }

    /// Makes sure that there is a file with a name, and that it does not end in half a line.
    fn reopen_if_removed(&mut self, written: &mut WriteReport) -> io::Result<()> {
        // A file that was renamed still has a reader. One that was removed has none.
        if let Some(target) = &self.target
            && self.open.is_removed()?
        {
            self.open = LogHandle::at(&target.path)?;
            written.dropped += u64::from(!self.unfinished.is_empty());
            self.unfinished.clear();
        }
        if !self.unfinished.is_empty() {
            let mut rest = std::mem::take(&mut self.unfinished);
            if let Err((taken, error)) = self.open.write(&rest) {
                self.unfinished = rest.split_off(taken);
                return Err(error);
            }
            written.lines += 1;
        }
        Ok(())
    }

    /// How many bytes of these lines, whole lines, the file takes before it has to be rotated: none, if it is full or old.
    fn bytes_before_rotation(&self, lines: &[u8]) -> usize {
        let (Some(Target { rotation, .. }), Some(size)) = (&self.target, self.open.size) else {
            return lines.len();
        };
        if size > 0 && rotation.is_over(self.open.begun) {
            return 0;
        }
        let room = rotation.max_size.saturating_sub(size);
        match usize::try_from(room) {
            Ok(room) if room < lines.len() => match line_feed_before(lines, room) {
                // One that is longer than a file may be gets a file of its own.
                None if size == 0 => after_first_line(lines),
                None => 0,
                Some(last) => last + 1,
            },
            _ => lines.len(),
        }
    }

    /// Writes whole lines. One that the file took only the beginning of is neither written nor dropped yet; those after it
    /// are dropped.
    fn write_lines(&mut self, lines: &[u8], written: &mut WriteReport) -> io::Result<()> {
        let (taken, error) = match self.open.write(lines) {
            Ok(()) => (lines.len(), None),
            Err((taken, error)) => (taken, Some(error)),
        };
        let (whole, rest) = lines.split_at(line_feed_before(lines, taken).map_or(0, |last| last + 1));
        written.lines += count(whole);
        let begun = taken - whole.len();
        let unfinished = if begun == 0 { 0 } else { after_first_line(rest) };
        self.unfinished.extend_from_slice(&rest[begun..unfinished.max(begun)]);
        written.dropped += count(&rest[unfinished..]);
        error.map_or(Ok(()), Err)
    }

    /// Finishes a line that was begun, or gives it up, because the file is let go of.
    fn finish(&mut self, written: &mut WriteReport) {
        let rest = std::mem::take(&mut self.unfinished);
        if !rest.is_empty() {
            let finished = self.open.write(&rest).is_ok();
            if finished { written.lines += 1 } else { written.dropped += 1 }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        if let Some(Target { path, rotation }) = &self.target {
            rotation.make_room(path)?;
            self.open = LogHandle::at(path)?;
        }
        Ok(())
    }
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

fn line_feed_before(lines: &[u8], end: usize) -> Option<usize> {
    memchr::memrchr(b'\n', &lines[..end])
}

fn after_first_line(lines: &[u8]) -> usize {
    memchr::memchr(b'\n', lines).map_or(lines.len(), |first| first + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log::rotation::numbered;
    use std::time::Duration;

    fn lines(texts: &[&str]) -> Vec<u8> {
        texts.iter().flat_map(|text| format!("{text}\n").into_bytes()).collect()
    }

    fn rotation(max_size: u64, keep: u32) -> Rotation {
        Rotation { max_size, max_age: None, keep }
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn full_files_move_on_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let mut log = LogFile::open(&path, rotation(4, 2)).unwrap();
        let written = log.append(&lines(&["1", "2", "3", "4", "5", "6", "7"]));
        assert_eq!((written.lines, written.dropped), (7, 0));
        assert_eq!(read(&path), "7\n");
        assert_eq!(read(&numbered(&path, 1)), "5\n6\n");
        assert_eq!(read(&numbered(&path, 2)), "3\n4\n");
        assert!(!numbered(&path, 3).exists());
    }

    #[test]
    fn a_line_longer_than_a_file_gets_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let mut log = LogFile::open(&path, rotation(4, 5)).unwrap();
        log.append(&lines(&["1", "a long one", "2"]));
        assert_eq!(
            (read(&numbered(&path, 2)), read(&numbered(&path, 1)), read(&path)),
            ("1\n".to_owned(), "a long one\n".to_owned(), "2\n".to_owned())
        );
    }

    #[test]
    fn half_a_line_from_a_crash_stays_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        std::fs::write(&path, "whole\nhal").unwrap();
        let mut log = LogFile::open(&path, rotation(100, 1)).unwrap();
        log.append(&lines(&["next"]));
        assert_eq!(read(&path), "whole\nhal\nnext\n");
    }

    #[test]
    fn a_removed_file_is_made_anew_and_a_removed_directory_drops() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let path = logs.join("access.log");
        std::fs::create_dir(&logs).unwrap();
        let mut log = LogFile::open(&path, rotation(100, 1)).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(log.append(&lines(&["1"])).lines, 1);
        assert_eq!(read(&path), "1\n");

        std::fs::remove_dir_all(&logs).unwrap();
        let written = log.append(&lines(&["2", "3"]));
        assert_eq!((written.lines, written.dropped), (0, 2));
        assert!(written.error.is_some());

        std::fs::create_dir(&logs).unwrap();
        assert_eq!(log.append(&lines(&["4"])).lines, 1);
        assert_eq!(read(&path), "4\n");
    }

    #[test]
    fn an_old_file_moves_on_and_an_empty_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let old = Rotation { max_size: 100, max_age: Some(Duration::ZERO), keep: 2 };
        let mut log = LogFile::open(&path, old).unwrap();
        log.append(&lines(&["1"]));
        assert!(!numbered(&path, 1).exists());
        log.append(&lines(&["2"]));
        assert_eq!((read(&numbered(&path, 1)), read(&path)), ("1\n".to_owned(), "2\n".to_owned()));
    }
}
