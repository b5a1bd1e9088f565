//! Keeps the editions up to date with the content, so that no question is paid for by looking at it.
//!
//! A release is told when the link names another. A plain directory is watched: an edit is taken in once the directory has
//! been quiet for a moment, so that files which are saved together become one edition, and only what changed is read
//! again. A full walk in the background finds what the watch cannot see, on NFS or a desktop's bind mounts.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifecycle::{Ignore as _, blocking};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::content::digest::Digest;
use crate::content::dir::{FileInfo, Lookup};
use crate::content::edition::Edition;
use crate::content::editions::{Editions, RECENT_FOR};
use crate::content::generation::FileEntry;
use crate::content::live::{LiveDirectory, is_settled};
use crate::content::public::is_public_path;
use crate::content::representation::Modified;
use crate::content::root::{Content, ContentRoot};
use crate::content::walk::{Visitor, visit};
use crate::memory::{Account, Budget, Share};

/// A directory that is never quiet is taken in nevertheless, after this long.
const NEVER_QUIET: Duration = Duration::from_secs(2);

/// After a walk that failed.
const RETRY: Duration = Duration::from_secs(1);

/// After one that found more than fits into memory.
const REFUSED_RETRY: Duration = Duration::from_secs(10);

/// How changes are noticed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How long a directory has to be quiet.
    pub(crate) quiet: Duration,
    /// Between full walks.
    pub(crate) rescan: Duration,
}

