//! Whose turn it is to be read: within a family of rotated files strictly the oldest first, between families in turn, so
//! that one loud file keeps no other waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::position::FileSeq;

/// The files that rotation makes of one log: `access.log`, `access.log.1`, `access.log-20261123`, …
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogFamily(Arc<Path>);

/// How old a member of a family is by its name; less is older.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RotationAge {
    /// `access.log-20261123`: a date, or a time stamp.
    Dated(String),
    /// `access.log.2` is older than `access.log.1`.
    Numbered(std::cmp::Reverse<u64>),
    /// `access.log`: the one that is written to.
    Current,
}

/// Digits from this many on are a date or a time stamp, fewer are a count of rotations.
const DATE_DIGITS: usize = 6;

/// The family of a path and its age in it, by the custom of rotators: what follows the last name that is not only
/// digits is the rotation.
pub(crate) fn rotation_of(path: &Path) -> (LogFamily, RotationAge) {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = name.trim_end_matches(|mark: char| mark.is_ascii_digit() || matches!(mark, '.' | '-' | '_'));
    let rotation = name[stem.len()..].trim_matches(['.', '-', '_']);
    if stem.is_empty() || rotation.is_empty() {
        return (LogFamily(path.into()), RotationAge::Current);
    }
    let family: PathBuf = path.with_file_name(stem);
    let age = match rotation.parse::<u64>() {
        Ok(number) if rotation.len() < DATE_DIGITS => RotationAge::Numbered(std::cmp::Reverse(number)),
        _ => RotationAge::Dated(rotation.to_owned()),
    };
    (LogFamily(family.into()), age)
}

/// The files that may have something to read for one sink.
#[derive(Debug, Default)]
pub(crate) struct ReadQueue {
    waiting: BTreeMap<LogFamily, BTreeSet<FileSeq>>,
    last: Option<LogFamily>,
}

impl ReadQueue {
    /// A file may have something to read.
    pub(crate) fn enqueue(&mut self, family: &LogFamily, source: FileSeq) {
        self.waiting.entry(family.clone()).or_default().insert(source);
    }

    /// A file was read to its end.
    pub(crate) fn remove(&mut self, family: &LogFamily, source: FileSeq) {
        if let Some(sources) = self.waiting.get_mut(family) {
            sources.remove(&source);
            if sources.is_empty() {
                self.waiting.remove(family);
            }
        }
    }

    /// A file is followed no more, and its family is not at hand.
    pub(crate) fn remove_file(&mut self, source: FileSeq) {
        self.waiting.retain(|_, sources| {
            sources.remove(&source);
            !sources.is_empty()
        });
    }

    /// The oldest waiting file of the family whose turn it is.
    pub(crate) fn next(&mut self) -> Option<FileSeq> {
        let after = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.waiting.range((after, Bound::Unbounded)).next();
        let (family, sources) = next.or_else(|| self.waiting.first_key_value())?;
        let source = *sources.first()?;
        self.last = Some(family.clone());
        Some(source)
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(path: &str) -> LogFamily {
        rotation_of(Path::new(path)).0
    }

    #[test]
    fn rotated_files_are_one_family_oldest_first() {
        let mut names = ["/l/a.log", "/l/a.log.1", "/l/a.log.10", "/l/a.log-20261122", "/l/a.log-20261123"];
        assert!(names.iter().all(|name| family(name) == family("/l/a.log")));
        names.sort_by_key(|name| rotation_of(Path::new(name)).1);
        assert_eq!(
            names,
            ["/l/a.log-20261122", "/l/a.log-20261123", "/l/a.log.10", "/l/a.log.1", "/l/a.log"]
        );
        assert_ne!(family("/l/a.log"), family("/m/a.log"));
        assert_ne!(family("/l/a.log"), family("/l/b.log"));
        assert_eq!(
            rotation_of(Path::new("/l/2026-11-23")).1,
            RotationAge::Current,
            "a name of digits only is a name"
        );
    }

    #[test]
    fn oldest_first_within_a_family_and_families_in_turn() {
        let mut queue = ReadQueue::default();
        let (a, b) = (family("/l/a.log"), family("/l/b.log"));
        queue.enqueue(&a, FileSeq(3));
        queue.enqueue(&a, FileSeq(1));
        queue.enqueue(&b, FileSeq(2));
        let three: Vec<_> = (0..3).filter_map(|_| queue.next()).map(|seq| seq.0).collect();
        assert_eq!(three, [1, 2, 1], "a stays with its oldest until that is done");
        queue.remove(&a, FileSeq(1));
        queue.remove(&b, FileSeq(2));
        assert_eq!(queue.next(), Some(FileSeq(3)));
        queue.remove(&a, FileSeq(3));
        assert!(queue.is_empty());
        assert_eq!(queue.next(), None);
    }
}
