//! What can wait until a sync is answered: nobody who asked for one should wait for it.

use std::sync::Arc;
use std::time::Instant;

use lifecycle::blocking;

use super::Engine;
use crate::source::Kind;
use crate::store::{CachedManifest, SeedTree, remove_release};

/// The copy with which the next release can begin, and when to make a new one.
#[derive(Debug)]
pub(super) struct SeedState {
    /// Files from which on a release gets one.
    least: usize,
    tree: Option<SeedTree>,
    due: bool,
}

impl SeedState {
    pub(super) fn new(least: usize) -> Self {
        Self { least, tree: None, due: false }
    }

    /// The release that it is a copy of.
    pub(super) fn base(&self) -> Option<CachedManifest> {
        self.tree.as_ref().map(|tree| tree.base().clone())
    }

    /// Hands it out: it is used up, whatever becomes of what is made of it. Where there was none, none is missed.
    pub(super) fn take(&mut self) -> Option<SeedTree> {
        self.due |= self.tree.is_some();
        self.tree.take()
    }

    /// Notes that there is none of the current release.
    pub(super) fn invalidate(&mut self) {
        self.due = true;
    }
}

impl Engine {
    /// Makes a copy of the current release for the next one to begin with. Without it, the next one only takes longer.
    pub(crate) async fn prepare_seed(&mut self) {
        let due = std::mem::replace(&mut self.seed.due, false);
        // An archive's files are all written anew, so it has no use for one.
        let (true, Kind::Manifest, Some(current)) = (due, self.source.url().kind(), self.current.clone())
        else {
            return;
        };
        let (volume, least) = (Arc::clone(&self.volume), self.seed.least);
        self.seed.tree = blocking(move || SeedTree::make(&volume, current, least))
            .await
            .inspect_err(|error| tracing::debug!(%error, "the next release begins with nothing"))
            .unwrap_or_default();
    }

    /// Removes the old releases whose time has come. A failure costs space, not content: it is said, and tried again.
    pub(crate) async fn retain(&mut self) {
        for id in self.retention.expired(Instant::now()) {
            let (volume, old) = (Arc::clone(&self.volume), id.clone());
            match blocking(move || remove_release(&volume, &old)).await {
                Ok(()) => {
                    self.retention.forget(&id);
                    tracing::info!(release = %id, "old release removed");
                }
                Err(error) => tracing::warn!(%error, "an old release stays for now"),
            }
        }
        self.metrics.old_releases(self.retention.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sync that fails again and again takes it again and again.
    #[test]
    fn a_copy_that_was_not_there_is_not_made_because_it_was_asked_for() {
        let mut keeping = SeedState::new(1);
        assert!(keeping.take().is_none() && !keeping.due);
        keeping.invalidate();
        assert!(keeping.take().is_none() && keeping.due, "what is due stays due");
    }
}
