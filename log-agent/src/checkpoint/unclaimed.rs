//! What a checkpoint knows of files that are not followed now.

use super::FileEntry;
use crate::identity::FileKey;

/// Entries of the checkpoint whose files have not been met yet: not mounted, rotated out of sight, or gone.
#[derive(Debug, Default)]
pub(crate) struct UnclaimedEntries {
    entries: Vec<FileEntry>,
}

/// An entry that nobody has claimed for this long is forgotten.
const FORGET_AFTER_SECONDS: u64 = 7 * 24 * 3600;
/// More unclaimed entries than this are not kept, the longest unseen go first.
const MAX_REMEMBERED: usize = 4096;

impl UnclaimedEntries {
    /// Starts with everything that the checkpoint had.
    pub(crate) fn new(entries: Vec<FileEntry>) -> Self {
        Self { entries }
    }

    /// Takes the entry of a file that was found.
    pub(crate) fn take(&mut self, key: &FileKey) -> Option<FileEntry> {
        let exact = self.entries.iter().position(|entry| entry.key == *key);
        let at = exact.or_else(|| self.entries.iter().position(|entry| entry.key.may_be(key)))?;
        Some(self.entries.swap_remove(at))
    }

    /// Those that nobody has claimed yet.
    pub(crate) fn unclaimed(&mut self) -> impl Iterator<Item = &mut FileEntry> {
        self.entries.iter_mut()
    }

    /// Keeps the entry of a file that is followed no more but may come back.
    pub(crate) fn keep(&mut self, entry: FileEntry) {
        self.entries.push(entry);
    }

    /// What is still worth remembering at `now`, in seconds since 1970.
    pub(crate) fn entries(&mut self, now: u64) -> &[FileEntry] {
        self.entries.retain(|entry| now.saturating_sub(entry.seen) < FORGET_AFTER_SECONDS);
        if self.entries.len() > MAX_REMEMBERED {
            self.entries.sort_by_key(|entry| std::cmp::Reverse(entry.seen));
            self.entries.truncate(MAX_REMEMBERED);
        }
        &self.entries
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
        assert_eq!(unclaimed.entries(1000).len(), 1);
        assert!(unclaimed.take(&known.key).is_some());
        assert!(unclaimed.take(&known.key).is_none());
        unclaimed.keep(known);
        assert_eq!(unclaimed.entries(1000 + FORGET_AFTER_SECONDS).len(), 0);
    }
}
