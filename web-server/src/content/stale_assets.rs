//! What earlier releases had and the present one has not: assets that a page loaded just before the swap still asks for.
//!
//! Never pages: a client that asks for a page wants what is true now. No body is held in memory for them; they are sent from
//! the releases that they belong to, which their publisher keeps for a while. When their time is over they are let go of, and
//! with them the releases' directories and open files. The same happens where a new release needs the memory of their index.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::entry::Entry;
use super::index::{Index, LoadOptions, let_go, represent};
use super::large_file::{LargeFile, OpenFiles};
use super::media_type;
use super::release::ReleaseId;
use super::representation::{Representation, Source};
use crate::memory::Budget;

/// Of more releases than this within the time nothing is kept: pages that are that far behind are rare.
const RELEASES: usize = 16;

/// Files of earlier releases, for as long as they may still be asked for.
#[derive(Debug, Default)]
pub(crate) struct StaleAssets(Mutex<Vec<GoneRelease>>);

#[derive(Debug)]
struct GoneRelease {
    release: ReleaseId,
    until: Instant,
    files: HashSet<Entry>,
    open_files: Arc<OpenFiles>,
    budget: Arc<Budget>,
}

impl Drop for GoneRelease {
    fn drop(&mut self) {
        let_go(self.files.drain(), &self.budget);
    }
}

impl StaleAssets {
    /// What there is when a release with the files of `before` is replaced by one with those of `next`: what the release itself
    /// leaves, and what earlier ones had left to it, unless the next one has it.
    pub(super) fn carry_over(
        &self,
        release: &ReleaseId,
        before: &Index,
        open_files: &OpenFiles,
        next: &Index,
        options: &LoadOptions,
    ) -> Self {
        if options.stale_assets == Duration::ZERO {
            return Self::default();
        }
        let now = Instant::now();
        let gone = |release: &ReleaseId, until, files: HashSet<Entry>, open_files: &OpenFiles| GoneRelease {
            release: release.clone(),
            until,
            open_files: open_files.only(|path| files.contains(path.as_bytes())),
            files,
            budget: Arc::clone(&options.budget),
        };
        let is_page = |entry: &Entry| media_type::of(entry.path()).as_bytes().starts_with(b"text/html");
        let left = before.entries().filter(|entry| !is_page(entry) && next.get(entry.path()).is_none());
        // The newest first: of several versions the last one is the likeliest to be meant.
        let newest = gone(release, now + options.stale_assets, left.cloned().collect(), open_files);
        let earlier = self.0.lock();
        let earlier = earlier.iter().map(|earlier| {
            let files =
                earlier.files.iter().filter(|entry| next.get(entry.path()).is_none()).cloned().collect();
            gone(&earlier.release, earlier.until, files, &earlier.open_files)
        });
        let all = std::iter::once(newest).chain(earlier);
        let kept = all.filter(|gone| gone.until > now && !gone.files.is_empty());
        Self(Mutex::new(kept.take(RELEASES).collect()))
    }

    /// The file at a path, and the release that had it last.
    pub(super) fn find(&self, path: &str, options: &LoadOptions) -> Option<(ReleaseId, Arc<Representation>)> {
        let now = Instant::now();
        let gone = self.0.lock();
        let mut fresh = gone.iter().filter(|gone| gone.until > now);
        fresh.find_map(|gone| {
            let entry = gone.files.get(path.as_bytes())?;
            let file = LargeFile::new(&gone.open_files, path, entry.facts().state);
            // For so short a time one coding will do.
            let file = represent(entry, Source::Large(Arc::new(file)), &options.header_policy);
            Some((gone.release.clone(), Arc::new(file)))
        })
    }

    /// Lets go of those whose time is over.
    pub(crate) fn expire(&self) {
        let now = Instant::now();
        self.0.lock().retain(|gone| gone.until > now);
    }

    /// Lets go of all, because the memory is needed.
    pub(crate) fn evict(&self) {
        self.0.lock().clear();
    }
}
