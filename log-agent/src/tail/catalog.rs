//! All files that are followed, whatever they are called by now: which are new, which were renamed, which are gone.
//!
//! What was known stays known while the names cannot be seen. A file that is followed no more is handed to `orphans`, which enters
//! in the loss ledger what was not delivered of it.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifecycle::escape::escaped_path;

use super::descriptors::Descriptors;
use super::ends::FileEnds;
use super::file::{FileSeq, FileStat, Naming, ReadState, TailedFile};
use super::files::{FileTable, Numbers, Snapshot};
use super::hidden::Hidden;
use super::obstacles::Obstacles;
use super::orphans::Orphans;
use super::queue::ReadQueues;
use super::read::{Progress, ReadContext, ReadOptions, UnterminatedLine};
use super::rotation::{LogFamily, RotationAge};
use super::start::{Start, StartAt};
use crate::checkpoint::{FileEntry, Sent};
use crate::identity::FileKey;
use crate::loss::{LossLedger, LossReason};
use crate::position::{Confirmed, Segment, SinkIndex};
use crate::record::chunk::Chunk;
use crate::watch::{Names, Place};

/// How often names that change are looked at again before they are taken as they are.
const STILL: usize = 16;

/// After so many reads that brought nothing for a chunk, because a line has no end or the user wants none of these lines, the reader looks
/// for what else there is to do.
const READS_IN_VAIN: usize = 8;

/// What the user says about files.
#[derive(Debug, Clone)]
pub(crate) struct CatalogOptions {
    /// How long a file that no process should write to any more has to be quiet before its end is believed.
    pub(crate) rotate_wait: Duration,
    /// Whether a record may be lines of which the last one is known only once the file is quiet.
    pub(crate) joins_lines: bool,
    pub(crate) start_at: StartAt,
    /// Files that were not written to for longer are not read, but for what is added.
    pub(crate) ignore_older: Option<Duration>,
    /// Removed files may hold so much of the disk.
    pub(crate) max_held_bytes: Option<u64>,
    /// So many files may be open at once.
    pub(crate) max_open: usize,
}

/// What a checkpoint says of earlier runs.
#[derive(Debug, Default)]
pub(crate) struct Past {
    pub(crate) entries: Vec<FileEntry>,
    /// There was none: this is the first start.
    pub(crate) is_first_start: bool,
    /// A number that no other process has, for ids.
    pub(crate) run: u64,
}

/// Why reading for a sink has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// The chunk is full, or no file has more.
    AsFarAsItGoes,
    /// Much was read, and nothing of it came into the chunk: others wait.
    ForNow,
    /// A file's content was replaced: a copy of it may be there under another name.
    NeedsScan,
}

/// The files and their order.
#[derive(Debug)]
pub(crate) struct Catalog {
    sinks: Arc<[String]>,
    ledger: LossLedger,
    options: CatalogOptions,
    files: FileTable,
    orphans: Orphans,
    ends: FileEnds,
    descriptors: Descriptors,
    queues: ReadQueues,
    numbers: Numbers,
    start: Start,
    obstacles: Obstacles,
}

impl Catalog {
    /// Knows what the checkpoint knew, and follows nothing yet.
    pub(crate) fn new(sinks: Vec<String>, past: Past, options: CatalogOptions, ledger: LossLedger) -> Self {
        let start = Start::new(options.start_at, options.ignore_older, past.is_first_start);
        let sinks: Arc<[String]> = sinks.into();
        Self {
            queues: ReadQueues::new(sinks.len()),
            files: FileTable::default(),
            orphans: Orphans::new(past.entries, sinks.clone(), ledger.clone()),
            sinks,
            ledger,
            ends: FileEnds::new(options.rotate_wait, options.joins_lines),
            descriptors: Descriptors::new(options.max_open),
            options,
            numbers: Numbers::new(past.run),
            start,
            obstacles: Obstacles::default(),
        }
    }

