//! Copies that `copytruncate` makes of a file before it truncates it: what was read of the one is not read again from the
//! other, and what was not is.

use std::collections::BTreeMap;
use std::io;

use super::Catalog;
use crate::position::FileSeq;
use crate::tail::file::Match;
use crate::tail::queue::{RotationAge, rotation_of};
use crate::tail::{Naming, ReadState, TailedFile};

/// What is known of the names when copies are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// All were looked at right before: of a file that was truncated, the copy is among those that wait.
    AllKnown,
    /// There may be new ones.
    SomeKnown,
}

impl Catalog {
    /// Whether a new file with a rotated name is a copy of one that is, or was, read under the current name. A copy of one
    /// that is still there is not read before that one is truncated, which tells how far it was read.
    pub(super) fn is_copy(&mut self, copy: &mut TailedFile) -> io::Result<bool> {
        for original in self.sources.values_mut() {
            let candidate = original.family == copy.family
                && original.life == Naming::Named
                && rotation_of(&original.path).1 == RotationAge::Current;
            if !candidate {
                continue;
            }
            let mut alike = original.id().is_some() && copy.begins_like(original)?;
            if !alike && copy.is_beside(original)? {
                // A copy of what is there now and was not read yet. What was read is gone, and older copies are known.
                original.notice_truncation(&self.ledger)?;
                alike = true;
            }
            if alike {
                original.expect_truncation();
                copy.reading = ReadState::PendingCopy(original.seq);
                return Ok(true);
            }
        }
        // The same while the agent was away: there the truncation is over, and the checkpoint says how far.
        for entry in self.unclaimed.unclaimed() {
            let (family, age) = rotation_of(&entry.path);
            if family == copy.family && age == RotationAge::Current && copy.adopt(entry, &self.sinks)? {
                // What was not read is here, and not lost.
                entry.size = 0;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Settles which files are copies: those whose original was truncated meanwhile, or is not going to be. Returns those
    /// that are read from now on.
    pub(crate) fn settle_copies(&mut self) -> Vec<FileSeq> {
        self.settle(Names::SomeKnown)
    }

    /// The same; where all names are known, that a file was truncated may be concluded.
    pub(super) fn settle(&mut self, names: Names) -> Vec<FileSeq> {
        let mut waiting = BTreeMap::<FileSeq, Vec<FileSeq>>::new();
        for copy in self.sources.values() {
            if let ReadState::PendingCopy(original) = copy.reading {
                waiting.entry(original).or_default().push(copy.seq);
            }
        }
        // A copy that was removed while it was empty waits no more, and has nothing.
        for source in self.sources.values_mut().filter(|source| !waiting.contains_key(&source.seq)) {
            source.lose_past(&self.ledger);
        }
        let waiting = waiting.into_iter();
        waiting.flat_map(|(original, copies)| self.settle_copies_of(original, &copies, names)).collect()
    }

    fn settle_copies_of(&mut self, original: FileSeq, copies: &[FileSeq], names: Names) -> Vec<FileSeq> {
        let mut settled = Vec::new();
        // Taken out for as long, so that there is the one and the other.
        let mut gone = self.sources.remove(&original);
        if let Some(original) = &mut gone {
            if names == Names::AllKnown
                && !original.has_past()
                && let Err(error) = original.notice_truncation(&self.ledger)
            {
                tracing::warn!(file = %original.path.display(), %error, "cannot look whether it was truncated");
            }
            settled.extend(self.copy_that_goes_on(original, copies));
        }
        let known = !settled.is_empty();
        let past = gone.as_ref().is_some_and(TailedFile::has_past);
        for seq in copies.iter().filter(|seq| !settled.contains(seq)).copied().collect::<Vec<_>>() {
            let Some(copy) = self.sources.get_mut(&seq) else { continue };
            let alike = gone.as_ref().is_some_and(|original| copy.begins_like(original).unwrap_or(false));
            // After a truncation, what is not the copy of what was there is none.
            let over = || {
                let replaced = gone.as_ref().is_some_and(|original| original.is_replaced().unwrap_or(false));
                copy.quiet() >= self.rotate_wait && !replaced
            };
            if past || !alike || over() {
                copy.reading = ReadState::Active;
                settled.push(seq);
            }
        }
        tracing::debug!(settled = settled.len(), known, "settled which files are copies");
        if let Some(mut source) = gone {
            if past || settled.len() == copies.len() {
                source.forget_past();
            }
            self.sources.insert(original, source);
        }
        settled
    }

    /// Which of these is the copy of what the original was before its truncation.
    fn copy_that_goes_on(&mut self, original: &mut TailedFile, copies: &[FileSeq]) -> Option<FileSeq> {
        // One that ends before what was read has less to prove it, and is believed where no other can be meant.
        let filled = |seq: &&FileSeq| self.sources.get(*seq).is_some_and(|copy| !copy.is_empty());
        let ways: &[Match] = if copies.iter().filter(filled).count() == 1 {
            &[Match::Full, Match::Prefix]
        } else {
            &[Match::Full]
        };
        for likeness in ways {
            for seq in copies {
                if let Some(copy) = self.sources.get_mut(seq)
                    && copy.take_over(original, *likeness, &self.ledger).unwrap_or(false)
                {
                    return Some(*seq);
                }
            }
        }
        None
    }
}
