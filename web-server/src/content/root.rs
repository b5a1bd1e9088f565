//! What is served right now: nothing yet, a release, or a plain directory.
//!
//! The root is looked at when something stirs beside it ([`crate::content::watch`]). What it has become is made ready first, and
//! then put in place in one step: requests before it see the old site, requests after it the new one, and none waits.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use lifecycle::blocking;
use parking_lot::Mutex;
use tokio::sync::{SetOnce, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::content::dir::Directory;
use crate::content::generation::{Found, Generation};
use crate::content::index::LoadOptions;
use crate::content::live::LiveDirectory;
use crate::content::loader::{LoadError, load};
use crate::content::path::ContentPath;
use crate::content::release::{LinkStamp, Release, ReleaseId};
use crate::metrics::Metrics;

/// How often a link is read again whose target was gone by the time it was opened.
const SWAP_RACES: usize = 16;
/// How long a request waits for the first look at the root. Mostly that is over before the first request comes; a large
/// release takes longer, and clients are better told to come back.
const FIRST_LOAD: Duration = Duration::from_secs(3);
/// How long a request waits for the next release where its own was removed from the volume.
const REPLACEMENT: Duration = Duration::from_secs(10);
/// How long a release that did not fit into memory is left alone: to find that out takes as long as to load what fits of it.
const REFUSED_RETRY: Duration = Duration::from_secs(10);

/// What is served.
#[derive(Debug)]
pub(crate) enum Content {
    /// Nothing, and why.
    Waiting(String),
    /// A release, until the link names another.
    Release(Generation),
    /// A directory as it is at each request.
    Live(LiveDirectory),
}

impl Content {
    /// Looks a path up.
    pub(crate) async fn find(self: &Arc<Self>, path: &ContentPath) -> io::Result<Found> {
        match &**self {
            Self::Waiting(_) => Ok(Found::Nothing),
            // From memory: no system call, no other thread.
            Self::Release(generation) => Ok(generation.find(path)),
            Self::Live(live) => {
                // Most requests of a content manager's pullers: three system calls, and no other thread.
                if let Some(found) = live.find_cached(path) {
                    return Ok(found);
                }
                let (content, path, asked) = (Arc::clone(self), path.clone(), CancellationToken::new());
                // Until the end, unless the client leaves meanwhile.
                let _asking = asked.clone().drop_guard();
                blocking(move || match &*content {
                    Self::Live(live) => live.find(&path, &asked),
                    Self::Waiting(_) | Self::Release(_) => Ok(Found::Nothing),
                })
                .await
            }
        }
    }

    /// The release that it is, if it is one.
    pub(crate) fn release(&self) -> Option<ReleaseId> {
        match self {
            Self::Release(generation) => Some(generation.release.id.clone()),
            Self::Waiting(_) | Self::Live(_) => None,
        }
    }
}

/// The root, and what it holds now.
#[derive(Debug)]
pub(crate) struct ContentRoot {
    path: PathBuf,
    options: LoadOptions,
    content: ArcSwap<Content>,
    metrics: Arc<Metrics>,
    /// What was last complained of, so that a poll does not say it every time.
    trouble: Mutex<Option<String>>,
    /// Set when the first look is over, whatever it saw.
    first_load: SetOnce<()>,
    swaps: watch::Sender<()>,
    /// What was served before, for as long as a request still uses it: taking a large index apart is no work for the event loop.
    retired: Mutex<Vec<Arc<Content>>>,
    /// The release that does not fit into memory, and why.
    refused: Mutex<Option<Refused>>,
    shutdown: CancellationToken,
}

/// A release that is not served, because it does not fit into memory.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) release: ReleaseId,
    pub(crate) reason: String,
    link: LinkStamp,
    /// Not to be tried before.
    retry: Instant,
}

/// What the root is found to be.
enum RootState {
    Missing(String),
    Release(Release),
    Plain(Directory),
}