    /// Takes in what `scan` finds. New files are put in order by age, after those that are known.
    ///
    /// A rotation in the middle of a scan would give files the age of others. So where there are new ones, names are
    /// looked at until they hold still.
    pub(crate) fn update(&mut self, mut scan: impl FnMut() -> Names) {
        // First what is in the files: a copy is made before its original is truncated, so it is among the names that are looked at
        // after that.
        self.look_at_contents();
        let known = self.files.len();
        let mut names = scan();
        for _ in 0..STILL {
            if self.has_all(&names) {
                break;
            }
            let again = scan();
            let still = names.lead_to_the_same_as(&again);
            names = again;
            if still && self.take_in(&names) {
                break;
            }
        }
        if !self.has_all(&names) {
            self.take_in(&names);
        }
        if self.files.len() > known {
            // Lines that were written before a new file was there come before its own.
            self.files.iter_mut().for_each(TailedFile::look_for_more);
        }
        self.settle_names(&names);
        self.obstacles.note_scan(&names, &self.files);
        let hidden = Hidden::of(&names, &self.files);
        self.resolve_copies(&hidden);
        let pending = self.files.pending().map(|file| file.family().log()).collect();
        self.orphans.give_up_unclaimed(&hidden, &pending);
        self.start.end();
        self.ends.note(self.files.iter());
        self.enforce_held_bytes();
        for file in self.files.seqs() {
            self.enqueue(file);
        }
    }

    /// Whether all files of these names are followed.
    fn has_all(&self, names: &Names) -> bool {
        names.files.iter().all(|found| self.files.with_key(&FileKey::of(&found.metadata)).is_some())
    }

    /// Follows those that are not followed; false where one of the names leads to another file by now.
    fn take_in(&mut self, names: &Names) -> bool {
        let mut new: Vec<(LogFamily, RotationAge, &Place, FileKey)> = Vec::new();
        let logs = self.known_logs(names);
        let mut keys = HashSet::new();
        for found in &names.files {
            let key = FileKey::of(&found.metadata);
            if self.files.with_key(&key).is_none() && keys.insert(key) {
                let (family, age) = LogFamily::among(&logs, &found.place.path);
                new.push((family, age, &found.place, key));
            }
        }
        new.sort_by(|one, other| (&one.0, &one.1, &one.2.path).cmp(&(&other.0, &other.1, &other.2.path)));
        let mut all = true;
        for (family, _, place, key) in new {
            match self.follow(family, place, key) {
                Ok(true) => self.obstacles.note_readable(&place.path),
                Ok(false) => all = false,
                Err(error) => self.obstacles.note_file(&place.path, &error),
            }
        }
        all
    }

    /// Names of which a rotated name may be one of.
    fn known_logs(&self, names: &Names) -> HashSet<PathBuf> {
        let found = names.files.iter().map(|found| found.place.path.clone());
        let followed = self.files.iter().map(|file| file.family().log().to_owned());
        let entries = self.orphans.logs().map(Path::to_owned);
        found.chain(followed).chain(entries).collect()
    }

    /// Begins to follow a file; false where its name leads to another one by now.
    fn follow(&mut self, family: LogFamily, place: &Place, key: FileKey) -> io::Result<bool> {
        let handle = self.descriptors.open(&mut self.files, || place.open())?;
        if FileKey::of(&handle.metadata()?) != key {
            return Ok(false);
        }
        let entry = self.orphans.claim(&key);
        let followed = self.follow_open(family, place, handle, entry.as_ref());
        if let (Err(_), Some(entry)) = (&followed, entry) {
            self.orphans.unclaim(entry);
        }
        followed.map(|()| true)
    }

    /// Begins to follow an open file, of which a checkpoint may know something.
    fn follow_open(
        &mut self,
        family: LogFamily,
        place: &Place,
        handle: File,
        entry: Option<&FileEntry>,
    ) -> io::Result<()> {
        let metadata = handle.metadata()?;
        // A name that was seen to change tells where it belongs, whatever it is now.
        let family = match entry {
            Some(entry) => LogFamily::of(entry.log()),
            None => family,
        };
        let content = match entry {
            Some(entry) => self.numbers.restored(entry, &self.sinks),
            None => self.numbers.new_content(self.sinks.len()),
        };
        let seq = self.numbers.file();
        let mut file = TailedFile::new(seq, family, place.clone(), handle, content)?;
        let replaced = self.look_at(&mut file)?;
        file.content_mut().note_arrival();
        match entry {
            // The run before has waited for the truncation that tells, and so does this one.
            Some(entry) if !replaced && entry.pending_copy => {
                file.set_there_at_start();
                file.hold_as_possible_copy();
            }
            Some(entry) if !replaced => file.skip_to(|_| entry.given_up)?,
            Some(_) => {}
            None => {
                if !self.start.is_over() {
                    file.set_there_at_start();
                }
                file.hold_as_possible_copy();
                self.start.skip_what_is_old(&mut file, metadata.modified().ok(), &self.ledger)?;
            }
        }
        let from = file.content().least_confirmed();
        tracing::info!(file = %escaped_path(&place.path), from, "following");
        self.files.put(file);
        self.descriptors.opened(seq);
        Ok(())
    }

