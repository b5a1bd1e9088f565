//! One file that is followed: which it is, what it is called now, its handle, and the content that it holds.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use lifecycle::escape::escaped_path;

use super::content::{Comparison, Content, ReadAt as _};
use super::framing;
use super::read::{Input, Progress, ReadContext, line_start_before};
use super::rotation::{LogFamily, RotationAge, age_in};
use crate::checkpoint::FileEntry;
use crate::identity::FileKey;
use crate::loss::LossLedger;
use crate::position::{ContentSeq, SinkIndex};
use crate::watch::Place;

/// Files in the order in which they were met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FileSeq(pub(super) u64);

/// Whether a name that is followed still leads to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// It does.
    Named,
    /// The file was renamed out of the globs or removed: it is read to its end, then closed.
    Unnamed,
}

/// Whether a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadState {
    /// It is.
    Active,
    /// Not yet: it may be the copy that `copytruncate` makes of a file before truncating it. What was read of the one
    /// is then not read again from the other.
    PendingCopy,
    /// Not while it holds this: it is compressed, so rotation has made it of what had been lines.
    Skipped,
}

/// What tells, without a look into a file, whether it was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStat {
    pub(crate) size: u64,
    pub(crate) modified: Option<SystemTime>,
}

impl FileStat {
    /// Of a file.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { size: metadata.len(), modified: metadata.modified().ok() }
    }
}

#[derive(Debug)]
pub(crate) struct TailedFile {
    seq: FileSeq,
    key: FileKey,
    /// The log that it belongs to, whatever it is called by now.
    family: LogFamily,
    place: Place,
    naming: Naming,
    state: ReadState,
    /// None while descriptors are short: it is opened again by its name.
    handle: Option<File>,
    stat: FileStat,
    content: Content,
    /// What it held before it was truncated, oldest first, while copies of that are looked for.
    previous: Vec<Content>,
    /// Up to here, the file still holds the last of these: perhaps only its end was taken back.
    shrunk: Option<u64>,
    /// Whether a read found other content than what was read before.
    suspicious: bool,
    /// Whether it was there when the agent started: seen then, or known as a possible copy by a checkpoint.
    there_at_start: bool,
}

impl TailedFile {
    /// Begins to follow an open file, of whose content nothing is known.
    pub(super) fn new(
        seq: FileSeq,
        family: LogFamily,
        place: Place,
        handle: File,
        content: Content,
    ) -> io::Result<Self> {
        let metadata = handle.metadata()?;
        Ok(Self {
            seq,
            key: FileKey::of(&metadata),
            family,
            place,
            naming: Naming::Named,
            state: ReadState::Active,
            handle: Some(handle),
            stat: FileStat { size: 0, modified: None },
            content,
            previous: Vec::new(),
            shrunk: None,
            suspicious: false,
            there_at_start: false,
        })
    }

    pub(crate) fn seq(&self) -> FileSeq {
        self.seq
    }

    pub(super) fn key(&self) -> FileKey {
        self.key
    }

    pub(super) fn family(&self) -> &LogFamily {
        &self.family
    }

    /// How old it is in its family, by its name.
    pub(super) fn age(&self) -> RotationAge {
        age_in(&self.place.path, &self.family)
    }

    /// Its name now, or its last one.
    pub(crate) fn path(&self) -> &Path {
        &self.place.path
    }

    /// What an entry of a checkpoint has to know of the present content beyond what was read.
    pub(super) fn prepare_entry(&mut self) {
        if let Some(file) = &self.handle {
            self.content.prepare_entry(file);
        }
    }

    pub(crate) fn naming(&self) -> Naming {
        self.naming
    }

    pub(crate) fn state(&self) -> ReadState {
        self.state
    }

    pub(super) fn set_state(&mut self, state: ReadState) {
        self.state = state;
    }

    /// Only a file with a rotated name is a copy, and only of a log that is, or was, read.
    pub(super) fn hold_as_possible_copy(&mut self) {
        if self.age() != RotationAge::Current {
            self.state = ReadState::PendingCopy;
        }
    }

    pub(super) fn set_there_at_start(&mut self) {
        self.there_at_start = true;
    }

    pub(super) fn was_there_at_start(&self) -> bool {
        self.there_at_start
    }

    /// What to remember of a content that it holds, or held.
    pub(super) fn entry_of(&self, content: &Content, sinks: &[String]) -> FileEntry {
        content.entry(self.key, self.path(), self.family.log(), sinks)
    }

    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    pub(super) fn content_mut(&mut self) -> &mut Content {
        &mut self.content
    }

    /// What it held before, of which copies are looked for, oldest first.
    pub(super) fn previous(&self) -> &[Content] {
        &self.previous
    }

    /// Bytes of that which sinks have not confirmed, for all sinks together.
    pub(super) fn unconfirmed_previous(&self) -> u64 {
        self.previous.iter().map(Content::unconfirmed_by_all).sum()
    }