impl ContentRoot {
    /// Serves nothing until the first [`ContentRoot::refresh`].
    pub(crate) fn new(
        path: &Path,
        options: LoadOptions,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> Self {
        // `current/` would be the directory behind the link; we are interested in the link.
        let path: PathBuf = path.components().collect();
        let waiting = Content::Waiting(format!("no content yet: {} is being loaded", path.display()));
        Self {
            path,
            options,
            content: ArcSwap::from_pointee(waiting),
            metrics,
            trouble: Mutex::default(),
            first_load: SetOnce::new(),
            swaps: watch::Sender::new(()),
            retired: Mutex::default(),
            refused: Mutex::default(),
            shutdown,
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is served now. Who answers a request asks once.
    pub(crate) fn content(&self) -> Arc<Content> {
        self.content.load_full()
    }

    /// What is served now, after the first look at the root, unless that takes too long.
    pub(crate) async fn content_after_first_load(&self) -> Arc<Content> {
        let site = self.content();
        if self.first_load.initialized() {
            return site;
        }
        tokio::select! {
            _ = timeout(FIRST_LOAD, self.first_load.wait()) => {}
            // Who is told to go does not wait for what would be served.
            () = self.shutdown.cancelled() => {}
        }
        self.content()
    }

    /// Changes when other content begins to be served, and when the first load is over.
    pub(crate) fn swaps(&self) -> watch::Receiver<()> {
        self.swaps.subscribe()
    }

    /// Whether the first load is over, whatever it saw.
    pub(crate) fn is_loaded(&self) -> bool {
        self.first_load.initialized()
    }

    /// Whether the root can ever be served. Blocks for a moment.
    ///
    /// # Errors
    /// Where it is no directory.
    pub(crate) fn check(&self) -> io::Result<()> {
        match look(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotADirectory => Err(error),
            // What else there is to say is said when it is loaded.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Looks at the root and, if it has become something else, serves that from here on. Blocks.
    pub(crate) fn refresh(&self) {
        self.look_again();
        if self.first_load.set(()).is_ok() {
            self.swaps.send_replace(());
        }
    }

    fn look_again(&self) {
        let now = self.content();
        self.let_go_of_retired();
        if let Content::Release(generation) = &*now {
            generation.stale_assets.expire();
        }
        match self.next(&now) {
            Ok(None) => self.clear_warning(),
            Ok(Some(site)) => {
                self.clear_warning();
                self.announce(&site, &now);
                self.content.store(Arc::new(site));
                self.retired.lock().push(now);
                self.swaps.send_replace(());
            }
            // What is served stays: an older release is better than none.
            Err(error) => {
                let trouble = format!("cannot load {}: {error}", self.path.display());
                if matches!(&*now, Content::Waiting(known) if *known != trouble) {
                    self.content.store(Arc::new(Content::Waiting(trouble.clone())));
                    self.swaps.send_replace(());
                }
                self.warn_once(trouble);
            }
        }
    }

    /// What is to be served from now on, loaded; `None` where nothing changed.
    fn next(&self, now: &Content) -> io::Result<Option<Content>> {
        for _ in 0..SWAP_RACES {
            let seen = look(&self.path);
            self.forget_refused(&seen);
            match seen.and_then(|seen| self.prepare(seen, now)) {
                // It was replaced while it was looked through: what replaced it is looked at instead.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                next => return next,
            }
        }
        Err(io::Error::other("each release is replaced before it can be looked through"))
    }

    /// `None` where nothing changed; `Interrupted` where something changed meanwhile.
    fn prepare(&self, seen: RootState, now: &Content) -> io::Result<Option<Content>> {
        match (seen, now) {
            (RootState::Missing(reason), Content::Waiting(known)) if *known == reason => Ok(None),
            (RootState::Missing(reason), Content::Waiting(_) | Content::Live(_)) => {
                Ok(Some(Content::Waiting(reason)))
            }
            (RootState::Missing(reason), Content::Release(_)) => {
                Err(io::Error::new(ErrorKind::NotFound, reason))
            }
            (RootState::Plain(directory), Content::Live(live))
                if directory.identity() == live.directory().identity() =>
            {
                Ok(None)
            }
            (RootState::Plain(directory), _) => {
                let held = self.metrics.held.clone();
                Ok(Some(Content::Live(LiveDirectory::new(directory, self.options.clone(), held))))
            }
            (RootState::Release(release), Content::Release(served)) => {
                if release.is(&served.release) {
                    Ok(None)
                } else {
                    self.load(&release, Some(served)).map(Some)
                }
            }
            (RootState::Release(release), Content::Waiting(_) | Content::Live(_)) => {
                self.load(&release, None).map(Some)
            }
        }
    }

    fn load(&self, release: &Release, previous: Option<&Generation>) -> io::Result<Content> {
        if let Some(refused) = self.refused().filter(|refused| Instant::now() < refused.retry) {
            return Err(io::Error::other(refused.reason));
        }
        let is_named = || link_stamp(&self.path).is_some_and(|named| named == release.link);
        let mut loaded = load(release, &self.options, previous, is_named);
        if let (Err(LoadError::NoRoom), Some(previous)) = (&loaded, previous) {
            // Pages that were loaded before the last swap are worth less than the next release.
            previous.stale_assets.evict();
            loaded = load(release, &self.options, Some(previous), is_named);
        }
        match loaded {
            Ok(generation) => {
                self.refuse(None);
                Ok(Content::Release(generation))
            }
            Err(LoadError::Io(error)) => Err(error),
            Err(LoadError::Replaced) => Err(ErrorKind::Interrupted.into()),
            Err(LoadError::NoRoom) => Err(io::Error::other(self.refuse(Some(release)))),
        }
    }

    /// A release that was refused counts for as long as the link names it.
    fn forget_refused(&self, seen: &io::Result<RootState>) {
        let named = match seen {
            Ok(RootState::Release(release)) => Some(release.link),
            Ok(RootState::Missing(_) | RootState::Plain(_)) => None,
            Err(error) if error.kind() == ErrorKind::NotADirectory => None,
            // Nothing is known of what the root names now.
            Err(_) => return,
        };
        if self.refused().is_some_and(|refused| Some(refused.link) != named) {
            self.refuse(None);
        }
    }

    /// Says in `/metrics` and `/status` whether a release does not fit, and gives the reason.
    fn refuse(&self, release: Option<&Release>) -> String {
        let mut reason = String::new();
        self.metrics.release_refused.set(release.is_some().into());
        *self.refused.lock() = release.map(|release| {
            let budget = &self.options.budget;
            let limit = budget.limit().map_or_else(|| "its limit".to_owned(), |limit| format!("{} MiB", limit / 1024 / 1024));
            reason = format!(
                "release {} does not fit into memory ({limit}) beside what is served: raise the container's memory limit, or \
                 --memory-limit (deploy/README.md, Memory, has the formula)",
                release.id.as_str()
            );
            let (link, retry) = (release.link, Instant::now() + REFUSED_RETRY);
            Refused { release: release.id.clone(), reason: reason.clone(), link, retry }
        });
        reason
    }

    /// The release that does not fit into memory, if one does not.
    pub(crate) fn refused(&self) -> Option<Refused> {
        self.refused.lock().clone()
    }

    /// Memory was given back: a release that did not fit is tried at the next look.
    pub(crate) fn try_refused_again(&self) {
        if let Some(refused) = &mut *self.refused.lock() {
            refused.retry = Instant::now();
        }
    }

    /// What is served instead of `before`, once something is; `None` where that takes too long.
    pub(crate) async fn replacement(&self, before: &Arc<Content>) -> Option<Arc<Content>> {
        let mut swaps = self.swaps.subscribe();
        let replaced = swaps.wait_for(|()| !Arc::ptr_eq(&self.content(), before));
        tokio::select! {
            replaced = timeout(REPLACEMENT, replaced) => replaced.is_ok().then(|| self.content()),
            () = self.shutdown.cancelled() => None,
        }
    }

    fn let_go_of_retired(&self) {
        let is_over = |content: &mut Arc<Content>| Arc::strong_count(content) == 1;
        let over: Vec<_> = self.retired.lock().extract_if(.., is_over).collect();
        // Not under the lock.
        drop(over);
    }

    fn announce(&self, site: &Content, before: &Content) {
        match site {
            Content::Waiting(reason) => {
                self.metrics.serves(None, 0);
                tracing::warn!("{reason}; content is answered 503 until it does");
            }
            Content::Live(_) => {
                self.metrics.swaps.inc();
                self.metrics.serves(None, 0);
                tracing::info!(root = %self.path.display(), "serving a plain directory");
            }
            Content::Release(generation) => {
                let release = generation.release.id.as_str();
                self.metrics.serves(Some(release), generation.held);
                let (files, held) = (generation.index.len(), generation.held);
                if before.release().as_ref() == Some(&generation.release.id) {
                    tracing::info!(release, files, held, "release republished; reloaded");
                } else {
                    self.metrics.swaps.inc();
                    tracing::info!(release, files, held, "serving");
                }
            }
        }
    }

    /// Says what is wrong with the root, once for as long as it is.
    fn warn_once(&self, trouble: String) {
        let mut known = self.trouble.lock();
        if known.as_ref() != Some(&trouble) {
            tracing::warn!("{trouble}; what was served before stays");
            *known = Some(trouble);
        }
    }

    fn clear_warning(&self) {
        *self.trouble.lock() = None;
    }
}

/// What the kubelet calls the link in a ConfigMap, Secret or projected volume.
pub(crate) const KUBELET_LINK: &str = "..data";

/// Whether the kubelet writes this directory: a ConfigMap, Secret or projected volume keeps its release behind `..data`.
pub(crate) fn kubelet_link(root: &Path) -> Option<PathBuf> {
    let link = root.join(KUBELET_LINK);
    link.is_symlink().then_some(link)
}

/// The link that says which release is served, as it is now.
fn link_stamp(root: &Path) -> Option<LinkStamp> {
    let link = fs::symlink_metadata(root).ok()?;
    if link.is_symlink() {
        return Some(LinkStamp::of(&link));
    }
    Some(LinkStamp::of(&fs::symlink_metadata(kubelet_link(root)?).ok()?))
}

/// # Errors
/// `NotADirectory` where the root can never be served: it is a file, a FIFO or the like, or a link to one.
fn look(root: &Path) -> io::Result<RootState> {
    look_at(root).map_err(|error| match error.kind() {
        ErrorKind::NotADirectory => {
            let root = root.display();
            let reason = format!("{root} is not a directory: give --root a directory, or a link to one");
            io::Error::new(ErrorKind::NotADirectory, reason)
        }
        _ => error,
    })
}

fn look_at(root: &Path) -> io::Result<RootState> {
    let missing = || RootState::Missing(format!("no content yet: {} does not exist", root.display()));
    for _ in 0..SWAP_RACES {
        let link = match fs::symlink_metadata(root) {
            Ok(metadata) if metadata.is_symlink() => root.to_owned(),
            Ok(metadata) if metadata.is_dir() => match kubelet_link(root) {
                Some(link) => link,
                None => return Directory::open(root).map(RootState::Plain),
            },
            Ok(_) => return Err(ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(missing()),
            // A file stands where one of the directories above should.
            Err(error) if error.kind() == ErrorKind::NotADirectory => return Ok(missing()),
            Err(error) => return Err(error),
        };
        // The link is read once and what it named is opened: name and directory belong together, whatever the link
        // says by now.
        match open_link(&link) {
            Ok(release) => return Ok(RootState::Release(release)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(RootState::Missing(format!("no content yet: {} points to what does not exist", root.display())))
}

fn open_link(link: &Path) -> io::Result<Release> {
    // Before it is read: if it is swapped in between, its stamp is found to be another at the next look.
    let metadata = fs::symlink_metadata(link)?;
    let target = fs::read_link(link)?;
    let path = link.parent().unwrap_or(Path::new("")).join(&target);
    Ok(Release {
        id: ReleaseId::of(&target),
        link: LinkStamp::of(&metadata),
        directory: Arc::new(Directory::open(&path)?),
        path,
        since: metadata.modified()?,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use lifecycle::metrics::Registrar;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::memory::{Account, Budget};

    const LIMIT: u64 = 64 * 1024 * 1024;

    fn publish(volume: &Path, id: &str) {
        std::fs::create_dir_all(volume.join(id)).unwrap();
        std::fs::write(volume.join(id).join("index.html"), id).unwrap();
        symlink(id, volume.join("next")).unwrap();
        std::fs::rename(volume.join("next"), volume.join("current")).unwrap();
    }

    /// A root, and the memory that its releases have to fit into.
    fn limited(root: &Path) -> (Arc<Budget>, ContentRoot) {
        let budget = Budget::hidden(Some(LIMIT));
        let options = LoadOptions {
            cache: 0,
            stale_assets: Duration::ZERO,
            header_policy: Arc::default(),
            budget: Arc::clone(&budget),
        };
        let metrics = Metrics::register(&mut Registrar::new(&mut Registry::default()));
        let root = ContentRoot::new(root, options, Arc::new(metrics), CancellationToken::new());
        (budget, root)
    }

    #[test]
    fn a_release_that_does_not_fit_is_not_loaded_at_each_look() {
        let dir = tempfile::tempdir().unwrap();
        let (budget, root) = limited(&dir.path().join("current"));
        let publish = |id: &str| publish(dir.path(), id);
        let served = || root.content().release().map(|release| release.as_str().to_owned());
        publish("one");
        root.refresh();
        assert_eq!(served().as_deref(), Some("one"));
        budget.charge(Account::Index, LIMIT);
        publish("two");
        root.refresh();
        assert!(root.refused().is_some());
        // There would be room now, and it is not found out at each look.
        budget.refund(Account::Index, LIMIT);
        root.refresh();
        assert_eq!(served().as_deref(), Some("one"));
        root.try_refused_again();
        root.refresh();
        assert_eq!(served().as_deref(), Some("two"));
        assert!(root.refused().is_none());
        // Nor does one wait that is published again.
        budget.charge(Account::Index, LIMIT);
        publish("three");
        root.refresh();
        budget.refund(Account::Index, LIMIT);
        assert_eq!(served().as_deref(), Some("two"));
        publish("three");
        root.refresh();
        assert_eq!(served().as_deref(), Some("three"));
    }

    #[test]
    fn a_release_that_the_link_names_no_more_is_not_refused() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("current");
        let (budget, root) = limited(&link);
        let is_refused = || (root.refused().is_some(), root.metrics.release_refused.get());
        for id in ["one", "two"] {
            publish(dir.path(), id);
        }
        let refuse = || {
            budget.charge(Account::Index, LIMIT);
            publish(dir.path(), "two");
            root.refresh();
            budget.refund(Account::Index, LIMIT);
            assert_eq!(is_refused(), (true, 1));
        };
        refuse();
        std::fs::remove_file(&link).unwrap();
        root.refresh();
        assert_eq!(is_refused(), (false, 0), "the root is missing");
        refuse();
        std::fs::remove_file(&link).unwrap();
        std::fs::create_dir(&link).unwrap();
        root.refresh();
        assert_eq!(is_refused(), (false, 0), "the root is a plain directory");
        std::fs::remove_dir(&link).unwrap();
        publish(dir.path(), "one");
        root.refresh();
        let served = std::fs::read_link(&link).unwrap();
        refuse();
        std::fs::remove_file(&link).unwrap();
        symlink(served, &link).unwrap();
        root.refresh();
        assert_eq!(is_refused(), (false, 0), "the link names what is served");
    }
}
