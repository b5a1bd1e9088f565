//! Keeps the editions up to date with the content, so that no question is paid for by looking at it.
//!
//! A release is told when the link names another. A plain directory is watched: an edit is taken in once the directory has
//! been quiet for a moment, so that files which are saved together become one edition, and only what changed is read
//! again. A full walk in the background finds what the watch cannot see, on NFS or a desktop's bind mounts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifecycle::{Ignore as _, blocking};
use notify::event::{AccessKind, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::content::edition::Edition;
use crate::content::editions::{Editions, RECENT_FOR};
use crate::content::listing::{Lister, Noticed, TakenIn};
use crate::content::public::is_public_path;
use crate::content::root::{Content, ContentRoot};
use crate::memory::NoRoom;

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
        if made.as_ref().is_err_and(NoRoom::is_cause_of) {
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
            Err(error) if NoRoom::is_cause_of(&error) => editions.refuse(does_not_fit(content)),
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

impl Watched {
    async fn follow(self, pace: Pace) {
        self.editions.set_pending();
        // A large tree takes a while to watch. The watch lasts until this task is dropped.
        let _watcher = blocking(self.watch()).await;
        let mut lister = match Lister::start(&self.content, &self.reserved) {
            Ok(lister) => lister,
            Err(error) => {
                return self
                    .editions
                    .withdraw(&format!("no manifest can be made: cannot start a thread: {error}"));
            }
        };
        let mut next_walk = Instant::now() + pace.rescan;
        let mut warned = None;
        loop {
            let noticed = std::mem::take(&mut *self.changes.noticed.lock());
            if noticed.is_unknown() {
                next_walk = Instant::now() + pace.rescan;
            }
            match lister.take_in(noticed).await {
                Ok(TakenIn { edition, unsettled }) => {
                    warned = None;
                    match edition {
                        Some(edition) => self.editions.publish(edition),
                        None => self.editions.accept(),
                    }
                    let mut noticed = self.changes.noticed.lock();
                    for path in unsettled {
                        noticed.add(&path);
                    }
                }
                Err(error) if NoRoom::is_cause_of(&error) => {
                    // Not at each edit: to find that out takes as long as to look at what fits. Requests do not wait for it.
                    self.editions.refuse(does_not_fit(&self.content));
                    self.editions.set_settled();
                    self.editions.expire(Duration::ZERO);
                    sleep(REFUSED_RETRY).await;
                    self.changes.noticed.lock().add_unknown();
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
                    self.changes.noticed.lock().add_unknown();
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
            let mut lull = Lull::default();
            let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
                let access = match &event {
                    Ok(Event { kind: EventKind::Access(access), .. }) => Some(*access),
                    _ => None,
                };
                match access {
                    Some(AccessKind::Open(_)) => lull.rest(),
                    None if changes.note(&beneath, event) => {
                        editions.set_pending();
                        changes.stirred.notify_one();
                    }
                    // What is written is told of as such.
                    Some(_) | None => {}
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

/// Rests of the thread that file events come on. `notify` also tells of each file that is opened, as this server does for every
/// answer, and wakes up for each by itself. While it rests the kernel gathers them.
#[derive(Debug)]
struct Lull {
    ended: std::time::Instant,
}

impl Default for Lull {
    fn default() -> Self {
        Self { ended: std::time::Instant::now() }
    }
}

impl Lull {
    /// A rest. An edit that is made meanwhile is noticed so much later.
    const REST: Duration = Duration::from_millis(4);
    /// The least time between two rests, in which the thread can handle many more events than a busy server causes in both.
    const BETWEEN: Duration = Duration::from_millis(2);

    fn rest(&mut self) {
        if self.ended.elapsed() > Self::BETWEEN {
            std::thread::sleep(Self::REST);
            self.ended = std::time::Instant::now();
        }
    }
}

impl Changes {
    /// Whether it is about the content: hidden files are not listed.
    fn note(&self, root: &Path, event: notify::Result<Event>) -> bool {
        let Ok(event) = event else {
            self.noticed.lock().add_unknown();
            return true;
        };
        let mut noticed = self.noticed.lock();
        if event.need_rescan() || event.paths.is_empty() {
            noticed.add_unknown();
            return true;
        }
        let mut concerns = false;
        for path in &event.paths {
            match path.strip_prefix(root).ok().and_then(Path::to_str) {
                Some("") | None => noticed.add_unknown(),
                Some(path) if is_public_path(path) => noticed.add(path),
                Some(_) => continue,
            }
            concerns = true;
        }
        concerns
    }
}
