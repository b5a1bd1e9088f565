//! What can wait until a sync is answered: nobody who asked for one should wait for it.

use std::sync::Arc;
use std::time::Instant;

use super::Syncer;
use crate::location::Kind;
use crate::plan::Known;
use crate::stage::Spare;
use crate::volume::on_disk;

/// The copy with which the next release can begin, and when to make a new one.
#[derive(Debug)]
pub(super) struct SpareKeeping {
    /// Files from which on a release gets one.
    least: usize,
    spare: Option<Spare>,
    due: bool,
}

impl SpareKeeping {
    pub(super) fn new(least: usize) -> Self {
        Self { least, spare: None, due: false }
    }

    /// The release that it is a copy of.
    pub(super) fn known(&self) -> Option<Known> {
        self.spare.as_ref().map(|spare| spare.of().clone())
    }

    /// Hands it out: it is used up, whatever becomes of what is made of it. Where there was none, none is missed.
    pub(super) fn take(&mut self) -> Option<Spare> {
        self.due |= self.spare.is_some();
        self.spare.take()
    }

    /// Notes that there is none of the current release.
    pub(super) fn make_another(&mut self) {
        self.due = true;
    }
}

impl Syncer {
    /// Makes a copy of the current release for the next one to begin with. Without it, the next one only takes longer.
    pub async fn keep_spare(&mut self) {
        let due = std::mem::replace(&mut self.spare.due, false);
        // An archive's files are all written anew, so it has no use for one.
        let (true, Kind::Manifest, Some(current)) = (due, self.source.url().kind(), self.published.clone())
        else {
            return;
        };
        let (volume, least) = (Arc::clone(&self.volume), self.spare.least);
        self.spare.spare = on_disk(move || Spare::make(&volume, current, least))
            .await
            .inspect_err(|error| tracing::debug!(%error, "the next release begins with nothing"))
            .unwrap_or_default();
    }

    /// Removes the old releases whose time has come. A failure costs space, not content: it is said, and tried again.
    pub async fn retain(&mut self) {
        for id in self.retained.due(Instant::now()) {
            let (volume, old) = (Arc::clone(&self.volume), id.clone());
            match on_disk(move || volume.remove(&old)).await {
                Ok(()) => {
                    self.retained.removed(&id);
                    tracing::info!(release = %id, "old release removed");
                }
                Err(error) => tracing::warn!(%error, "an old release stays for now"),
            }
        }
        self.metrics.old_releases(self.retained.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sync that fails again and again takes it again and again.
    #[test]
    fn a_copy_that_was_not_there_is_not_made_because_it_was_asked_for() {
        let mut keeping = SpareKeeping::new(1);
        assert!(keeping.take().is_none() && !keeping.due);
        keeping.make_another();
        assert!(keeping.take().is_none() && keeping.due, "what is due stays due");
    }
}