    /// The content with this number, the present or the previous one.
    pub(super) fn content_with(&mut self, seq: ContentSeq) -> Option<(&Path, &mut Content)> {
        let path = self.place.path.as_path();
        if self.content.seq() == seq {
            return Some((path, &mut self.content));
        }
        self.previous.iter_mut().find(|previous| previous.seq() == seq).map(|previous| (path, previous))
    }

    /// A name leads to it.
    pub(super) fn named(&mut self, place: Place) {
        self.naming = Naming::Named;
        if self.place.path != place.path {
            tracing::debug!(
                from = %escaped_path(&self.place.path),
                to = %escaped_path(&place.path),
                "renamed"
            );
        }
        self.place = place;
    }

    /// No name leads to it any more.
    pub(super) fn unnamed(&mut self) {
        tracing::debug!(
            file = %escaped_path(&self.place.path),
            "no name leads to it any more: reading it to its end"
        );
        self.naming = Naming::Unnamed;
    }

    pub(super) fn is_open(&self) -> bool {
        self.handle.is_some()
    }

    pub(super) fn handle(&self) -> Option<&File> {
        self.handle.as_ref()
    }

    /// Gives its descriptor back.
    pub(super) fn close(&mut self) {
        self.handle = None;
    }

    /// Opens it by its name, unless that leads to another file now.
    pub(super) fn open(&mut self) -> io::Result<()> {
        let file = self.place.open()?;
        if FileKey::of(&file.metadata()?) == self.key {
            self.handle = Some(file);
        }
        Ok(())
    }

    /// Bytes of the disk that it holds alone, because it was removed.
    pub(super) fn held_bytes(&self) -> Option<u64> {
        let metadata = self.handle.as_ref().filter(|_| self.naming == Naming::Unnamed)?.metadata().ok()?;
        (metadata.nlink() == 0).then(|| metadata.blocks() * 512)
    }

    /// Whether it has no name left at all, as far as that can be seen.
    pub(super) fn is_unlinked(&self) -> bool {
        self.handle.as_ref().is_some_and(|file| file.metadata().is_ok_and(|metadata| metadata.nlink() == 0))
    }

    /// Bytes that a sink has not confirmed.
    pub(crate) fn unconfirmed(&self, sink: SinkIndex) -> u64 {
        if self.state == ReadState::Skipped { 0 } else { self.content.unconfirmed(sink) }
    }

    /// Whether every sink has been given all there is.
    pub(crate) fn is_read(&self) -> bool {
        self.state == ReadState::Skipped || self.content.is_read_by_all()
    }

    /// Whether every sink has everything.
    pub(super) fn is_drained(&self) -> bool {
        self.state == ReadState::Skipped || self.content.is_drained()
    }

    /// Whether any sink lacks something of it, or of what it held before.
    pub(super) fn owes(&self) -> bool {
        !(self.is_drained() && self.previous.is_empty())
    }

    /// Its descriptor is gone, and its name leads elsewhere: as far as is known, so much was there.
    pub(super) fn note_last_size(&mut self) {
        self.content.note_size(self.stat.size);
    }

    /// How long it has not grown.
    pub(super) fn quiet(&self) -> Duration {
        self.content.quiet()
    }

    /// Whether its size or its time of change is another than at the last time. `stat` is what a scan has seen of its name;
    /// without it, an open file is asked.
    pub(super) fn poll(&mut self, stat: Option<FileStat>) -> io::Result<bool> {
        let stat = match (&self.handle, stat) {
            (Some(file), _) => FileStat::of(&file.metadata()?),
            (None, Some(stat)) => stat,
            (None, None) => return Ok(false),
        };
        let changed = stat != self.stat;
        self.stat = stat;
        Ok(changed)
    }

    /// Its size, as of the last time that it was asked for: perhaps that of another content.
    pub(super) fn last_size(&self) -> u64 {
        self.stat.size
    }

    /// Whether its size is another than that of its content, or a read found other content.
    pub(super) fn is_unclear(&self) -> bool {
        self.suspicious || self.stat.size != self.content.size()
    }

    pub(super) fn suspect(&mut self) {
        self.suspicious = true;
    }

    /// Compares its content with what is known of it; where that is another, `next` makes the content that replaces it, for now or for
    /// good: whether a copy has the old one is looked for next. True where it was replaced.
    pub(super) fn look(&mut self, next: impl FnOnce() -> Content) -> io::Result<bool> {
        let Some(file) = &self.handle else { return Ok(false) };
        // First the size: what is compared after it is at least as new.
        let size = file.metadata()?.len();
        let comparison = self.content.compare(file, size)?;
        self.suspicious = false;
        if comparison == Comparison::Same {
            self.content.observe(file, size)?;
            return Ok(false);
        }
        let next = next();
        let old = std::mem::replace(&mut self.content, next);
        if self.state == ReadState::Skipped {
            // Nothing of the old one was read, and no copy of it is looked for. The next read tells whether this one is compressed, too.
            self.state = ReadState::Active;
            self.content.observe(file, size)?;
            return Ok(true);
        }
        self.shrunk = match comparison {
            Comparison::Shrunk(end) => Some(end),
            _ => None,
        };
        if self.shrunk.is_none() {
            self.warn_of_replacement();
        }
        self.previous.push(old);
        self.content.observe(file, size)?;
        Ok(true)
    }