    /// Looks into the files whose size has changed, or that hold something else than what was read.
    fn look_at_contents(&mut self) {
        for seq in self.files.seqs() {
            let Some(mut file) = self.files.take(seq) else { continue };
            let looked = file.poll(None).and_then(|changed| {
                let due = file.is_open() && (changed || file.is_unclear());
                if due { self.look_at(&mut file).map(|_replaced| true) } else { Ok(false) }
            });
            match looked {
                // What is left to read may still fail.
                Ok(true) if file.is_read() => self.obstacles.note_readable(file.path()),
                Ok(_) => {}
                Err(error) => {
                    // The size and the time of change are known by now: without this, the next scan would see nothing new.
                    file.suspect();
                    self.queues.remove(seq);
                    self.obstacles.note_file(file.path(), &error);
                }
            }
            self.files.put(file);
        }
    }

    fn look_at(&mut self, file: &mut TailedFile) -> io::Result<bool> {
        file.look(|| self.numbers.new_content(self.sinks.len()))
    }

    /// Notes which names lead to which files, and which files have none.
    fn settle_names(&mut self, names: &Names) {
        self.files.note_names(names);
        self.obstacles.keep(names);
        let mut with_name = HashSet::new();
        for found in &names.files {
            let Some(seq) = self.files.with_key(&FileKey::of(&found.metadata)) else { continue };
            // Of several names, the first counts.
            if with_name.insert(seq)
                && let Some(file) = self.files.get_mut(seq)
            {
                file.named(found.place.clone());
                let stat = FileStat::of(&found.metadata);
                if !file.is_open() && file.poll(Some(stat)).is_ok_and(|changed| changed) {
                    self.queues.enqueue(file);
                }
            }
        }
        for seq in self.files.note_unnamed(names, &with_name) {
            self.let_go(seq, LossReason::Removed);
        }
    }

    /// Follows a file no more: what was not read of it is lost.
    fn let_go(&mut self, seq: FileSeq, reason: LossReason) {
        self.queues.remove(seq);
        if let Some(file) = self.files.remove(seq) {
            self.orphans.let_go(file, reason);
        }
    }

    /// Why the last look at the names saw less than all.
    pub(crate) fn scan_failure(&self) -> Option<&str> {
        self.obstacles.scan_failure()
    }

    /// Why there may be more to ship than is known of the files that are followed.
    pub(crate) fn unseen(&self) -> Option<String> {
        let failure = self.scan_failure().map(str::to_owned);
        failure.or_else(|| {
            let named = self.files.iter().filter(|file| file.naming() == Naming::Named);
            let previous = named.map(|file| (file.path(), file.unconfirmed_previous()));
            let mut waiting = self.orphans.unconfirmed().chain(previous);
            let (path, bytes) = waiting.find(|(_, bytes)| *bytes > 0)?;
            let path = escaped_path(path);
            Some(format!("{bytes} bytes of {path}, which may be in a file that could not be read so far"))
        })
    }

    /// Which file could not be read, if any.
    pub(crate) fn unread(&self) -> Option<String> {
        self.obstacles.unread()
    }

    /// Finds the copies among the files that may be some.
    fn resolve_copies(&mut self, hidden: &Hidden<'_>) {
        for (family, members) in self.files.with_copies() {
            for seq in &members {
                if self.files.get(*seq).is_some_and(|file| file.state() == ReadState::PendingCopy) {
                    self.ensure_open(*seq);
                }
            }
            let mut files = self.files.take_all(&members);
            let Self { orphans, ends, numbers, obstacles, .. } = self;
            orphans.find_copies(&family, &mut files, hidden, ends, numbers, obstacles);
            for file in files {
                self.files.put(file);
            }
        }
    }

