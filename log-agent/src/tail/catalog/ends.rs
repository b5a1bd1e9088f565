//! When a file is over: nobody writes to it any more, and every sink has all of it.

use super::Catalog;
use crate::position::FileSeq;
use crate::tail::{Naming, ReadState, TailedFile, UnterminatedLine};

impl Catalog {
    /// Files whose end is not known yet though their time is over: rotated away with an unfinished line, or without a
    /// name. They are looked at more often, for the little while until they are quiet.
    pub(crate) fn awaits_quiet(&self, source: &TailedFile) -> bool {
        if matches!(source.reading, ReadState::PendingCopy(_)) {
            return true;
        }
        match source.life {
            Naming::Unnamed => true,
            Naming::Named => {
                self.is_superseded(source) && (0..self.sinks.len()).any(|sink| !source.is_read(sink))
            }
        }
    }

    /// Whether any file is not read yet because it may be a copy.
    pub(crate) fn any_unsettled(&self) -> bool {
        self.sources.values().any(|source| matches!(source.reading, ReadState::PendingCopy(_)))
    }

    /// Whether any file holds more than what was read of it.
    pub(crate) fn any_unread(&self) -> bool {
        self.sources.values().any(|source| (0..self.sinks.len()).any(|sink| !source.is_read(sink)))
    }

    /// Whether any file is.
    pub(crate) fn any_ending(&self) -> bool {
        self.sources.values().any(|source| self.awaits_quiet(source))
    }

    /// What an unfinished last line of this file is.
    pub(crate) fn last_line(&self, seq: FileSeq) -> UnterminatedLine {
        match self.sources.get(&seq) {
            Some(source)
                if (source.life == Naming::Unnamed || self.is_superseded(source))
                    && source.quiet() >= self.rotate_wait =>
            {
                UnterminatedLine::Emit
            }
            _ => UnterminatedLine::Hold,
        }
    }

    fn is_superseded(&self, source: &TailedFile) -> bool {
        self.newest.get(&source.family).is_some_and(|newest| *newest > source.seq)
    }

    /// Closes files without a name that are quiet and confirmed by every sink.
    pub(crate) fn close_drained(&mut self) {
        let over = |source: &TailedFile| {
            source.life == Naming::Unnamed && source.is_drained() && source.quiet() >= self.rotate_wait
        };
        let over: Vec<_> =
            self.sources.values().filter(|source| over(source)).map(|source| source.seq).collect();
        for source in over.into_iter().filter_map(|seq| self.sources.remove(&seq)) {
            self.by_key.remove(&source.key);
            self.by_path.retain(|_, seq| *seq != source.seq);
            if self.newest.get(&source.family) == Some(&source.seq) {
                self.newest.remove(&source.family);
            }
            // It may be renamed back into sight; without a single name left it cannot.
            if !source.is_unlinked()
                && let Some(entry) = source.entry(&self.sinks)
            {
                self.unclaimed.keep(entry);
            }
            let (path, bytes) = (source.path.clone(), source.size());
            drop(source);
            // Said only when it is true: the disk has its space back.
            tracing::info!(file = %path.display(), bytes, "drained and closed");
        }
    }
}
