//! Whose turn it is to be read: within a family of rotated files strictly the oldest content first, between families in turn,
//! so that one loud file keeps no other waiting.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use super::file::{FileSeq, TailedFile};
use super::rotation::LogFamily;
use crate::position::{ContentSeq, SinkIndex};

/// The files that may have something to read for one sink.
#[derive(Debug, Default)]
struct ReadQueue {
    waiting: BTreeMap<LogFamily, BTreeMap<ContentSeq, FileSeq>>,
    /// Under which content each file waits.
    places: HashMap<FileSeq, (LogFamily, ContentSeq)>,
    last: Option<LogFamily>,
}

impl ReadQueue {
    /// A file may have something to read, of this content.
    fn enqueue(&mut self, family: &LogFamily, content: ContentSeq, file: FileSeq) {
        match self.places.get(&file) {
            Some((_, known)) if *known == content => return,
            Some(_) => self.remove(file),
            None => {}
        }
        self.waiting.entry(family.clone()).or_default().insert(content, file);
        self.places.insert(file, (family.clone(), content));
    }

    /// A file was read to its end, or is followed no more.
    fn remove(&mut self, file: FileSeq) {
        let Some((family, content)) = self.places.remove(&file) else { return };
        if let Some(files) = self.waiting.get_mut(&family) {
            // A copy that has taken the content over may wait in this place.
            if files.get(&content) == Some(&file) {
                files.remove(&content);
            }
            if files.is_empty() {
                self.waiting.remove(&family);
            }
        }
    }

    /// The file with the oldest content, of the family whose turn it is.
    fn next(&mut self) -> Option<FileSeq> {
        let after = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.waiting.range((after, Bound::Unbounded)).next();
        let (family, files) = next.or_else(|| self.waiting.first_key_value())?;
        let (_, file) = files.first_key_value()?;
        self.last = Some(family.clone());
        Some(*file)
    }

    /// Whether no file waits.
    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Those of all sinks.
#[derive(Debug)]
pub(super) struct ReadQueues(Vec<ReadQueue>);

impl ReadQueues {
    pub(super) fn new(sinks: usize) -> Self {
        Self((0..sinks).map(|_| ReadQueue::default()).collect())
    }

    /// A file may have something to read, for every sink.
    pub(super) fn enqueue(&mut self, file: &TailedFile) {
        self.0.iter_mut().for_each(|queue| queue.enqueue(file.family(), file.content().seq(), file.seq()));
    }

    /// A file is followed no more.
    pub(super) fn remove(&mut self, file: FileSeq) {
        self.0.iter_mut().for_each(|queue| queue.remove(file));
    }

    /// The file that is read next for a sink.
    pub(super) fn next(&mut self, sink: SinkIndex) -> Option<FileSeq> {
        self.0.get_mut(sink.get())?.next()
    }

    /// A file was read to its end for a sink.
    pub(super) fn done(&mut self, sink: SinkIndex, file: FileSeq) {
        if let Some(queue) = self.0.get_mut(sink.get()) {
            queue.remove(file);
        }
    }

    /// Whether no file waits, for any sink.
    pub(super) fn are_empty(&self) -> bool {
        self.0.iter().all(ReadQueue::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn oldest_first_within_a_family_and_families_in_turn() {
        let mut queue = ReadQueue::default();
        let family = |path: &str| LogFamily::of(Path::new(path));
        let (a, b) = (family("/l/a.log"), family("/l/b.log"));
        queue.enqueue(&a, ContentSeq(3), FileSeq(13));
        queue.enqueue(&a, ContentSeq(1), FileSeq(11));
        queue.enqueue(&b, ContentSeq(2), FileSeq(12));
        let three: Vec<_> = (0..3).filter_map(|_| queue.next()).map(|file| file.0).collect();
        assert_eq!(three, [11, 12, 11], "a stays with its oldest until that is done");
        queue.remove(FileSeq(11));
        queue.remove(FileSeq(12));
        assert_eq!(queue.next(), Some(FileSeq(13)));
        queue.enqueue(&a, ContentSeq(9), FileSeq(13));
        queue.enqueue(&a, ContentSeq(8), FileSeq(14));
        assert_eq!(
            queue.next(),
            Some(FileSeq(14)),
            "a file's new content is younger than its old one in a copy"
        );
        queue.remove(FileSeq(13));
        queue.remove(FileSeq(14));
        assert!(queue.is_empty());
        assert_eq!(queue.next(), None);
    }
}
