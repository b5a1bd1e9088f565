//! Threads that write small files: [`Lanes`].
//!
//! Making a file is time in the kernel and little else, and two threads make files nearly twice as fast as one. The files come in
//! batches, so that a thread is woken once for some of them.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use lifecycle::Ignore as _;

use super::numbered::{Name, NumberedFiles};
use super::volume::VolumeError;

/// How many threads.
pub(super) const LANES: usize = 2;
/// Batches that wait for each thread.
const WAITING: usize = 2;
/// Bytes and files of a batch that is full.
const BATCH: usize = 128 * 1024;
const FILES: usize = 64;

/// Files that are complete, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// With where each ends.
    files: Vec<(Name, usize)>,
}

/// The threads, each of which has a name for the next file that is written there.
#[derive(Debug)]
pub(super) struct Lanes {
    directory: Arc<NumberedFiles>,
    names: [Name; LANES],
    next: usize,
    threads: Vec<Lane>,
}

#[derive(Debug)]
struct Lane {
    batches: SyncSender<Batch>,
    /// Batches that were written, to be filled again.
    written: Receiver<Batch>,
    thread: JoinHandle<Result<(), VolumeError>>,
}

impl Batch {
    /// Adds bytes to the file that is last in it.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Ends the file that is last in it.
    pub(super) fn end(&mut self, name: Name) {
        self.files.push((name, self.bytes.len()));
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH || self.files.len() >= FILES
    }

    /// Writes all of it, and empties it.
    pub(super) fn write(&mut self, directory: &NumberedFiles) -> Result<(), VolumeError> {
        let mut start = 0;
        for (name, end) in self.files.drain(..) {
            let mut file = directory.create(name)?;
            directory.append(name, &mut file, &self.bytes[start..end])?;
            start = end;
        }
        self.bytes.clear();
        Ok(())
    }
}

impl Lanes {
    /// No thread yet. The first writer of the directory is another one.
    pub(super) fn new(directory: Arc<NumberedFiles>) -> Self {
        let names = std::array::from_fn(|lane| Name::first(lane + 1));
        Self { directory, names, next: 0, threads: Vec::new() }
    }

    /// A name for a file of the batch that is sent next.
    pub(super) fn name(&mut self) -> Name {
        self.names[self.next].take()
    }

    /// Has a batch written, and returns one to fill. An error is that of a batch before it.
    pub(super) fn send(&mut self, mut batch: Batch) -> Result<Batch, VolumeError> {
        let lane = self.next;
        self.next = (lane + 1) % LANES;
        if self.threads.len() == lane
            && let Ok(started) = Lane::start(&self.directory)
        {
            self.threads.push(started);
        }
        // Where the system has no more threads, this one does.
        let Some(Lane { batches, written, .. }) = self.threads.get(lane) else {
            batch.write(&self.directory)?;
            return Ok(batch);
        };
        if batches.send(batch).is_err() {
            // It ends before it is told to only where it failed.
            self.finish()?;
            return Ok(Batch::default());
        }
        Ok(written.try_recv().unwrap_or_default())
    }

    /// Waits until all is written.
    pub(super) fn finish(&mut self) -> Result<(), VolumeError> {
        let threads: Vec<_> =
            self.threads.drain(..).map(|Lane { batches, thread, .. }| (thread, drop(batches)).0).collect();
        let ended =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        // All of them, also where the first has failed.
        ended.fold(Ok(()), Result::and)
    }
}

impl Drop for Lanes {
    /// What is given up is removed, so nothing may be added to it any more.
    fn drop(&mut self) {
        self.finish().ignore();
    }
}

impl Lane {
    fn start(directory: &Arc<NumberedFiles>) -> std::io::Result<Self> {
        let (batches, waiting) = sync_channel(WAITING);
        let (done, written) = channel();
        let directory = Arc::clone(directory);
        let thread = thread::Builder::new().spawn(move || write_each(&waiting, &done, &directory))?;
        Ok(Self { batches, written, thread })
    }
}

fn write_each(
    waiting: &Receiver<Batch>,
    written: &Sender<Batch>,
    directory: &NumberedFiles,
) -> Result<(), VolumeError> {
    for mut batch in waiting {
        batch.write(directory)?;
        written.send(batch).ignore();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::create::DirectoryOptions;
    use crate::store::volume::Volume;

    fn directory() -> (tempfile::TempDir, Volume, Lanes) {
        let above = tempfile::tempdir().unwrap();
        let volume = Volume::open(&above.path().join("volume"), DirectoryOptions::default()).unwrap();
        let lanes = Lanes::new(Arc::new(NumberedFiles::begin(&volume).unwrap()));
        (above, volume, lanes)
    }

    fn batch(lanes: &mut Lanes, files: &[&str]) -> (Batch, Vec<Name>) {
        let mut batch = Batch::default();
        let names: Vec<_> = files.iter().map(|_| lanes.name()).collect();
        for (name, text) in names.iter().zip(files) {
            batch.append(text.as_bytes());
            batch.end(*name);
        }
        (batch, names)
    }

    #[test]
    fn each_file_has_its_bytes_under_its_name() {
        let (_above, _volume, mut lanes) = directory();
        let mut expected = Vec::new();
        for number in 0..100 {
            let texts = [format!("first {number}"), String::new(), format!("last {number}")];
            let (batch, names) = batch(&mut lanes, &texts.each_ref().map(String::as_str));
            expected.extend(names.into_iter().zip(texts));
            lanes.send(batch).unwrap();
        }
        lanes.finish().unwrap();
        for (name, text) in expected {
            assert_eq!(std::io::read_to_string(lanes.directory.open(name).unwrap()).unwrap(), text);
        }
    }

    /// A file stands where the second thread makes its first directory.
    #[test]
    fn what_a_thread_could_not_write_is_told() {
        let (_above, volume, mut lanes) = directory();
        std::fs::write(volume.private().unwrap().path().join("unpacked/2-0"), "").unwrap();
        for _ in 0..2 {
            let (batch, _) = batch(&mut lanes, &["text"]);
            lanes.send(batch).unwrap();
        }
        let error = lanes.finish().unwrap_err().to_string();
        assert!(
            error.starts_with("cannot make the directory of ") && error.contains("unpacked/2-0/0"),
            "{error}"
        );
        // Also where more follows: what can wait for a thread is bounded, so the failure is seen.
        let told = (0..100).find_map(|_| {
            let (batch, _) = batch(&mut lanes, &["text"]);
            lanes.send(batch).err()
        });
        assert!(told.is_some());
    }
}
