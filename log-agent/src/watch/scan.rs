//! Looks for the files to follow by their names, and watches the directories that they may appear in.
//!
//! Events only say where to look, sooner: everything is found by a scan that runs every `--rescan-period` anyway. So an
//! event that was lost, a watch that could not be had, or a file system without events cost time and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use lifecycle::Ignore as _;
use lifecycle::escape::escaped_path;
use notify::{Config, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::events::{Changes, EventQueue, Waker};
use super::glob::Glob;
use super::own::OwnFiles;
use super::walk::{Names, Symlinks, Walk};

/// As the kernel: a path with more links than this is a circle.
const MOST_LINKS: usize = 40;

/// Whether file events are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Watch {
    /// By inotify, and by scanning where inotify is unavailable
    Events,
    /// By scanning alone, for file systems without events (NFS, some virtual machines' shared folders)
    Poll,
}

/// Finds files and hears of changes.
pub(crate) struct Discovery {
    include: Vec<Glob>,
    exclude: Vec<Glob>,
    own: OwnFiles,
    symlinks: Symlinks,
    events: Arc<EventQueue>,
    watcher: Option<RecommendedWatcher>,
    /// With the inode: a directory that was removed and made again is another one, and its watch went with the old one.
    watched: BTreeMap<PathBuf, u64>,
    /// Logged once each, for as long as it is so.
    warned: BTreeSet<PathBuf>,
    /// The agent's own files that patterns match. Logged once each: some of them come and go with every checkpoint, and where what is
    /// logged is followed itself, it would come back again and again.
    warned_own: BTreeSet<PathBuf>,
    /// As `warned`: directories without events.
    unwatched: BTreeSet<PathBuf>,
}

impl Discovery {
    /// Starts listening; the first [`Discovery::scan`] finds what is there. `wake` is called when the kernel has said something.
    pub(crate) fn start(
        include: Vec<Glob>,
        exclude: Vec<Glob>,
        own: OwnFiles,
        symlinks: Symlinks,
        watch: Watch,
        wake: Waker,
    ) -> Self {
        let events = Arc::new(EventQueue::new(wake));
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
        Self {
            include,
            exclude,
            own,
            symlinks,
            events,
            watcher,
            watched: BTreeMap::new(),
            warned: BTreeSet::new(),
            warned_own: BTreeSet::new(),
            unwatched: BTreeSet::new(),
        }
    }

    /// What the kernel said.
    pub(crate) fn changes(&self) -> Changes {
        self.events.take()
    }

    /// The files that match now. Watches are set before looking, so that nothing that appears in between is missed.
    pub(crate) fn scan(&mut self) -> Names {
        let mut names = self.walk();
        // A directory may appear in one that is not watched yet; so look again until there is no new one.
        while self.watch(&names) {
            names = self.walk();
        }
        self.report(&names);
        names
    }

    fn walk(&self) -> Names {
        let mut names = Names::default();
        for include in &self.include {
            self.walk_one(include, &mut names);
        }
        // Of several names of one file the first counts, and no link where there is another.
        names
            .files
            .sort_by(|one, other| (one.is_link, &one.place.path).cmp(&(other.is_link, &other.place.path)));
        names.files.dedup_by(|one, other| one.place.path == other.place.path);
        names
    }

    fn walk_one(&self, include: &Glob, names: &mut Names) {
        let is_excluded = |path: &Path| self.exclude.iter().any(|glob| glob.matches(path));
        Walk::run(include, self.symlinks, &is_excluded, &self.own, names);
    }

    /// The patterns that no file fits now, or only excluded ones.
    pub(crate) fn unmatched(&self) -> impl Iterator<Item = &Glob> {
        self.include.iter().filter(|include| {
            let mut names = Names::default();
            self.walk_one(include, &mut names);
            names.files.is_empty()
        })
    }

    fn report(&mut self, names: &Names) {
        let warned = std::mem::take(&mut self.warned);
        let mut say = |path: &Path| self.warned.insert(path.to_owned()) && !warned.contains(path);
        for directory in &names.missing {
            if say(directory) {
                tracing::info!(directory = %escaped_path(directory), "waiting for a directory that does not exist yet");
            }
        }
        for directory in &names.no_files {
            if say(directory) {
                tracing::warn!(directory = %escaped_path(directory), "--include names a directory, so nothing in it is followed: write DIRECTORY/* or DIRECTORY/**");
            }
        }
        for (own, path) in &names.own {
            if self.warned_own.insert(own.clone()) {
                tracing::warn!(path = %escaped_path(path), "the agent itself writes there, so it is not followed: exclude it");
            }
        }
        for path in &names.outside {
            if say(path) {
                tracing::warn!(file = %escaped_path(path), "a link that leads out of the included directory is not followed; see --follow-symlinks");
            }
        }
    }

