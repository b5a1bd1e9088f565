//! What a checkpoint knows of files that are not followed now.

use std::collections::HashMap;

use super::FileEntry;
use crate::identity::FileKey;

/// Entries of the checkpoint whose files have not been met yet: not mounted, rotated out of sight, or gone.
#[derive(Debug, Default)]
pub(crate) struct UnclaimedEntries {
    /// By inode: device numbers can change at a reboot.
    entries: HashMap<u64, Vec<FileEntry>>,
}

/// An entry that no file has claimed for this long is forgotten.
const FORGET_AFTER_SECONDS: u64 = 7 * 24 * 3600;
/// More unclaimed entries than this are not kept; those that were not seen for longest go first.
const MAX_UNCLAIMED: usize = 4096;

impl UnclaimedEntries {
    /// Starts with everything that the checkpoint had.
    pub(crate) fn new(entries: Vec<FileEntry>) -> Self {
        let mut unclaimed = Self::default();
        for entry in entries {
            unclaimed.keep(entry);
        }
        unclaimed
    }

    /// Takes the entry of a file that was found.
    pub(crate) fn take(&mut self, key: &FileKey) -> Option<FileEntry> {
        let entries = self.entries.get_mut(&key.inode())?;
        let with_file = |entry: &FileEntry| !entry.gone;
        let exact = entries.iter().position(|entry| with_file(entry) && entry.key == *key);
        let at =
            exact.or_else(|| entries.iter().position(|entry| with_file(entry) && entry.key.may_be(key)))?;
        Some(entries.swap_remove(at))
    }

    /// Takes all entries for which this holds.
    pub(crate) fn take_where(&mut self, mut holds: impl FnMut(&FileEntry) -> bool) -> Vec<FileEntry> {
        let mut taken = Vec::new();
        self.entries.retain(|_, entries| {
            taken.extend(entries.extract_if(.., |entry| holds(entry)));
            !entries.is_empty()
        });
        taken
    }

    /// Keeps the entry of a file that is followed no more but may come back.
    pub(crate) fn keep(&mut self, entry: FileEntry) {
        self.entries.entry(entry.key.inode()).or_default().push(entry);
    }

    /// Takes what is not worth remembering any more at `now`, in seconds since 1970. What `may_be_there` is not forgotten, however long
    /// ago it was seen and however much there is of it.
    pub(crate) fn forget(&mut self, now: u64, may_be_there: impl Fn(&FileEntry) -> bool) -> Vec<FileEntry> {
        let is_old = |entry: &FileEntry| now.saturating_sub(entry.seen) >= FORGET_AFTER_SECONDS;
        let mut forgotten = self.take_where(|entry| is_old(entry) && !may_be_there(entry));
        let mut seen: Vec<_> =
            self.all().filter(|entry| !may_be_there(entry)).map(|entry| entry.seen).collect();
        if seen.len() > MAX_UNCLAIMED {
            seen.sort_unstable_by_key(|seen| std::cmp::Reverse(*seen));
            let oldest = seen[MAX_UNCLAIMED - 1];
            let mut room = MAX_UNCLAIMED;
            forgotten.extend(self.take_where(|entry| {
                if may_be_there(entry) {
                    return false;
                }
                let kept = entry.seen >= oldest && room > 0;
                room -= usize::from(kept);
                !kept
            }));
        }
        forgotten
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &FileEntry> {
        self.entries.values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::tests::entry;
    use super::*;

    #[test]
    fn an_entry_is_claimed_once_and_forgotten_after_a_week() {
        let known = entry(&[]);
        let mut unclaimed = UnclaimedEntries::new(vec![known.clone()]);
        assert_eq!(unclaimed.all().count(), 1);
        assert!(unclaimed.take(&known.key).is_some());
        assert!(unclaimed.take(&known.key).is_none());
        unclaimed.keep(known);
        assert_eq!(unclaimed.forget(1000, |_| false).len(), 0);
        assert_eq!(unclaimed.forget(1000 + FORGET_AFTER_SECONDS, |_| true).len(), 0, "it may be there");
        assert_eq!(unclaimed.forget(1000 + FORGET_AFTER_SECONDS, |_| false).len(), 1);
        assert_eq!(unclaimed.all().count(), 0);
    }

    #[test]
    fn the_longest_unseen_are_forgotten_where_there_are_too_many() {
        let mut unclaimed = UnclaimedEntries::default();
        for seen in 0..MAX_UNCLAIMED as u64 + 10 {
            let mut entry = entry(&[]);
            entry.seen = seen / 4;
            unclaimed.keep(entry);
        }
        assert_eq!(unclaimed.forget(0, |entry| entry.seen < 2).len(), 2, "eight of the oldest may be there");
        assert_eq!(unclaimed.all().filter(|entry| entry.seen < 2).count(), 8);
        assert_eq!(unclaimed.forget(0, |_| false).len(), 8);
        assert_eq!(unclaimed.all().count(), MAX_UNCLAIMED);
    }

    #[test]
    fn what_has_no_file_any_more_is_claimed_by_none() {
        let gone = crate::checkpoint::FileEntry { gone: true, ..entry(&[]) };
        let mut unclaimed = UnclaimedEntries::new(vec![gone.clone()]);
        assert!(unclaimed.take(&gone.key).is_none());
    }
}
