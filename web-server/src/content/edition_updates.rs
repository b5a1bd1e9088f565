//! Keeps the editions up to date with the content, so that no question is paid for by looking at it.
//!
//! A release is told when the link names another. A plain directory is watched: an edit is taken in once the directory has
//! been quiet for a moment, so that files which are saved together become one edition, and only what changed is read
//! again. A full walk in the background finds what the watch cannot see, on NFS or a desktop's bind mounts.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifecycle::{Ignore as _, blocking};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::content::dir::{FileInfo, Lookup};
use crate::content::edition::Edition;
use crate::content::editions::{Editions, RECENT_FOR};
use crate::content::generation::FileEntry;
use crate::content::live::LiveDirectory;
use crate::content::public::is_public_path;
use crate::content::representation::Modified;
use crate::content::root::{Content, ContentRoot};
use crate::content::walk::visit;

/// A directory that is never quiet is taken in nevertheless, after this long.
const NEVER_QUIET: Duration = Duration::from_secs(2);

/// After a walk that failed.
const RETRY: Duration = Duration::from_secs(1);

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
        let (of, before, reserved) = (Arc::clone(content), known.clone(), Arc::clone(reserved));
        let made = blocking(move || {
            let unchanged = before.is_some_and(|before| !before.is_replaced());
            (!unchanged).then(|| Edition::of_release(&of, &reserved)).transpose()
        });
        match made.await {
            Ok(Some(edition)) => {
                editions.publish(edition);
                known = editions.state().ok();
            }
            Ok(None) => {}
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
    fn is_empty(&self) -> bool {
        self.paths.is_empty() && !self.anything
    }
}

impl Watched {
    async fn follow(self, pace: Pace) {
        self.editions.set_pending();
        // A large tree takes a while to watch. The watch lasts until this task is dropped.
        let _watcher = blocking(self.watch()).await;
        let mut listing = Listing::default();
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
                    if let Some(edition) = edition {
                        self.editions.publish(edition);
                    }
                    self.changes.noticed.lock().paths.extend(listing.unsettled.drain(..));
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
                    listing = Listing::default();
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
                Some(path) if is_public_path(path) => _ = noticed.paths.insert(path.to_owned()),
                Some(_) => continue,
            }
            concerns = true;
        }
        concerns
    }
}

/// The files of a plain directory as they were found last.
#[derive(Debug, Default)]
struct Listing {
    files: BTreeMap<String, FileEntry>,
    /// Files that changed while they were read.
    unsettled: Vec<String>,
    /// Whether an edition has been made of them.
    is_shown: bool,
    /// Whether it is enough to look at the paths that have changed: not before a walk has found all there is, nor where a file has
    /// two paths, so that a change of one says nothing about the other.
    is_kept_by_path: bool,
}

impl Listing {
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
        let edition = Edition::of_files(content, self.files.values(), reserved)?;
        self.is_shown = true;
        Ok(Some(edition))
    }

    fn replace_all(&mut self, live: &LiveDirectory) -> io::Result<()> {
        let found = walk(live, "")?;
        let inodes: HashSet<u64> = found.iter().map(|(_, info)| info.state.inode).collect();
        let paths: HashSet<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        let is_kept_by_path = inodes.len() == paths.len();
        let before = self.files.len();
        self.files.retain(|path, _| paths.contains(path.as_str()));
        self.is_shown &= self.files.len() == before;
        for (path, info) in found {
            self.put(live, path, info)?;
        }
        self.is_kept_by_path = is_kept_by_path;
        Ok(())
    }

    /// A file that was written, a directory that was moved here, or nothing any more.
    fn look_at(&mut self, live: &LiveDirectory, path: &str) -> io::Result<()> {
        let found = match live.directory().inspect(path)? {
            Lookup::File(info) => vec![(path.to_owned(), info)],
            Lookup::Dir => walk(live, path)?,
            Lookup::None => Vec::new(),
        };
        self.forget(path, &found);
        for (path, info) in found {
            self.put(live, path, info)?;
        }
        Ok(())
    }

    /// Forgets what was at a path or beneath it and is not found there any more.
    fn forget(&mut self, path: &str, found: &[(String, FileInfo)]) {
        let found: HashSet<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        let prefix = format!("{path}/");
        let beneath = self.files.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        let known = self.files.get_key_value(path).into_iter().chain(beneath).map(|(path, _)| path);
        let gone: Vec<String> = known.filter(|path| !found.contains(path.as_str())).cloned().collect();
        self.is_shown &= gone.is_empty();
        for path in gone {
            self.files.remove(&path);
        }
    }

    fn put(&mut self, live: &LiveDirectory, path: String, info: FileInfo) -> io::Result<()> {
        let Some(digest) = live.digest(&path, info.state)? else {
            // What was known of it stays listed: a file that is being written is about to be looked at again.
            self.unsettled.push(path);
            return Ok(());
        };
        let entry = FileEntry {
            path: path.clone(),
            size: info.state.size,
            digest,
            executable: info.executable,
            modified: Modified::at(info.state.last_change()),
        };
        self.is_shown &= self.files.get(&path) == Some(&entry);
        self.files.insert(path, entry);
        Ok(())
    }
}

fn walk(live: &LiveDirectory, directory: &str) -> io::Result<Vec<(String, FileInfo)>> {
    let mut found = Vec::new();
    visit(live.directory(), directory, &mut found)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::content::dir::Directory;
    use crate::content::index::LoadOptions;
    use crate::memory::Budget;

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
        let mut listing = Listing::default();
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
        assert_eq!(listing.files.keys().collect::<Vec<_>>(), ["d/f"]);
    }
}
