//! What is served right now: nothing yet, a release, or a plain directory.
//!
//! The root is looked at when something stirs beside it ([`crate::watch`]). What it has become is made ready first, and
//! then put in place in one step: requests before it see the old site, requests after it the new one, and none waits.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::SetOnce;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::body::Origin;
use crate::confine::Directory;
use crate::generation::{Generation, Policy};
use crate::live::LiveDirectory;
use crate::metrics::Metrics;
use crate::published::{LinkStamp, Published, ReleaseId, digests_beside};

/// How often a link is read again whose target was gone by the time it was opened.
const SWAP_RACES: usize = 16;
/// How long a request waits for the first look at the root. Mostly that is over before the first request comes; a large
/// release takes longer, and clients are better told to come back.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// What is served.
#[derive(Debug)]
pub enum Site {
    /// Nothing, and why.
    Waiting(String),
    /// A release, until the link names another.
    Release(Generation),
    /// A directory as it is at each request.
    Live(LiveDirectory),
}

impl Site {
    /// The release that it is, if it is one.
    pub fn release(&self) -> Option<ReleaseId> {
        match self {
            Self::Release(generation) => Some(generation.release.clone()),
            Self::Waiting(_) | Self::Live(_) => None,
        }
    }
}

/// The root, and what it holds now.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    policy: Policy,
    site: ArcSwap<Site>,
    metrics: Arc<Metrics>,
    /// What was last complained of, so that a poll does not say it every time.
    trouble: Mutex<Option<String>>,
    /// Set when the first look is over, whatever it saw.
    looked: SetOnce<()>,
    shutdown: CancellationToken,
}

/// What the root is found to be.
enum Seen {
    Missing(String),
    Release {
        release: ReleaseId,
        link: LinkStamp,
        target: PathBuf,
        directory: Directory,
        published: SystemTime,
    },
    Plain(Directory),
}

