//! A generation: one published release, ready to be served.
//!
//! A release never changes after it was published, so everything about it is worked out once, off the event loop, before its
//! first request: which paths there are, their entity tags, and the bodies of smaller files. A request takes one generation and is
//! answered from it alone, so that no answer can mix two releases. What the previous generation holds already is shared,
//! not read again.

mod loading;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::confine::Stamp;
use crate::digest::Digest;
use crate::leftover::Leftovers;
use crate::presentation::Presentation;
use crate::published::{LinkStamp, ReleaseId};
use crate::representation::{Content, Modified, Representation};
use crate::stored::{Shelf, Stored};
use crate::target::ContentPath;

/// One release's table.
#[derive(Debug)]
pub struct Generation {
    /// Which release.
    pub release: ReleaseId,
    /// The link that named it.
    pub link: LinkStamp,
    /// Bytes of bodies held in memory.
    pub held: u64,
    /// Device and inode of the release's directory.
    pub identity: (u64, u64),
    /// When its link was made.
    pub published: SystemTime,
    /// What releases before it had and it has not.
    pub leftovers: Leftovers,
    files: HashMap<Arc<str>, Entry>,
    directories: HashSet<String>,
    shelf: Arc<Shelf>,
}

/// How releases are made ready.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Bytes of bodies that may be held in memory.
    pub budget: u64,
    /// How long assets of a release are given out that the next one has no more.
    pub stale_assets: Duration,
    /// What is said of content.
    pub presentation: Arc<Presentation>,
}

#[derive(Debug)]
struct Entry {
    digest: Digest,
    executable: bool,
    stamp: Stamp,
    representation: Arc<Representation>,
}

/// A file, as a manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Relative to the root.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Of its bytes.
    pub digest: Digest,
    /// Any of the three executable bits.
    pub executable: bool,
    /// At the latest.
    pub modified: Modified,
}

/// What a path names in some content.
#[derive(Debug)]
pub enum Found {
    /// This.
    File(Arc<Representation>),
    /// A directory, asked for without the slash at the end.
    Directory,
    /// Nothing.
    Nothing,
}

impl Generation {
    /// Looks a path up.
    pub fn find(&self, path: &ContentPath) -> Found {
        let file = path.file();
        match self.file(file) {
            Some(representation) => Found::File(representation),
            None if path.may_be_redirected() && self.directories.contains(file) => Found::Directory,
            None => Found::Nothing,
        }
    }

    /// The file at exactly this path.
    pub fn file(&self, path: &str) -> Option<Arc<Representation>> {
        self.files.get(path).map(|entry| Arc::clone(&entry.representation))
    }

    /// What is left of this release and those before it when one comes with these files.
    fn left_over_by(&self, next: &HashMap<Arc<str>, Entry>, policy: &Policy) -> Leftovers {
        let gone = self.files.iter().filter(|(path, entry)| {
            let page = entry.representation.content_type.as_bytes().starts_with(b"text/html");
            !page && !next.contains_key(*path)
        });
        let left = gone.map(|(path, entry)| {
            let stored = Stored::new(&self.shelf, Arc::clone(path), entry.stamp);
            let content = Content::Stored(Arc::new(stored));
            // For so short a time one coding will do.
            let file =
                Representation { content, alternatives: Vec::new(), ..(*entry.representation).clone() };
            (Arc::clone(path), Arc::new(file))
        });
        let left = if policy.stale_assets.is_zero() { HashMap::new() } else { left.collect() };
        self.leftovers.after(&self.release, left, policy.stale_assets, |path| next.contains_key(path))
    }

    /// Whether there is such a directory, the root left out.
    pub fn has_directory(&self, path: &str) -> bool {
        self.directories.contains(path)
    }

    /// Every directory, the root left out, in no order.
    pub fn directories(&self) -> impl Iterator<Item = &str> {
        self.directories.iter().map(String::as_str)
    }

    /// Every file, in no order.
    pub fn listing(&self) -> impl Iterator<Item = Listed> {
        self.files.iter().map(|(path, entry)| Listed {
            path: path.to_string(),
            size: entry.representation.content.size(),
            digest: entry.digest,
            executable: entry.executable,
            modified: entry.representation.modified,
        })
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}
