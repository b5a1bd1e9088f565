//! What earlier releases had and the present one has not: assets that a page loaded just before the swap still asks for.
//!
//! Never pages: who asks for a page wants what is true now. Nothing is held in memory for them; they are sent from the
//! releases that they belong to, which their publisher keeps for a while. When their time is over they are let go of, and
//! with them the releases' directories and open files.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::content::release::ReleaseId;
use crate::content::representation::Representation;
use parking_lot::Mutex;

/// Of more releases than this within the time nothing is kept: pages that are that far behind are rare.
const RELEASES: usize = 16;

/// Files by path.
pub(crate) type Files = HashMap<Arc<str>, Arc<Representation>>;

/// Files of earlier releases, for as long as they may still be asked for.
#[derive(Debug, Default)]
pub(crate) struct StaleAssets(Mutex<Vec<GoneRelease>>);

#[derive(Debug)]
struct GoneRelease {
    release: ReleaseId,
    until: Instant,
    files: Files,
}

impl StaleAssets {
    /// What there is when a release is replaced: what it left itself, and of what others had left before it all that
    /// `present` does not say the next one has.
    #[must_use]
    pub(crate) fn carry_over(
        &self,
        release: &ReleaseId,
        left: Files,
        patience: Duration,
        present: impl Fn(&str) -> bool,
    ) -> Self {
        let now = Instant::now();
        // The newest first: of several versions the last one is the likeliest to be meant.
        let newest = GoneRelease { release: release.clone(), until: now + patience, files: left };
        let before = self.0.lock();
        let earlier = before.iter().map(|GoneRelease { release, until, files }| {
            let files = files.iter().filter(|(path, _)| !present(path));
            let files = files.map(|(path, file)| (Arc::clone(path), Arc::clone(file))).collect();
            GoneRelease { release: release.clone(), until: *until, files }
        });
        let all = std::iter::once(newest).chain(earlier);
        let kept = all.filter(|leftover| leftover.until > now && !leftover.files.is_empty());
        Self(Mutex::new(kept.take(RELEASES).collect()))
    }

    /// The file at a path, and the release that had it last.
    pub(crate) fn find(&self, path: &str) -> Option<(ReleaseId, Arc<Representation>)> {
        let now = Instant::now();
        let stale_assets = self.0.lock();
        let mut fresh = stale_assets.iter().filter(|leftover| leftover.until > now);
        fresh.find_map(|leftover| Some((leftover.release.clone(), Arc::clone(leftover.files.get(path)?))))
    }

    /// Lets go of those whose time is over.
    pub(crate) fn expire(&self) {
        let now = Instant::now();
        self.0.lock().retain(|leftover| leftover.until > now);
    }
}