    /// Watches what was looked into, and what links lead through; true where that is new.
    fn watch(&mut self, names: &Names) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let mut linked = BTreeSet::new();
        for base in self.include.iter().map(Glob::base) {
            links_on_the_way(&base, &mut linked);
        }
        if self.symlinks == Symlinks::All {
            for directory in &names.directories {
                links_on_the_way(directory, &mut linked);
            }
            for link in &names.links {
                links_on_the_way(link, &mut linked);
            }
        }
        let missing = names.missing.iter().filter_map(|path| nearest_directory(path));
        let wanted: BTreeSet<PathBuf> = names
            .directories
            .iter()
            .cloned()
            .chain(missing.map(Path::to_owned))
            .chain(linked.iter().cloned())
            .collect();
        self.events.set_linked(linked);
        self.watched.retain(|directory, inode| {
            let same = wanted.contains(directory)
                && std::fs::metadata(directory).is_ok_and(|metadata| metadata.ino() == *inode);
            if !same {
                // Fails where the kernel has already ended it.
                watcher.unwatch(directory).ignore();
            }
            same
        });
        let known = std::mem::take(&mut self.unwatched);
        let mut new = false;
        for directory in wanted {
            if self.watched.contains_key(&directory) {
                continue;
            }
            match add_watch(watcher, &directory) {
                Ok(inode) => {
                    self.watched.insert(directory, inode);
                    new = true;
                }
                Err(error) => {
                    if !known.contains(&directory) {
                        tracing::warn!(
                            directory = %escaped_path(&directory),
                            %error,
                            "no file events from here: it is scanned every --rescan-period"
                        );
                    }
                    self.unwatched.insert(directory);
                }
            }
        }
        new
    }
}

/// Watches a directory, and says which inode it is.
fn add_watch(watcher: &mut RecommendedWatcher, directory: &Path) -> notify::Result<u64> {
    let metadata = std::fs::metadata(directory).map_err(notify::Error::io)?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(metadata.ino())
}

/// Directories in which a name decides where `path` leads: those of every link on the way, and the one where the way ends, or as
/// much of it as exists: a file that is rotated behind a link is away for a moment, and what takes its place must be heard of.
fn links_on_the_way(path: &Path, found: &mut BTreeSet<PathBuf>) {
    let mut rest: Vec<PathBuf> = vec![path.to_owned()];
    let mut links = 0;
    while let Some(path) = rest.pop() {
        let mut at = PathBuf::from("/");
        let mut components = path.components();
        while let Some(component) = components.next() {
            match component {
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
                Component::ParentDir => {
                    at.pop();
                    continue;
                }
                Component::Normal(name) => at.push(name),
            }
            let Ok(target) = std::fs::read_link(&at) else { continue };
            links += 1;
            if links > MOST_LINKS {
                return;
            }
            at.pop();
            found.insert(at.clone());
            rest.push(at.join(target).join(components.as_path()));
            break;
        }
        if links > 0 && rest.is_empty() && at != Path::new("/") {
            found.extend(at.parent().and_then(nearest_directory).map(Path::to_owned));
        }
    }
}

/// The path itself where it is a directory, else the nearest one above it.
fn nearest_directory(path: &Path) -> Option<&Path> {
    path.ancestors().find(|above| above.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_on_the_way_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().canonicalize().unwrap().join(name);
        for name in ["pods/v1", "containers"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        std::fs::write(at("pods/v1/0.log"), "").unwrap();
        std::os::unix::fs::symlink("v1", at("pods/current")).unwrap();
        std::os::unix::fs::symlink(at("pods/current/0.log"), at("containers/a.log")).unwrap();
        let mut found = BTreeSet::new();
        links_on_the_way(&at("containers/a.log"), &mut found);
        assert_eq!(found, ["containers", "pods", "pods/v1"].map(at).into());
        found.clear();
        links_on_the_way(&at("pods/v1/0.log"), &mut found);
        assert!(found.is_empty(), "{found:?}");
        std::fs::remove_file(at("pods/v1/0.log")).unwrap();
        links_on_the_way(&at("containers/a.log"), &mut found);
        assert_eq!(found, ["containers", "pods", "pods/v1"].map(at).into(), "the file is away");
        found.clear();
        std::fs::remove_dir(at("pods/v1")).unwrap();
        links_on_the_way(&at("containers/a.log"), &mut found);
        assert_eq!(found, ["containers", "pods"].map(at).into(), "its directory is away");
    }
}
