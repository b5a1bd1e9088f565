//! What is served right now: nothing yet, a release, or a plain directory.
//!
//! The root is looked at when something stirs beside it ([`crate::watch`]). What it has become is made ready first, and
//! then put in place in one step: requests before it see the old site, requests after it the new one, and none waits.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::confine::Directory;
use crate::generation::Generation;
use crate::live::LiveDirectory;
use crate::metrics::Metrics;
use crate::published::{Published, ReleaseId, digests_beside};

/// How often a link is read again whose target was gone by the time it was opened.
const SWAP_RACES: usize = 16;

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

/// The root, and what it holds now.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    budget: u64,
    site: ArcSwap<Site>,
    metrics: Arc<Metrics>,
    /// What was last complained of, so that a poll does not say it every time.
    trouble: Mutex<Option<String>>,
}

/// What the root is found to be.
enum Seen {
    Missing(String),
    Release { release: ReleaseId, target: PathBuf, directory: Directory, published: std::time::SystemTime },
    Plain(Directory),
}

impl Root {
    /// Serves nothing until the first [`Root::refresh`].
    pub fn new(path: &Path, budget: u64, metrics: Arc<Metrics>) -> Self {
        // `current/` would be the directory behind the link; we are interested in the link.
        let path: PathBuf = path.components().collect();
        let waiting = Site::Waiting(format!("no content yet: {} is being loaded", path.display()));
        Self { path, budget, site: ArcSwap::from_pointee(waiting), metrics, trouble: Mutex::default() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is served now. Who answers a request asks once.
    pub fn site(&self) -> Arc<Site> {
        self.site.load_full()
    }

    /// Looks at the root and, if it has become something else, serves that from here on. Blocks.
    ///
    /// # Errors
    /// Where the root can never be served, because it is no directory.
    pub fn refresh(&self) -> Result<(), NotADirectory> {
        let now = self.site();
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
                self.announce(&site);
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
            (Seen::Plain(directory), _) => Ok(Some(Site::Live(LiveDirectory::new(directory, self.budget)?))),
            (Seen::Release { release, directory, .. }, Site::Release(generation))
                if release == generation.release && directory.identity()? == generation.identity =>
            {
                Ok(None)
            }
            (Seen::Release { release, target, directory, published }, now) => {
                let previous = if let Site::Release(generation) = now { Some(generation) } else { None };
                let digests = digests_beside(&target);
                let published = Published { release, directory, published, digests };
                Ok(Some(Site::Release(Generation::load(published, self.budget, previous)?)))
            }
        }
    }

    fn announce(&self, site: &Site) {
        match site {
            Site::Waiting(reason) => tracing::warn!("{reason}; content is answered 503 until it does"),
            Site::Live(_) => {
                self.metrics.swapped(None, 0);
                tracing::info!(root = %self.path.display(), "serving a plain directory");
            }
            Site::Release(generation) => {
                let release = generation.release.as_str();
                self.metrics.swapped(Some(release), generation.held);
                tracing::info!(release, files = generation.len(), held = generation.held, "serving");
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

/// Whether the kubelet writes this directory: a ConfigMap, Secret or projected volume keeps its release behind `..data`.
pub fn kubelet_link(root: &Path) -> Option<PathBuf> {
    let link = root.join("..data");
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
    let published = fs::symlink_metadata(link)?.modified()?;
    let target = fs::read_link(link)?;
    let release = ReleaseId::of(&target);
    let target = link.parent().unwrap_or(Path::new("")).join(target);
    let directory = Directory::open(&target)?;
    Ok(Seen::Release { release, target, directory, published })
}
