//! Which files there are to follow, by their names, and what the kernel says has happened to them.
//!
//! Events only say where to look, sooner: everything is found by a scan that runs every `--rescan-period` anyway. So an
//! event that was lost, a watch that could not be had, or a file system without events cost time and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use glob::{MatchOptions, Pattern};
use notify::event::{EventKind, ModifyKind};
use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// In a pattern `*` stays within a directory, as in a shell.
const MATCH: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// A pattern for paths, made absolute so that it can be compared with what the kernel says.
#[derive(Debug, Clone)]
pub struct Glob {
    text: String,
    pattern: Pattern,
}

impl Glob {
    /// Reads a pattern; a relative one is relative to the working directory.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        let path =
            std::path::absolute(text).map_err(|error| format!("{error}; write it like /logs/*.log"))?;
        let text = path.to_str().ok_or("a pattern has to be UTF-8")?.to_owned();
        let pattern = Pattern::new(&text).map_err(|error| format!("{error}; write it like /logs/*.log"))?;
        Ok(Self { text, pattern })
    }

    /// Whether it matches this path.
    pub fn matches(&self, path: &Path) -> bool {
        self.pattern.matches_path_with(path, MATCH)
    }

    /// The directory before the first wildcard.
    fn base(&self) -> PathBuf {
        let literal = self.text.find(['*', '?', '[']).map_or(self.text.as_str(), |at| &self.text[..at]);
        match literal.rfind('/') {
            Some(0) | None => PathBuf::from("/"),
            Some(end) => PathBuf::from(&literal[..end]),
        }
    }

    fn paths(text: &str) -> Vec<PathBuf> {
        // The pattern was parsed before. A directory that cannot be read is said by whoever opens what is in it.
        glob::glob_with(text, MATCH).map(|paths| paths.filter_map(Result::ok).collect()).unwrap_or_default()
    }

    /// Directories in which a match may appear: those that exist, or the nearest ancestor that does.
    fn directories(&self) -> Vec<PathBuf> {
        let base = self.base();
        let mut found = match base.ancestors().find(|ancestor| ancestor.is_dir()) {
            Some(nearest) if nearest == base => vec![base],
            Some(nearest) => return vec![nearest.to_owned()],
            None => Vec::new(),
        };
        if let Some(parent) = Path::new(&self.text).parent().and_then(Path::to_str) {
            found.extend(Self::paths(parent).into_iter().filter(|path| path.is_dir()));
        }
        found
    }
}

/// What the kernel said since the last time it was asked.
#[derive(Debug, Default)]
pub struct Hints {
    /// Names have come or gone: scan.
    pub names: bool,
    /// These have been written to.
    pub written: BTreeSet<PathBuf>,
}

#[derive(Debug, Default)]
struct Inbox {
    hints: Mutex<Hints>,
    bell: Notify,
}

impl Inbox {
    fn hints(&self) -> MutexGuard<'_, Hints> {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receive(&self, globs: &[Glob], event: notify::Result<Event>) {
        let mut hints = self.hints();
        match event {
            // The kernel's queue ran over: anything may have happened.
            Ok(event) if event.need_rescan() => hints.names = true,
            Ok(event) => match event.kind {
                // Our own reading, and whatever does not change content.
                EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_)) => return,
                EventKind::Modify(ModifyKind::Data(_)) => hints.written.extend(event.paths),
                _ => {
                    let concerns = |path: &PathBuf| {
                        globs.iter().any(|glob| glob.matches(path) || glob.base().starts_with(path))
                    };
                    // A directory may hold matches deeper down.
                    if !event.paths.iter().any(|path| concerns(path) || path.is_dir()) {
                        return;
                    }
                    hints.names = true;
                }
            },
            Err(error) => {
                tracing::warn!(%error, "file events are incomplete: scanning instead");
                hints.names = true;
            }
        }
        drop(hints);
        self.bell.notify_one();
    }
}

/// Whether file events are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Watch {
    /// By inotify, and by scanning where that is not to be had
    Events,
    /// By scanning alone, for file systems without events (NFS, some virtual machines' shared folders)
    Poll,
}

/// Finds files and hears of changes.
pub struct Discovery {
    include: Vec<Glob>,
    exclude: Vec<Glob>,
    inbox: Arc<Inbox>,
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
    pub fn start(include: Vec<Glob>, exclude: Vec<Glob>, watch: Watch) -> Self {
        let inbox = Arc::<Inbox>::default();
        let watcher = match watch {
            Watch::Poll => None,
            Watch::Events => {
                let (inbox, globs) = (Arc::clone(&inbox), include.clone());
                let watcher =
                    RecommendedWatcher::new(move |event| inbox.receive(&globs, event), Config::default());
                watcher
                    .inspect_err(
                        |error| tracing::warn!(%error, "no file events: scanning every --rescan-period"),
                    )
                    .ok()
            }
        };
        Self { include, exclude, inbox, watcher, watched: BTreeMap::new(), said: BTreeSet::new() }
    }

    /// Waits until the kernel has something to say.
    pub async fn heard(&self) {
        self.inbox.bell.notified().await;
    }

    /// What it said.
    pub fn hints(&self) -> Hints {
        std::mem::take(&mut *self.inbox.hints())
    }

    /// The files that match now, sorted, each once. Watches are set before looking, so that nothing that appears in
    /// between is missed.
    pub fn scan(&mut self) -> Vec<PathBuf> {
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
        let found = self.include.iter().flat_map(|glob| Glob::paths(&glob.text));
        let mut paths: Vec<_> =
            found.filter(|path| !self.exclude.iter().any(|glob| glob.matches(path))).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// Also watches where a symbolic link leads: writing to its target does not show where the link is.
    pub fn watch_target(&mut self, target: &Path) {
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
                drop(watcher.unwatch(directory));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_its_directory() {
        let glob = Glob::new("/logs/*/access.log*").unwrap();
        assert!(glob.matches(Path::new("/logs/a/access.log.1")));
        assert!(!glob.matches(Path::new("/logs/a/b/access.log")));
        assert_eq!(glob.base(), Path::new("/logs"));
        assert_eq!(Glob::new("/logs/access.log").unwrap().base(), Path::new("/logs"));
        assert_eq!(Glob::new("/*.log").unwrap().base(), Path::new("/"));
        assert!(Glob::new("/logs/[").is_err());
    }

    #[test]
    fn reading_wakes_nobody_and_writing_names_the_file() {
        use notify::event::{AccessKind, CreateKind, DataChange};
        let inbox = Inbox::default();
        let globs = [Glob::new("/logs/*.log").unwrap()];
        let say = |kind, path: &str| inbox.receive(&globs, Ok(Event::new(kind).add_path(path.into())));
        say(EventKind::Access(AccessKind::Any), "/logs/a.log");
        say(EventKind::Create(CreateKind::File), "/logs/other.txt");
        assert!(inbox.hints().written.is_empty() && !inbox.hints().names);
        say(EventKind::Modify(ModifyKind::Data(DataChange::Any)), "/logs/a.log");
        assert!(inbox.hints().written.contains(Path::new("/logs/a.log")));
        say(EventKind::Create(CreateKind::File), "/logs/b.log");
        assert!(inbox.hints().names);
    }
}
