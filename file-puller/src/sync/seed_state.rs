//! The seed tree with which the next release can begin, and when to make a new one.

use crate::content::ReleaseId;
use crate::store::{CachedManifest, SeedTree, Volume};

/// What is known of the seed tree.
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
    pub(super) fn base(&self) -> Option<&CachedManifest> {
        self.tree.as_ref().map(SeedTree::base)
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

    /// Makes a copy of the current release, if one is due. Without it, the next release only takes longer.
    pub(super) fn prepare(&mut self, volume: &Volume, current: Option<&ReleaseId>) {
        let (true, Some(current)) = (std::mem::replace(&mut self.due, false), current) else { return };
        self.tree = SeedTree::make(volume, current.clone(), self.least)
            .inspect_err(|error| tracing::debug!(%error, "the next release is staged from scratch"))
            .unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sync that fails again and again takes it again and again.
    #[test]
    fn a_copy_that_was_not_there_is_not_made_because_it_was_asked_for() {
        let mut seed = SeedState::new(1);
        assert!(seed.take().is_none() && !seed.due);
        seed.invalidate();
        assert!(seed.take().is_none() && seed.due, "what is due stays due");
    }
}