/// Follows the root until the task is dropped. `reserved` are the paths that this server answers itself, and that no manifest can
/// list therefore.
pub(crate) async fn follow(
    root: Arc<ContentRoot>,
    editions: Arc<Editions>,
    pace: Pace,
    reserved: Arc<[&'static str]>,
) {
    let mut swaps = root.swaps();
    loop {
        // Seen before the content is: a swap in between is then found at the next turn.
        swaps.borrow_and_update();
        let content = root.content();
        // No error: the root lives as long as this task.
        let over = async { swaps.changed().await.ignore() };
        match &*content {
            Content::Waiting(reason) => {
                editions.withdraw(reason);
                if root.is_loaded() {
                    editions.set_settled();
                }
                over.await;
            }
            Content::Release(_) => tokio::select! {
                () = over => {}
                () = follow_release(&root, &content, &editions, pace, &reserved) => {}
            },
            Content::Live(_) => {
                let directory = Watched {
                    // The watch names absolute paths.
                    root: std::path::absolute(root.path()).unwrap_or_else(|_| root.path().to_owned()),
                    content: Arc::clone(&content),
                    editions: Arc::clone(&editions),
                    reserved: Arc::clone(&reserved),
                    changes: Arc::default(),
                };
                tokio::select! {
                    () = over => {}
                    () = directory.follow(pace) => {}
                }
            }
        }
    }
}

/// A release does not change. Its manifest may: the same content, signed again.
async fn follow_release(
    root: &ContentRoot,
    content: &Arc<Content>,
    editions: &Editions,
    pace: Pace,
    reserved: &Arc<[&'static str]>,
) {
    let mut known: Option<Arc<Edition>> = None;
    loop {
        let try_once = || {
            let (of, before, reserved) = (Arc::clone(content), known.clone(), Arc::clone(reserved));
            blocking(move || {
                let unchanged = before.is_some_and(|before| !before.is_replaced());
                (!unchanged).then(|| Edition::of_release(&of, &reserved)).transpose()
            })
        };
        let mut made = try_once().await;
        if made.as_ref().is_err_and(lacks_memory) {
            // Earlier releases are worth less than what is served now: their manifests, and pages that were loaded from them.
            editions.expire(Duration::ZERO);
            if let Content::Release(generation) = &**content {
                generation.stale_assets.evict();
            }
            made = try_once().await;
        }
        match made {
            Ok(Some(edition)) => {
                editions.publish(edition);
                known = editions.state().ok();
            }
            Ok(None) => {}
            Err(error) if lacks_memory(&error) => editions.refuse(does_not_fit(content)),
            Err(error) => editions.withdraw(&format!("no manifest can be made: {error}")),
        }
        editions.set_settled();
        // The next release needs the memory more than pullers that are still fetching an earlier one.
        let limit = if root.refused().is_some() { Duration::ZERO } else { RECENT_FOR };
        if editions.expire(limit) {
            root.try_refused_again();
        }
        sleep(pace.rescan).await;
    }
}

fn lacks_memory(error: &io::Error) -> bool {
    error.kind() == ErrorKind::OutOfMemory
}

/// Why there is no manifest of this content, and what to do.
fn does_not_fit(content: &Content) -> String {
    let (of, budget) = match content {
        Content::Release(generation) => {
            (format!("release {}", generation.release.id.as_str()), generation.budget())
        }
        Content::Live(live) => ("the directory".to_owned(), live.budget()),
        Content::Waiting(reason) => return reason.clone(),
    };
    let limit =
        budget.limit().map_or_else(|| "its limit".to_owned(), |limit| format!("{} MiB", limit / 1024 / 1024));
    format!(
        "the manifest of {of} does not fit into memory ({limit}): raise the container's memory limit, or --memory-limit \
         (deploy/README.md, Memory, has the formula)"
    )
}

/// A plain directory under watch.
struct Watched {
    root: PathBuf,
    content: Arc<Content>,
    editions: Arc<Editions>,
    reserved: Arc<[&'static str]>,
    changes: Arc<Changes>,
}

/// What the watch has noticed and is not taken in yet.
#[derive(Debug, Default)]
struct Changes {
    noticed: Mutex<Noticed>,
    stirred: Notify,
}

#[derive(Debug, Default)]
struct Noticed {
    paths: HashSet<String>,
    /// Something that no path was given for, so that all has to be looked at.
    anything: bool,
}

impl Noticed {
    /// So many files that are written at once are found by a walk, rather than remembered one by one.
    const MOST_PATHS: usize = 4096;

    fn add(&mut self, path: &str) {
        if !self.anything && self.paths.len() < Self::MOST_PATHS {
            self.paths.insert(path.to_owned());
        } else {
            self.anything = true;
            self.paths = HashSet::new();
        }
    }

    fn is_empty(&self) -> bool {
        self.paths.is_empty() && !self.anything
    }
}

impl Watched {
    async fn follow(self, pace: Pace) {
        self.editions.set_pending();
        // A large tree takes a while to watch. The watch lasts until this task is dropped.
        let _watcher = blocking(self.watch()).await;
        let budget = match &*self.content {
            Content::Live(live) => Arc::clone(live.budget()),
            Content::Waiting(_) | Content::Release(_) => return,
        };
        let mut listing = Listing::new(&budget);
        let mut next_walk = Instant::now() + pace.rescan;
        let mut warned = None;
        loop {
            let noticed = std::mem::take(&mut *self.changes.noticed.lock());
            if noticed.anything {
                next_walk = Instant::now() + pace.rescan;
            }
            let (content, reserved) = (Arc::clone(&self.content), Arc::clone(&self.reserved));
            let taken = blocking(move || {
                let outcome = listing.take_in(&content, noticed, &reserved);
                (listing, outcome)
            });
            let outcome;
            (listing, outcome) = taken.await;
            match outcome {
                Ok(edition) => {
                    warned = None;
                    match edition {
                        Some(edition) => self.editions.publish(edition),
                        None => self.editions.accept(),
                    }
                    self.changes.noticed.lock().paths.extend(listing.unsettled.drain(..));
                }
                Err(error) if lacks_memory(&error) => {
                    listing = Listing::new(&budget);
                    // Not at each edit: to find that out takes as long as to look at what fits. Requests do not wait for it.
                    self.editions.refuse(does_not_fit(&self.content));
                    self.editions.set_settled();
                    self.editions.expire(Duration::ZERO);
                    sleep(REFUSED_RETRY).await;
                    self.changes.noticed.lock().anything = true;
                    continue;
                }
                Err(error) => {
                    // An older edition is better than none.
                    let error = error.to_string();
                    if self.editions.state().is_err() {
                        self.editions.withdraw(&format!("no manifest can be made: {error}"));
                    }
                    if warned.as_ref() != Some(&error) {
                        let root = self.root.display();
                        tracing::warn!(%root, error, "cannot look at the content; the manifest stays as it is");
                        warned = Some(error);
                    }
                    listing = Listing::new(&budget);
                    next_walk = Instant::now() + RETRY.min(pace.rescan);
                }
            }
            self.settle();
            self.stir(pace, next_walk).await;
        }
    }

    /// Says that all is shown, unless something was noticed since.
    fn settle(&self) {
        let noticed = self.changes.noticed.lock();
        if noticed.is_empty() {
            self.editions.set_settled();
        }
    }

    /// Waits for a change and for the quiet after it, or for the time of the next walk.
    async fn stir(&self, pace: Pace, next_walk: Instant) {
        if self.changes.noticed.lock().is_empty() {
            tokio::select! {
                () = self.changes.stirred.notified() => {}
                () = sleep_until(next_walk) => {
                    self.changes.noticed.lock().anything = true;
                    return;
                }
            }
        }
        let latest = Instant::now() + NEVER_QUIET;
        loop {
            let quiet = (Instant::now() + pace.quiet).min(latest);
            if timeout_at(quiet, self.changes.stirred.notified()).await.is_err() {
                return;
            }
        }
    }

    fn watch(&self) -> impl FnOnce() -> Option<RecommendedWatcher> + Send + 'static {
        let (root, changes, editions) =
            (self.root.clone(), Arc::clone(&self.changes), Arc::clone(&self.editions));
        move || {
            let beneath = root.clone();
            let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
                if changes.note(&beneath, event) {
                    editions.set_pending();
                    changes.stirred.notify_one();
                }
            });
            let watching = watcher.and_then(|mut watcher| {
                watcher.watch(&root, RecursiveMode::Recursive)?;
                Ok(watcher)
            });
            let problem = |error: &notify::Error| {
                tracing::warn!(
                    root = %root.display(), %error,
                    "no file events, so changes are seen at the next walk (--rescan); on Linux raise fs.inotify.max_user_watches"
                );
            };
            watching.inspect_err(problem).ok()
        }
    }
}

