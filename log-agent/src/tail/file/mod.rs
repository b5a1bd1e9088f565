//! One open file: read for each sink from where that sink stands, and watched for everything that can happen to a log.
//!
//! Nothing is kept of what was read: a line that is not finished stays in the file, and so does what a slow sink cannot
//! take yet. The file is the buffer, so memory does not grow with either.
//!
//! Every read looks at a little of what is before the position, too, in the same call or right after it, and compares that with
//! what was there when it was read; and the file's beginning with what another sink was given of it. So a file that is truncated
//! or written anew shows in the very read that would have gone wrong, without a race between looking and reading.
//!
//! ReadState on is in `read` and, of plain copies, in `copy`; going on after a restart or from a copy in `resume`, and what befalls
//! a file in between in `change`; here is what they share.
//!
//! The handle is kept until every sink has everything, whatever became of the name: renamed, out of the globs, removed.

mod change;
mod container;
mod copy;
mod past;
mod read;
mod reader;
mod records;
mod resume;

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::identity::{Epoch, FileId, FileKey};
use crate::position::{Confirmed, FileSeq, ReadOffset, Segment};
use crate::record::chunk::Origin;
use crate::tail::lag::ArrivalTimes;
use crate::tail::queue::LogFamily;
pub(crate) use past::Match;
use past::{CopyOrigin, Past};
pub(crate) use reader::{Multiline, Progress, ReadOptions, UnterminatedLine, Until};

/// Whether a name that is followed still leads to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// It does.
    Named,
    /// It was renamed out of the globs or removed: read to its end, then closed.
    Unnamed,
}

/// Whether a file is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReadState {
    /// It is.
    Active,
    /// Not yet: it may be the copy that `copytruncate` makes of this file before truncating it. What was read of the one
    /// is then not read again from the other.
    PendingCopy(FileSeq),
    /// Never: rotation has compressed what had been lines.
    Skipped,
}

/// One file, in all that matters about it.
#[derive(Debug)]
pub(crate) struct TailedFile {
    /// Its place in the order of reading.
    pub(crate) seq: FileSeq,
    /// The log that it belongs to, by the name under which it was first seen.
    pub(crate) family: LogFamily,
    /// What the file system says it is.
    pub(crate) key: FileKey,
    /// Its name now, or its last one.
    pub(crate) path: PathBuf,
    /// Whether that name still leads to it.
    pub(crate) life: Naming,
    /// Whether it is read.
    pub(crate) reading: ReadState,
    /// What was known of its content before it was truncated while a copy of it was waiting to be told.
    past: Option<Past>,
    /// Of a copy: what it goes on from.
    former: Option<CopyOrigin>,
    /// Whether the last read found other content than what was read before.
    suspicion: Suspicion,
    /// Whether a copy is waiting: it has what a truncation takes away.
    copied: bool,
    file: File,
    epoch: Epoch,
    /// Known as soon as the first line is.
    id: Option<FileId>,
    origin: Option<Arc<Origin>>,
    /// The first bytes as they were read, at most [`WINDOW`]: for the fingerprint.
    head: Vec<u8>,
    size: u64,
    /// Its size when it was last certain that this is the content that was read; `size` may be that of one that followed.
    certain: u64,
    grown: Instant,
    arrivals: ArrivalTimes,
    cursors: Vec<Cursor>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspicion {
    None,
    Replaced,
}

/// Where one sink stands.
#[derive(Debug)]
struct Cursor {
    read: ReadOffset,
    /// For a line too long for one portion: how far it has been searched for its end.
    searched: u64,
    /// The bytes right before `read`, as they were when they were read.
    before: Vec<u8>,
    confirmed: Confirmed,
}

impl Cursor {
    fn at_start() -> Self {
        Self { read: ReadOffset(0), searched: 0, before: Vec::new(), confirmed: Confirmed::nothing() }
    }
}

impl TailedFile {
    /// Takes up a file that was never seen, at its beginning.
    ///
    /// # Errors
    /// Where its metadata cannot be read.
    pub(crate) fn begin(
        seq: FileSeq,
        family: LogFamily,
        path: &Path,
        file: File,
        sinks: usize,
    ) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let (now, mut arrivals) = (Instant::now(), ArrivalTimes::default());
        if metadata.len() > 0 {
            arrivals.note(0, now);
        }
        Ok(Self {
            seq,
            family,
            key: FileKey::of(&metadata),
            path: path.to_owned(),
            life: Naming::Named,
            reading: ReadState::Active,
            past: None,
            former: None,
            suspicion: Suspicion::None,
            copied: false,
            file,
            epoch: Epoch::default(),
            id: None,
            origin: None,
            head: Vec::new(),
            size: metadata.len(),
            certain: 0,
            grown: now,
            arrivals,
            cursors: (0..sinks).map(|_| Cursor::at_start()).collect(),
        })
    }

