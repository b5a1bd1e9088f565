//! Copies that `copytruncate` makes of a file before it truncates it: what was read of the one is not read again from the
//! other, and what was not is.

use std::io;

use super::Catalog;
use crate::position::SourceSeq;
use crate::source::{Life, Reading, Source};
use crate::turns::{Age, lineage};

impl Catalog {
    /// Whether a new file with a rotated name is a copy of one that is, or was, read under the current name. A copy of one
    /// that is still there is not read before that one is truncated, which tells how far it was read.
    pub(super) fn is_copy(&mut self, copy: &mut Source) -> io::Result<bool> {
        for original in self.sources.values_mut() {
            if original.family == copy.family
                && original.life == Life::Attached
                && lineage(&original.path).1 == Age::Current
                && original.id().is_some()
                && copy.begins_like(original)?
            {
                original.expect_truncation(&self.sinks);
                copy.reading = Reading::PerhapsCopyOf(original.seq);
                return Ok(true);
            }
        }
        // The same while the agent was away: there the truncation is over, and the checkpoint says how far.
        for entry in self.remembered.unclaimed() {
            let (family, age) = lineage(&entry.path);
            if family == copy.family && age == Age::Current && copy.adopt(entry, &self.sinks)? {
                // What was not read is here, and not lost.
                entry.size = 0;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Settles which files are copies: those whose original was truncated meanwhile, or is not going to be. Returns those
    /// that are read from now on.
    pub fn settle_copies(&mut self) -> Vec<SourceSeq> {
        let mut settled = Vec::new();
        let waiting = self.sources.values().filter_map(|copy| match copy.reading {
            Reading::PerhapsCopyOf(original) => Some((copy.seq, original)),
            Reading::Lines | Reading::Compressed => None,
        });
        for (copy, original) in waiting.collect::<Vec<_>>() {
            let past = self.sources.get(&original).and_then(|original| original.past().cloned());
            let alike = match (self.sources.get(&copy), self.sources.get(&original)) {
                (Some(copy), Some(original)) => past.is_some() || copy.begins_like(original).unwrap_or(false),
                _ => false,
            };
            let Some(source) = self.sources.get_mut(&copy) else { continue };
            if past.is_none() && alike && source.quiet() < self.rotate_wait {
                continue;
            }
            let adopted = past.is_some_and(|past| source.adopt(&past, &self.sinks).unwrap_or(false));
            source.reading = Reading::Lines;
            settled.push(copy);
            tracing::debug!(file = %source.path.display(), adopted, "settled whether it is a copy");
            if let Some(original) = self.sources.get_mut(&original) {
                original.forget_past();
            }
        }
        settled
    }
}
