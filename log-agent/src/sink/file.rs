//! `file:`: records appended to a file, one a line, confirmed when they are on the disk.
//!
//! The file may be rotated by anyone, by rename: it is looked up by its name for every chunk. A chunk is in it as a whole
//! or not at all: what a failed write left behind is taken back, and what a crash left behind is closed with a line break.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{Payload, Refusal};

/// A file that is written to.
#[derive(Debug)]
pub(super) struct FileSink {
    path: PathBuf,
    open: Option<Arc<File>>,
}

impl FileSink {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), open: None }
    }

    pub(super) async fn attempt(&mut self, payload: &Payload) -> Result<(), Refusal> {
        let (path, open, body) = (self.path.clone(), self.open.take(), payload.body.clone());
        // Off the event loop: a disk may take its time to sync.
        let written = tokio::task::spawn_blocking(move || append(&path, open, &body)).await;
        match written {
            Ok(Ok(file)) => {
                self.open = Some(file);
                Ok(())
            }
            Ok(Err(error)) => Err(Refusal::wait(format!("cannot write to {}: {error}", self.path.display()))),
            Err(error) => Err(Refusal::wait(format!("cannot write to {}: {error}", self.path.display()))),
        }
    }
}

fn append(path: &Path, open: Option<Arc<File>>, body: &Bytes) -> io::Result<Arc<File>> {
    let file = match open {
        Some(file) if is_at(&file, path) => file,
        _ => Arc::new(take_up(path)?),
    };
    let before = file.metadata()?.len();
    let written = (&*file).write_all(body).and_then(|()| file.sync_data());
    if let Err(error) = written {
        // All of it is written again, so what is there of it goes. Where even that fails, the line is closed at the next
        // opening, and a reader knows the second copies by their ids.
        drop(file.set_len(before));
        return Err(error);
    }
    Ok(file)
}

/// Opens the file, and closes a line that a crash left open.
fn take_up(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appended_across_rotation_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.ndjson");
        std::fs::write(&path, "torn").unwrap();
        let open = append(&path, None, &Bytes::from_static(b"a\n")).unwrap();
        std::fs::rename(&path, dir.path().join("out.1")).unwrap();
        append(&path, Some(open), &Bytes::from_static(b"b\n")).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("out.1")).unwrap(), "torn\na\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "b\n");
    }
}