    /// Bytes of the disk that removed files hold.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.files.held().map(|(_, bytes)| bytes).sum()
    }

    /// Lets go of removed files where they hold more than they may, the oldest first.
    fn enforce_held_bytes(&mut self) {
        let Some(limit) = self.options.max_held_bytes else { return };
        let mut held: Vec<_> =
            self.files.held().map(|(file, bytes)| (file.content().seq(), file.seq(), bytes)).collect();
        held.sort_unstable();
        let mut sum: u64 = held.iter().map(|(.., bytes)| bytes).sum();
        for (_, seq, bytes) in held {
            if sum <= limit {
                break;
            }
            if let Some(file) = self.files.get(seq) {
                tracing::warn!(file = %escaped_path(file.path()), bytes, limit, "removed files hold more than --max-held-bytes: letting go of the oldest");
            }
            self.let_go(seq, LossReason::Held);
            sum -= bytes;
        }
    }

    /// A file may have something to read.
    fn enqueue(&mut self, seq: FileSeq) {
        let Some(file) = self.files.get(seq) else { return };
        if file.state() == ReadState::Active && (!file.is_read() || file.is_unclear()) {
            self.queues.enqueue(file);
        }
    }

    /// The file at this path was written to.
    pub(crate) fn written(&mut self, path: &Path) {
        let files: Vec<FileSeq> = match self.files.at_path(path) {
            Some(seq) => vec![seq],
            // A name that is not followed: perhaps the new one of a file that was renamed out of the globs.
            None => self.unnamed().collect(),
        };
        for seq in files {
            if let Some(file) = self.files.get(seq)
                && file.state() == ReadState::Active
            {
                self.queues.enqueue(file);
            }
        }
    }

    fn unnamed(&self) -> impl Iterator<Item = FileSeq> {
        let unnamed = self.files.iter().filter(|file| file.naming() == Naming::Unnamed);
        unnamed.map(TailedFile::seq)
    }

    /// Asks for the sizes of the files of which no event speaks: those without a name, and those that wait to be quiet. True where a
    /// look at all names would tell whether a file is a copy.
    pub(crate) fn poll_quiet(&mut self) -> bool {
        for seq in self.files.seqs() {
            let file = self.files.get_mut(seq).filter(|file| self.ends.awaits_quiet(file));
            if file.is_some_and(|file| file.poll(None).is_ok()) {
                self.enqueue(seq);
            }
        }
        self.close_drained();
        if self.files.pending().any(|file| self.ends.is_quiet(file)) {
            return true;
        }
        let families: HashSet<LogFamily> = self.files.pending().map(|file| file.family().clone()).collect();
        let mut originals = self.files.iter_mut().filter(|file| families.contains(file.family()));
        originals.any(|file| file.poll(None).is_ok() && file.last_size() < file.content().size())
    }

    /// Whether anything has been added to any file since the last look; what has is read next.
    pub(crate) fn has_grown(&mut self) -> bool {
        let mut grown = false;
        for seq in self.files.seqs() {
            let Some(file) = self.files.get_mut(seq) else { continue };
            let read = file.is_open() && file.state() == ReadState::Active;
            if read && file.poll(None).is_ok() && file.last_size() != file.content().size() {
                grown = true;
                self.enqueue(seq);
            }
        }
        grown
    }

    /// Whether the end of any file is waited for.
    pub(crate) fn any_awaits_quiet(&self) -> bool {
        self.files.iter().any(|file| self.ends.awaits_quiet(file))
    }

    /// Whether any file is not read yet because it may be a copy.
    pub(crate) fn any_pending(&self) -> bool {
        self.files.pending().next().is_some()
    }

    /// Whether no file waits to be read, for any sink.
    pub(crate) fn is_idle(&self) -> bool {
        self.queues.are_empty()
    }

    /// Reads for a sink as much as its chunk takes. `last_lines` says what unfinished ones are, where that does not depend on the
    /// file.
    pub(crate) fn fill(
        &mut self,
        sink: SinkIndex,
        last_lines: Option<UnterminatedLine>,
        options: &ReadOptions,
        chunk: &mut Chunk,
        buffer: &mut Vec<u8>,
    ) -> Filled {
        let (mut len, mut in_vain) = (chunk.len(), 0);
        while !chunk.is_full()
            && let Some(seq) = self.queues.next(sink)
        {
            let opened = self.ensure_open(seq);
            let Some(file) = self.files.get_mut(seq).filter(|_| opened) else {
                self.queues.done(sink, seq);
                continue;
            };
            let unterminated = last_lines.unwrap_or_else(|| self.ends.unterminated(file));
            let mut to = ReadContext { sink, unterminated, chunk, options, ledger: &self.ledger, buffer };
            match file.read(&mut to) {
                Ok(Progress::More) => {
                    in_vain = if chunk.len() > len { 0 } else { in_vain + 1 };
                    len = chunk.len();
                    if in_vain == READS_IN_VAIN {
                        return Filled::ForNow;
                    }
                }
                Ok(Progress::AtEnd) => {
                    self.obstacles.note_readable(file.path());
                    self.queues.done(sink, seq);
                }
                Ok(Progress::Replaced) => {
                    file.suspect();
                    return Filled::NeedsScan;
                }
                Ok(Progress::Compressed) => {
                    file.skip_compressed();
                    self.queues.remove(seq);
                }
                Err(error) => {
                    self.obstacles.note_file(file.path(), &error);
                    self.queues.done(sink, seq);
                }
            }
        }
        Filled::AsFarAsItGoes
    }

    /// Opens a file again that was closed while descriptors were short; false where it cannot be had now.
    fn ensure_open(&mut self, seq: FileSeq) -> bool {
        let Some(mut file) = self.files.take(seq) else { return false };
        if !file.is_open() {
            match self.descriptors.open(&mut self.files, || file.open()) {
                Ok(()) => self.descriptors.opened(seq),
                Err(error) => self.obstacles.note_file(file.path(), &error),
            }
        }
        let is_open = file.is_open();
        self.files.put(file);
        is_open
    }

    /// Notes what a sink has confirmed.
    pub(crate) fn confirm(&mut self, sink: SinkIndex, segment: &Segment) {
        if !self.files.confirm(sink, segment) {
            self.orphans.confirm(sink, segment);
        }
    }

    /// Whether a restart would know all contents again that the chunk has records of.
    pub(crate) fn is_durable(&mut self, chunk: &Chunk) -> bool {
        chunk.parts().iter().all(|part| {
            self.files
                .content(part.segment.content)
                .is_none_or(|(_, content)| content.is_durable(part.segment.end))
        })
    }

    /// How far contents were read for this chunk, of those that the checkpoint on the disk does not know so far.
    pub(crate) fn uncovered(&mut self, chunk: &Chunk) -> Vec<Sent> {
        let mut uncovered = Vec::new();
        for segment in chunk.parts().iter().map(|part| &part.segment) {
            let content = self.files.content(segment.content);
            if let Some(id) = content.and_then(|(_, content)| content.uncovered(segment.end)) {
                uncovered.push(Sent { id, end: Confirmed::skipped_to(segment.end.0, segment.before_end) });
            }
        }
        uncovered
    }

    /// Gives the records of a chunk that is sent all the same ids that are this process's alone: after a crash, others may get those that
    /// they have, because the state directory does not say how far these were given.
    pub(crate) fn disown(&mut self, chunk: &mut Chunk) {
        let Self { files, numbers, .. } = self;
        chunk.rename(|part| {
            let (_, content) = files.content(part.segment.content)?;
            (!content.is_covered(part.segment.end)).then(|| numbers.of_process(part.origin.id))
        });
    }

    /// What a checkpoint has to say now, and what is known to it then.
    pub(crate) fn entries(&mut self) -> (Vec<FileEntry>, Snapshot) {
        let (mut entries, snapshot) = self.files.entries(&self.sinks);
        entries.extend(self.orphans.entries());
        (entries, snapshot)
    }

    /// The checkpoint that was made with this snapshot is on the disk.
    pub(crate) fn note_durable(&mut self, snapshot: &Snapshot) {
        for (content, covered) in snapshot {
            if let Some((_, content)) = self.files.content(*content) {
                content.note_durable(*covered);
            }
        }
    }

    /// Closes files without a name that are quiet and confirmed by every sink.
    pub(crate) fn close_drained(&mut self) {
        let over = self.files.iter().filter(|file| self.ends.is_over(file));
        for seq in over.map(TailedFile::seq).collect::<Vec<_>>() {
            self.queues.remove(seq);
            let Some(file) = self.files.remove(seq) else { continue };
            let (path, bytes) = (file.path().to_owned(), file.content().size());
            self.orphans.let_go_of_drained(file);
            // Logged only when it is true: the disk has its space back.
            tracing::info!(file = %escaped_path(&path), bytes, "drained and closed");
        }
    }

    /// The agent ends: what no next start can ship is entered, and not among the entries of its last checkpoint. Returns how many
    /// bytes that is.
    pub(crate) fn give_up_unshippable(&mut self) -> u64 {
        let owes = |file: &FileSeq| self.files.get(*file).is_some_and(TailedFile::owes);
        let unnamed: Vec<FileSeq> = self.unnamed().filter(owes).collect();
        let files = unnamed.into_iter().filter_map(|seq| self.files.remove(seq));
        let bytes: u64 = files.map(|file| self.orphans.give_up(&file)).sum();
        bytes + self.orphans.give_up_leaving()
    }

    /// How many files there are, how long they are together, and how much is given up of others.
    pub(crate) fn extent(&self) -> (usize, u64, u64) {
        let size = self.files.iter().map(|file| file.content().size()).sum();
        (self.files.len(), size, self.orphans.given_up())
    }

    /// All files, oldest first.
    pub(crate) fn files(&self) -> impl Iterator<Item = &TailedFile> {
        self.files.iter()
    }
}
