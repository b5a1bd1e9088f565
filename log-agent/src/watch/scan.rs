//! Finds the files to follow by their names, and watches the directories that they may appear in.
//!
//! Events only say where to look, sooner: everything is found by a scan that runs every `--rescan-period` anyway. So an
//! event that was lost, a watch that could not be had, or a file system without events cost time and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifecycle::Ignore as _;
use notify::{Config, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::events::{Changes, EventQueue};
use super::glob::Glob;

/// Whether file events are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Watch {
    /// By inotify, and by scanning where that is not to be had
    Events,
    /// By scanning alone, for file systems without events (NFS, some virtual machines' shared folders)
    Poll,
}

/// Finds files and hears of changes.
pub(crate) struct Discovery {
    include: Vec<Glob>,
    exclude: Vec<Glob>,
    events: Arc<EventQueue>,
    watcher: Option<RecommendedWatcher>,
    /// With the inode: a directory that was removed and made again is another one, and its watch went with the old one.
    watched: BTreeMap<PathBuf, u64>,
    /// Said once each.
    said: BTreeSet<PathBuf>,
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Discovery").field("include", &self.include).finish_non_exhaustive()
    }
}

impl Discovery {
    /// Starts listening; the first [`Discovery::scan`] finds what is there.
    pub(crate) fn start(include: Vec<Glob>, exclude: Vec<Glob>, watch: Watch) -> Self {
        let events = Arc::<EventQueue>::default();
        let watcher = match watch {
            Watch::Poll => None,
            Watch::Events => {
                let (events, globs) = (Arc::clone(&events), include.clone());
                let watcher =
                    RecommendedWatcher::new(move |event| events.receive(&globs, event), Config::default());
                watcher
                    .inspect_err(
                        |error| tracing::warn!(%error, "no file events: scanning every --rescan-period"),
                    )
                    .ok()
            }
        };
        Self { include, exclude, events, watcher, watched: BTreeMap::new(), said: BTreeSet::new() }
    }

    /// Waits until the kernel has something to say.
    pub(crate) async fn changed(&self) {
        self.events.changed().await;
    }

    /// What it said.
    pub(crate) fn changes(&self) -> Changes {
        self.events.take()
    }

    /// The files that match now, sorted, each once. Watches are set before looking, so that nothing that appears in
    /// between is missed.
    pub(crate) fn scan(&mut self) -> Vec<PathBuf> {
        // A directory may appear in one that is not watched yet; so look again until there is no new one.
        let mut known = BTreeSet::new();
        loop {
            let directories: BTreeSet<PathBuf> = self.include.iter().flat_map(Glob::directories).collect();
            if directories.is_subset(&known) {
                break;
            }
            self.watch(&directories);
            known.extend(directories);
        }
        for include in &self.include {
            let base = include.base();
            if base.is_dir() {
                self.said.remove(&base);
            } else if self.said.insert(base.clone()) {
                tracing::info!(directory = %base.display(), "waiting for a directory that does not exist yet");
            }
        }
        let found = self.include.iter().flat_map(Glob::paths);
        let mut paths: Vec<_> =
            found.filter(|path| !self.exclude.iter().any(|glob| glob.matches(path))).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// Also watches where a symbolic link leads: writing to its target does not show where the link is.
    pub(crate) fn watch_target(&mut self, target: &Path) {
        if let Some(directory) = target.parent()
            && !self.watched.contains_key(directory)
        {
            self.add_watch(directory.to_owned());
        }
    }

    fn watch(&mut self, directories: &BTreeSet<PathBuf>) {
        self.watched.retain(|directory, inode| {
            let same = std::fs::metadata(directory).is_ok_and(|metadata| metadata.ino() == *inode);
            if !same && let Some(watcher) = &mut self.watcher {
                // Fails where the kernel has already ended it.
                watcher.unwatch(directory).ignore();
            }
            same
        });
        for directory in directories {
            if !self.watched.contains_key(directory) {
                self.add_watch(directory.clone());
            }
        }
    }

    fn add_watch(&mut self, directory: PathBuf) {
        let Some(watcher) = &mut self.watcher else { return };
        let inode = std::fs::metadata(&directory).map_err(notify::Error::io);
        let outcome = inode.and_then(|metadata| {
            watcher.watch(&directory, RecursiveMode::NonRecursive)?;
            Ok(metadata.ino())
        });
        match outcome {
            Ok(inode) => {
                self.watched.insert(directory, inode);
            }
            Err(error) => {
                if self.said.insert(directory.clone()) {
                    tracing::warn!(
                        directory = %directory.display(),
                        %error,
                        "no file events from here: it is scanned every --rescan-period"
                    );
                }
            }
        }
    }
}