impl Changes {
    /// Whether it is about the content: reading is no change, and hidden files are not listed.
    fn note(&self, root: &Path, event: notify::Result<Event>) -> bool {
        let Ok(event) = event else {
            self.noticed.lock().anything = true;
            return true;
        };
        if event.kind.is_access() {
            return false;
        }
        let mut noticed = self.noticed.lock();
        if event.need_rescan() || event.paths.is_empty() {
            noticed.anything = true;
            return true;
        }
        let mut concerns = false;
        for path in &event.paths {
            match path.strip_prefix(root).ok().and_then(Path::to_str) {
                Some("") | None => noticed.anything = true,
                Some(path) if is_public_path(path) => noticed.add(path),
                Some(_) => continue,
            }
            concerns = true;
        }
        concerns
    }
}

/// The files of a plain directory as they were found last.
#[derive(Debug)]
struct Listing {
    files: BTreeMap<Box<str>, Listed>,
    /// What they take of the memory budget.
    memory: Share,
    /// Files that changed while they were read.
    unsettled: Vec<String>,
    /// Whether an edition has been made of them.
    is_shown: bool,
    /// Whether it is enough to look at the paths that have changed: not before a walk has found all there is, nor where a file has
    /// two paths, so that a change of one says nothing about the other.
    is_kept_by_path: bool,
    /// How often files were looked for: what was not found this time is gone.
    look: u32,
}

/// A file as it was found last.
#[derive(Debug)]
struct Listed {
    digest: Digest,
    info: FileInfo,
    /// Whether another change would show in the file's state: the digest is as good as the state is the same.
    is_settled: bool,
    /// When it was found.
    look: u32,
}

impl Listed {
    /// In memory, its path included: in a tree whose nodes are half full, and in the set of inodes while all are looked at.
    fn cost(path: &str) -> u64 {
        270 + path.len() as u64
    }

    fn entry<'a>(&self, path: &'a str) -> FileEntry<'a> {
        let FileInfo { state, executable } = self.info;
        let modified = Modified::at(state.last_change());
        FileEntry { path, size: state.size, digest: self.digest, executable, modified }
    }
}

impl Listing {
    /// Of nothing yet.
    fn new(budget: &Arc<Budget>) -> Self {
        Self {
            files: BTreeMap::new(),
            memory: Share::new(budget, Account::Manifest),
            unsettled: Vec::new(),
            is_shown: false,
            is_kept_by_path: false,
            look: 0,
        }
    }

    /// Looks at what has changed, or at all, and makes an edition where that is another. Blocks.
    fn take_in(
        &mut self,
        content: &Arc<Content>,
        noticed: Noticed,
        reserved: &[&str],
    ) -> io::Result<Option<Edition>> {
        let Content::Live(live) = &**content else { return Ok(None) };
        if noticed.anything || !self.is_kept_by_path {
            self.replace_all(live)?;
        } else {
            for path in noticed.paths {
                self.look_at(live, &path)?;
            }
        }
        if self.is_shown {
            return Ok(None);
        }
        let files = self.files.iter().map(|(path, listed)| listed.entry(path));
        let make = || Edition::of_files(content, live.budget(), files.clone(), reserved);
        let edition = make().or_else(|error| {
            if !lacks_memory(&error) {
                return Err(error);
            }
            live.forget();
            make()
        })?;
        self.is_shown = true;
        Ok(Some(edition))
    }

    fn replace_all(&mut self, live: &LiveDirectory) -> io::Result<()> {
        self.is_kept_by_path = self.find(live, "")?;
        self.forget("");
        Ok(())
    }

    /// A file that was written, a directory that was moved here, or nothing any more.
    fn look_at(&mut self, live: &LiveDirectory, path: &str) -> io::Result<()> {
        match live.directory().inspect(path)? {
            Lookup::File(info) => {
                self.look += 1;
                self.put(live, path, info)?;
            }
            Lookup::Dir => _ = self.find(live, path)?,
            Lookup::None => self.look += 1,
        }
        self.forget(path);
        Ok(())
    }