impl Root {
    /// Serves nothing until the first [`Root::refresh`].
    pub fn new(path: &Path, policy: Policy, metrics: Arc<Metrics>, shutdown: CancellationToken) -> Self {
        // `current/` would be the directory behind the link; we are interested in the link.
        let path: PathBuf = path.components().collect();
        let waiting = Site::Waiting(format!("no content yet: {} is being loaded", path.display()));
        Self {
            path,
            policy,
            site: ArcSwap::from_pointee(waiting),
            metrics,
            trouble: Mutex::default(),
            looked: SetOnce::new(),
            shutdown,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is served now. Who answers a request asks once.
    pub fn site(&self) -> Arc<Site> {
        self.site.load_full()
    }

    /// Counts an answer by where its body comes from.
    pub fn sends(&self, origin: Origin) {
        match origin {
            Origin::Nowhere => {}
            Origin::Memory => drop(self.metrics.from_memory.inc()),
            Origin::Volume => drop(self.metrics.from_volume.inc()),
        }
    }

    /// What is served now, after the first look at the root, unless that takes too long.
    pub async fn site_looked_at(&self) -> Arc<Site> {
        let site = self.site();
        if self.looked.initialized() {
            return site;
        }
        tokio::select! {
            _ = timeout(FIRST_LOOK, self.looked.wait()) => {}
            // Who is told to go does not wait for what would be served.
            () = self.shutdown.cancelled() => {}
        }
        self.site()
    }

    /// Whether the root can ever be served. Blocks for a moment.
    ///
    /// # Errors
    /// Where it is no directory.
    pub fn check(&self) -> Result<(), NotADirectory> {
        match look(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotADirectory => Err(NotADirectory(self.path.clone())),
            // What else there is to say is said when it is loaded.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Looks at the root and, if it has become something else, serves that from here on. Blocks.
    ///
    /// # Errors
    /// Where the root can never be served, because it is no directory.
    pub fn refresh(&self) -> Result<(), NotADirectory> {
        let refreshed = self.look_again();
        // Only the first time does anything.
        let _ = self.looked.set(());
        refreshed
    }

    fn look_again(&self) -> Result<(), NotADirectory> {
        let now = self.site();
        if let Site::Release(generation) = &*now {
            generation.leftovers.expire();
        }
        let next = match look(&self.path) {
            Ok(seen) => self.prepare(seen, &now),
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                return Err(NotADirectory(self.path.clone()));
            }
            Err(error) => Err(error),
        };
        match next {
            Ok(None) => self.content(),
            Ok(Some(site)) => {
                self.content();
                self.announce(&site, &now);
                self.site.store(Arc::new(site));
            }
            // What is served stays: an older release is better than none.
            Err(error) => self.complain(format!("cannot load {}: {error}", self.path.display())),
        }
        Ok(())
    }

    /// `None` where nothing changed.
    fn prepare(&self, seen: Seen, now: &Site) -> io::Result<Option<Site>> {
        match (seen, now) {
            (Seen::Missing(reason), Site::Waiting(known)) if *known == reason => Ok(None),
            (Seen::Missing(reason), Site::Waiting(_) | Site::Live(_)) => Ok(Some(Site::Waiting(reason))),
            (Seen::Missing(reason), Site::Release(_)) => Err(io::Error::new(ErrorKind::NotFound, reason)),
            (Seen::Plain(directory), Site::Live(live)) if directory.identity()? == live.identity => Ok(None),
            (Seen::Plain(directory), _) => {
                let held = self.metrics.held.clone();
                Ok(Some(Site::Live(LiveDirectory::new(directory, self.policy.clone(), held)?)))
            }
            (Seen::Release { release, link, directory, .. }, Site::Release(generation))
                if release == generation.release
                    && link == generation.link
                    && directory.identity()? == generation.identity =>
            {
                Ok(None)
            }
            (Seen::Release { release, link, target, directory, published }, now) => {
                let previous = if let Site::Release(generation) = now { Some(generation) } else { None };
                let digests = digests_beside(&target);
                let published = Published { release, link, directory, published, digests };
                Ok(Some(Site::Release(Generation::load(published, &self.policy, previous)?)))
            }
        }
    }

    fn announce(&self, site: &Site, before: &Site) {
        self.metrics.generation.inc();
        match site {
            Site::Waiting(reason) => {
                self.metrics.serves(None, 0);
                tracing::warn!("{reason}; content is answered 503 until it does");
            }
            Site::Live(_) => {
                self.metrics.swaps.inc();
                self.metrics.serves(None, 0);
                tracing::info!(root = %self.path.display(), "serving a plain directory");
            }
            Site::Release(generation) => {
                let release = generation.release.as_str();
                self.metrics.serves(Some(release), generation.held);
                let (files, held) = (generation.len(), generation.held);
                if before.release().as_ref() == Some(&generation.release) {
                    tracing::info!(release, files, held, "published anew: loaded once more");
                } else {
                    self.metrics.swaps.inc();
                    tracing::info!(release, files, held, "serving");
                }
            }
        }
    }

    /// Says what is wrong with the root, once for as long as it is.
    pub(crate) fn complain(&self, trouble: String) {
        let mut known = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != Some(&trouble) {
            tracing::warn!("{trouble}; what was served before stays");
            *known = Some(trouble);
        }
    }

    fn content(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The root is a file, a FIFO or the like.
#[derive(Debug)]
pub struct NotADirectory(PathBuf);

impl std::fmt::Display for NotADirectory {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} is not a directory: give --root a directory, or a link to one", self.0.display())
    }
}

impl std::error::Error for NotADirectory {}

/// What the kubelet calls the link in a ConfigMap, Secret or projected volume.
pub const KUBELET_LINK: &str = "..data";

/// Whether the kubelet writes this directory: a ConfigMap, Secret or projected volume keeps its release behind `..data`.
pub fn kubelet_link(root: &Path) -> Option<PathBuf> {
    let link = root.join(KUBELET_LINK);
    link.is_symlink().then_some(link)
}

fn look(root: &Path) -> io::Result<Seen> {
    let missing = || Seen::Missing(format!("no content yet: {} does not exist", root.display()));
    for _ in 0..SWAP_RACES {
        let link = match fs::symlink_metadata(root) {
            Ok(metadata) if metadata.is_symlink() => root.to_owned(),
            Ok(metadata) if metadata.is_dir() => match kubelet_link(root) {
                Some(link) => link,
                None => return Directory::open(root).map(Seen::Plain),
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
            Ok(release) => return Ok(release),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Seen::Missing(format!("no content yet: {} points to what does not exist", root.display())))
}

fn open_link(link: &Path) -> io::Result<Seen> {
    // Before it is read: if it is swapped in between, its stamp is found to be another at the next look.
    let metadata = fs::symlink_metadata(link)?;
    let target = fs::read_link(link)?;
    let release = ReleaseId::of(&target);
    let target = link.parent().unwrap_or(Path::new("")).join(target);
    let directory = Directory::open(&target)?;
    let (link, published) = (LinkStamp::of(&metadata), metadata.modified()?);
    Ok(Seen::Release { release, link, target, directory, published })
}
