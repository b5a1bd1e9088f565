//! Whose turn it is to be read: within a family of rotated files strictly the oldest first, between families in turn, so
//! that one loud file keeps no other waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::position::SourceSeq;

/// The files that rotation makes of one log: `access.log`, `access.log.1`, `access.log-20261123`, …
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Family(Arc<Path>);

/// How old a member of a family is by its name; less is older.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Age {
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
pub fn lineage(path: &Path) -> (Family, Age) {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = name.trim_end_matches(|mark: char| mark.is_ascii_digit() || matches!(mark, '.' | '-' | '_'));
    let rotation = name[stem.len()..].trim_matches(['.', '-', '_']);
    if stem.is_empty() || rotation.is_empty() {
        return (Family(path.into()), Age::Current);
    }
    let family: PathBuf = path.with_file_name(stem);
    let age = match rotation.parse::<u64>() {
        Ok(number) if rotation.len() < DATE_DIGITS => Age::Numbered(std::cmp::Reverse(number)),
        _ => Age::Dated(rotation.to_owned()),
    };
    (Family(family.into()), age)
}

/// The files that may have something to read for one sink.
#[derive(Debug, Default)]
pub struct Turns {
    waiting: BTreeMap<Family, BTreeSet<SourceSeq>>,
    last: Option<Family>,
}

impl Turns {
    /// A file may have something to read.
    pub fn ask(&mut self, family: &Family, source: SourceSeq) {
        self.waiting.entry(family.clone()).or_default().insert(source);
    }

    /// A file was read to its end.
    pub fn done(&mut self, family: &Family, source: SourceSeq) {
        if let Some(sources) = self.waiting.get_mut(family) {
            sources.remove(&source);
            if sources.is_empty() {
                self.waiting.remove(family);
            }
        }
    }

    /// A file is followed no more, and its family is not at hand.
    pub fn forget(&mut self, source: SourceSeq) {
        self.waiting.retain(|_, sources| {
            sources.remove(&source);
            !sources.is_empty()
        });
    }

    /// The oldest waiting file of the family whose turn it is.
    pub fn take(&mut self) -> Option<SourceSeq> {
        let after = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.waiting.range((after, Bound::Unbounded)).next();
        let (family, sources) = next.or_else(|| self.waiting.first_key_value())?;
        let source = *sources.first()?;
        self.last = Some(family.clone());
        Some(source)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(path: &str) -> Family {
        lineage(Path::new(path)).0
    }

    #[test]
    fn rotated_files_are_one_family_oldest_first() {
        let mut names = ["/l/a.log", "/l/a.log.1", "/l/a.log.10", "/l/a.log-20261122", "/l/a.log-20261123"];
        assert!(names.iter().all(|name| family(name) == family("/l/a.log")));
        names.sort_by_key(|name| lineage(Path::new(name)).1);
        assert_eq!(
            names,
            ["/l/a.log-20261122", "/l/a.log-20261123", "/l/a.log.10", "/l/a.log.1", "/l/a.log"]
        );
        assert_ne!(family("/l/a.log"), family("/m/a.log"));
        assert_ne!(family("/l/a.log"), family("/l/b.log"));
        assert_eq!(lineage(Path::new("/l/2026-11-23")).1, Age::Current, "a name of digits only is a name");
    }

    #[test]
    fn oldest_first_within_a_family_and_families_in_turn() {
        let mut turns = Turns::default();
        let (a, b) = (family("/l/a.log"), family("/l/b.log"));
        turns.ask(&a, SourceSeq(3));
        turns.ask(&a, SourceSeq(1));
        turns.ask(&b, SourceSeq(2));
        let three: Vec<_> = (0..3).filter_map(|_| turns.take()).map(|seq| seq.0).collect();
        assert_eq!(three, [1, 2, 1], "a stays with its oldest until that is done");
        turns.done(&a, SourceSeq(1));
        turns.done(&b, SourceSeq(2));
        assert_eq!(turns.take(), Some(SourceSeq(3)));
        turns.done(&a, SourceSeq(3));
        assert!(turns.is_empty());
        assert_eq!(turns.take(), None);
    }
}