    /// Looks at all files beneath a directory, and says whether each has one path.
    fn find(&mut self, live: &LiveDirectory, directory: &str) -> io::Result<bool> {
        self.look += 1;
        let mut finding = Finding { listing: self, live, inodes: HashSet::new(), found: 0 };
        visit(live.directory(), directory, &mut finding)?;
        Ok(finding.inodes.len() == finding.found)
    }

    /// Forgets what was at a path or beneath it and was not found there any more.
    fn forget(&mut self, path: &str) {
        let look = self.look;
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let beneath = self.files.range::<str, _>(from).take_while(|(path, _)| path.starts_with(&prefix));
        let known = self.files.get_key_value(path).into_iter().chain(beneath);
        let gone: Vec<_> =
            known.filter(|(_, listed)| listed.look != look).map(|(path, _)| path.clone()).collect();
        self.is_shown &= gone.is_empty();
        for path in gone {
            self.files.remove(&path);
            self.memory.shrink(Listed::cost(&path));
        }
    }

    fn put(&mut self, live: &LiveDirectory, path: &str, info: FileInfo) -> io::Result<()> {
        if let Some(known) = self.files.get_mut(path) {
            // What was known of a file that is being written stays listed: it is about to be looked at again.
            known.look = self.look;
            if known.is_settled && known.info == info {
                return Ok(());
            }
        }
        // Before it is read: what is settled then cannot change unseen.
        let is_settled = is_settled(info.state);
        let Some(digest) = live.digest(path, info.state)? else {
            self.unsettled.push(path.to_owned());
            return Ok(());
        };
        let listed = Listed { digest, info, is_settled, look: self.look };
        if let Some(known) = self.files.get_mut(path) {
            self.is_shown &= known.entry(path) == listed.entry(path);
            *known = listed;
            return Ok(());
        }
        self.is_shown = false;
        if self.memory.grow(Listed::cost(path)).is_err() {
            // Digests only save time, and those of listed files are here.
            live.forget();
            self.memory.grow(Listed::cost(path))?;
        }
        self.files.insert(path.into(), listed);
        Ok(())
    }
}

/// Takes files into a listing as they are found.
struct Finding<'a> {
    listing: &'a mut Listing,
    live: &'a LiveDirectory,
    inodes: HashSet<u64>,
    found: usize,
}

impl Visitor for Finding<'_> {
    type Error = io::Error;

    fn file(&mut self, path: &str, info: FileInfo) -> io::Result<()> {
        self.inodes.insert(info.state.inode);
        self.found += 1;
        self.listing.put(self.live, path, info)
    }

    fn directory(&mut self, _path: &str) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::content::dir::Directory;
    use crate::content::index::LoadOptions;

    #[test]
    fn of_many_paths_none_is_remembered() {
        let mut noticed = Noticed::default();
        for number in 0..100_000 {
            noticed.add(&number.to_string());
        }
        assert!(noticed.anything && noticed.paths.len() <= Noticed::MOST_PATHS);
        noticed.add("another");
        assert!(noticed.paths.is_empty());
    }

    #[test]
    fn a_file_that_is_being_written_stays_listed_when_its_directory_is_looked_at() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("d/f");
        std::fs::create_dir(root.path().join("d")).unwrap();
        std::fs::write(&file, "first").unwrap();
        let options = LoadOptions {
            cache: 0,
            stale_assets: Duration::ZERO,
            header_policy: Arc::default(),
            budget: Budget::hidden(None),
        };
        let directory = Directory::open(root.path()).unwrap();
        let content = Arc::new(Content::Live(LiveDirectory::new(directory, options, Gauge::default())));
        let Content::Live(live) = &*content else { panic!("it is a plain directory") };
        let mut listing = Listing::new(live.budget());
        assert!(listing.take_in(&content, Noticed::default(), &[]).unwrap().is_some());
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for length in (1..1000).cycle().take_while(|_| !over.load(Ordering::Relaxed)) {
                    std::fs::write(&file, "x".repeat(length)).unwrap();
                }
            });
            let is_seen = (0..100_000).any(|_| {
                let noticed = Noticed { paths: HashSet::from(["d".to_owned()]), anything: false };
                listing.take_in(&content, noticed, &[]).unwrap();
                !listing.unsettled.is_empty()
            });
            over.store(true, Ordering::Relaxed);
            assert!(is_seen, "it never changed while it was read");
        });
        assert_eq!(listing.files.keys().map(|path| &**path).collect::<Vec<_>>(), ["d/f"]);
    }
}