    /// Notes what was added to its content. Where it holds anything else, that is for the next look, which comes before the names are
    /// looked at.
    pub(super) fn look_for_more(&mut self) {
        let seen = match (self.poll(None), &self.handle) {
            (Ok(true), Some(file)) => self.content.observe_growth(file, self.stat.size),
            (polled, _) => polled.map(|_| true),
        };
        self.suspicious |= !matches!(seen, Ok(true));
    }

    fn warn_of_replacement(&self) {
        let name = escaped_path(&self.place.path);
        tracing::warn!(file = %name, "the file's content was replaced: reading it from its beginning");
    }

    /// Gives away what it held before, to a copy that has it.
    pub(super) fn give_previous(&mut self, seq: ContentSeq) -> Option<Content> {
        let at = self.previous.iter().position(|previous| previous.seq() == seq)?;
        if at + 1 == self.previous.len() && self.shrunk.take().is_some() {
            self.warn_of_replacement();
        }
        Some(self.previous.remove(at))
    }

    /// All that it held before.
    pub(super) fn take_previous(&mut self) -> Vec<Content> {
        if self.shrunk.take().is_some() {
            self.warn_of_replacement();
        }
        std::mem::take(&mut self.previous)
    }

    /// What it held before, but for the latest ones, of which copies are looked for still.
    pub(super) fn take_previous_beyond(&mut self, latest: usize) -> Vec<Content> {
        let beyond = self.previous.len().saturating_sub(latest);
        self.previous.drain(..beyond).collect()
    }

    /// No copy has what it held before. Where only an end of that is gone it holds it still; else returns what is gone.
    pub(super) fn settle_previous(&mut self, ledger: &LossLedger) -> io::Result<Vec<Content>> {
        if let (Some(end), Some(file)) = (self.shrunk, &self.handle)
            && !self.content.was_read()
            && let Some(previous) = self.previous.pop()
        {
            self.content = previous;
            self.shrunk = None;
            self.content.shrink(end, &self.place.path, ledger);
            self.content.observe(file, file.metadata()?.len())?;
        }
        Ok(self.take_previous())
    }

    /// Sinks that stand before their offset by `to` go on there: what is before it is neither sent nor lost.
    pub(super) fn skip_to(&mut self, to: impl Fn(SinkIndex) -> u64) -> io::Result<()> {
        match &self.handle {
            Some(file) => self.content.skip_to(file, to),
            None => Ok(()),
        }
    }

    /// Begins behind the last line that is there now, and says how many bytes are before that.
    pub(super) fn skip_to_end(&mut self) -> io::Result<u64> {
        let Some(file) = &self.handle else { return Ok(0) };
        let end = line_start_before(file, self.content.size())?;
        self.content.skip_to(file, |_| end)?;
        Ok(end)
    }

    /// What it held, once it is followed no more.
    pub(super) fn into_content(self) -> Content {
        self.content
    }

    /// Whether it begins as compressed files do.
    pub(super) fn is_compressed(&self) -> io::Result<bool> {
        let Some(file) = &self.handle else { return Ok(false) };
        let mut head = [0; 16];
        let filled = file.fill(&mut head, 0)?;
        Ok(framing::is_compressed(&head[..filled]))
    }

    /// It is compressed: nothing of it is read.
    pub(super) fn skip_compressed(&mut self) {
        self.state = ReadState::Skipped;
        tracing::info!(
            file = %escaped_path(self.path()),
            "compressed, so not read: exclude it, or let rotation compress later"
        );
    }

    /// It is a copy of what another file held, and goes on from there.
    ///
    /// # Errors
    /// Where it cannot be read; then it is as it was, and `content` is gone.
    pub(super) fn take_over(
        &mut self,
        mut content: Content,
        original: &Path,
        ledger: &LossLedger,
    ) -> io::Result<()> {
        let file = self.handle.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let size = file.metadata()?.len();
        content.move_to_copy(file, size, original, ledger)?;
        self.content = content;
        self.state = ReadState::Active;
        Ok(())
    }

    /// Reads on for one sink into its chunk.
    pub(super) fn read(&mut self, to: &mut ReadContext<'_>) -> io::Result<Progress> {
        let Some(file) = self.handle.as_ref().filter(|_| self.state == ReadState::Active) else {
            return Ok(Progress::AtEnd);
        };
        let mut input = Input { file, key: &self.key, path: &self.place.path, content: &mut self.content };
        input.read(to)
    }
}