    fn origin(&mut self) -> Option<Arc<Origin>> {
        let path = self.path.to_string_lossy();
        if self.origin.as_ref().is_none_or(|origin| *origin.path != *path) {
            let id = self.id?;
            self.origin = Some(Arc::new(Origin { id, path: path.as_ref().into() }));
        }
        self.origin.clone()
    }

    /// Reads until the buffer is full or the file ends.
    fn fill(&self, buffer: &mut [u8], from: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], from + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn note_size(&mut self, at_least: u64) {
        if at_least > self.size {
            self.grown = Instant::now();
            self.arrivals.note(self.size, self.grown);
            self.size = at_least;
        }
    }

    /// Asks the file system for the size now; true where there may be something to read or to notice.
    ///
    /// # Errors
    /// Where it cannot be asked.
    pub(crate) fn poll_sizes(&mut self) -> io::Result<bool> {
        let size = self.file.metadata()?.len();
        let changed = size != self.size;
        self.note_size(size);
        Ok(changed || self.cursors.iter().any(|cursor| cursor.read.0 != size))
    }

    /// Notes what a sink has confirmed; false where it is of a content that is gone, and of which no copy is waiting.
    pub(crate) fn confirm(&mut self, sink: usize, segment: &Segment) -> bool {
        if let Some(cursor) = self.past.as_mut().and_then(|past| past.cursor(sink, segment)) {
            return cursor.confirmed.advance(segment);
        }
        if segment.epoch != self.epoch {
            return false;
        }
        if let Some(cursor) = self.cursors.get_mut(sink)
            && !cursor.confirmed.advance(segment)
        {
            // Cannot happen while one chunk is under way per sink. Should it, the lines are sent again rather than lost.
            tracing::error!(file = %self.path.display(), ?segment, "confirmed out of order: reading again");
            cursor.read = cursor.confirmed.offset.resume();
            cursor.before.clear();
        }
        let least = self.least_confirmed();
        self.arrivals.forget_before(least, self.size);
        true
    }

    /// Bytes that a sink has not confirmed, as far as the size is known.
    pub(crate) fn unconfirmed(&self, sink: usize) -> u64 {
        if self.reading == ReadState::Skipped {
            return 0;
        }
        let confirmed = self.cursors.get(sink).map_or(0, |cursor| cursor.confirmed.offset.get());
        self.size.saturating_sub(confirmed)
    }

    /// When the first of those was seen; nothing where only a last line without an end waits, which nobody could ship.
    pub(crate) fn waiting_since(&self, sink: usize) -> Option<Instant> {
        let confirmed = self.cursors.get(sink)?.confirmed.offset.get();
        let waits = self.unconfirmed(sink) > self.unfinished(sink);
        if waits { self.arrivals.first_seen(confirmed) } else { None }
    }

    /// Of those, the bytes of a last line without an end: all that is left where everything before is confirmed.
    pub(crate) fn unfinished(&self, sink: usize) -> u64 {
        self.cursors.get(sink).map_or(0, |cursor| {
            let searched_to_the_end = cursor.searched >= self.size;
            if searched_to_the_end { self.size.saturating_sub(cursor.read.0) } else { 0 }
        })
    }

    /// Whether a sink has been given all there is.
    pub(crate) fn is_read(&self, sink: usize) -> bool {
        self.reading == ReadState::Skipped
            || self.cursors.get(sink).is_none_or(|cursor| cursor.read.0 >= self.size)
    }

    /// Whether every sink has everything.
    pub(crate) fn is_drained(&self) -> bool {
        (0..self.cursors.len()).all(|sink| self.unconfirmed(sink) == 0)
    }

    /// How long it has not grown.
    pub(crate) fn quiet(&self) -> Duration {
        self.grown.elapsed()
    }

    /// Its size when it was last looked at.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The id that its records carry, once there is one.
    pub(crate) fn id(&self) -> Option<FileId> {
        self.id
    }

    /// Whether it has no name left at all.
    pub(crate) fn is_unlinked(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// Up to where every sink has confirmed it.
    pub(crate) fn least_confirmed(&self) -> u64 {
        self.cursors.iter().map(|cursor| cursor.confirmed.offset.get()).min().unwrap_or_default()
    }

    /// What a sink has confirmed.
    pub(crate) fn confirmed(&self, sink: usize) -> Option<Confirmed> {
        self.cursors.get(sink).map(|cursor| cursor.confirmed)
    }
}
