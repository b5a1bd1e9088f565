//! A generation: one published release, ready to be served.
//!
//! A release never changes after it was published, so everything about it is worked out once, off the event loop, before its
//! first request: which paths there are, their entity tags, and the bodies of smaller files. A request takes one generation and is
//! answered from it alone, so that no answer can mix two releases. What the previous generation holds already is shared,
//! not read again.

mod loader;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::content::coding::Coding;
use crate::content::digest::Digest;
use crate::content::dir::FileState;
use crate::content::header_policy::{HeaderPolicy, REVALIDATE};
use crate::content::large_file::{LargeFile, OpenFiles};
use crate::content::media_type;
use crate::content::path::ContentPath;
use crate::content::release::{LinkStamp, ReleaseId};
use crate::content::representation::{ETag, Modified, Representation, Source};
use crate::content::stale_assets::StaleAssets;

/// One release's table.
#[derive(Debug)]
pub(crate) struct Generation {
    /// Which release.
    pub(crate) release: ReleaseId,
    /// Where it is. Its manifest and its signature are beside it.
    pub(crate) path: PathBuf,
    /// The link that named it.
    pub(crate) link: LinkStamp,
    /// Bytes of bodies held in memory.
    pub(crate) held: u64,
    /// Device and inode of the release's directory.
    pub(crate) identity: (u64, u64),
    /// When its link was made.
    pub(crate) published: SystemTime,
    /// What releases before it had and it has not.
    pub(crate) stale_assets: StaleAssets,
    files: HashMap<Arc<str>, Entry>,
    directories: HashSet<String>,
    open_files: Arc<OpenFiles>,
}

/// How releases are made ready.
#[derive(Debug, Clone)]
pub(crate) struct LoadOptions {
    /// Bytes of bodies that may be held in memory.
    pub(crate) budget: u64,
    /// How long assets of a release are given out that the next one has no more.
    pub(crate) stale_assets: Duration,
    /// What is said of content.
    pub(crate) header_policy: Arc<HeaderPolicy>,
}

#[derive(Debug)]
struct Entry {
    digest: Digest,
    executable: bool,
    stamp: FileState,
    representation: Arc<Representation>,
}

/// A file, as a manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileEntry {
    /// Relative to the root.
    pub(crate) path: String,
    /// In bytes.
    pub(crate) size: u64,
    /// Of its bytes.
    pub(crate) digest: Digest,
    /// Any of the three executable bits.
    pub(crate) executable: bool,
    /// At the latest.
    pub(crate) modified: Modified,
}

/// What a path names in some content.
#[derive(Debug)]
pub(crate) enum Found {
    /// This.
    File(Arc<Representation>),
    /// A directory, asked for without the slash at the end.
    Directory,
    /// Nothing.
    Nothing,
}

impl Generation {
    /// Looks a path up.
    pub(crate) fn find(&self, path: &ContentPath) -> Found {
        let file = path.file();
        match self.file(file) {
            Some(representation) => Found::File(representation),
            None if path.may_be_redirected() && self.directories.contains(file) => Found::Directory,
            None => Found::Nothing,
        }
    }

    /// The file at exactly this path.
    pub(crate) fn file(&self, path: &str) -> Option<Arc<Representation>> {
        self.files.get(path).map(|entry| Arc::clone(&entry.representation))
    }

    /// A file of the release for a puller, under whatever name: visitors cannot ask for hidden ones. Blocks.
    pub(crate) fn any_file(&self, path: &str, digest: Digest) -> io::Result<Option<Representation>> {
        if let Some(listed) = self.file(path) {
            return Ok(Some(Representation { alternatives: Vec::new(), ..(*listed).clone() }));
        }
        let Some(stamp) = self.open_files.state(path)? else { return Ok(None) };
        let modified = Modified::at(self.published);
        let file = LargeFile::new(&self.open_files, path.into(), stamp);
        Ok(Some(Representation {
            etag: ETag::of(digest),
            modified,
            last_modified: modified.header(),
            cache_control: REVALIDATE,
            content_type: media_type::of(path),
            content: Source::Large(Arc::new(file)),
            coding: Coding::Identity,
            alternatives: Vec::new(),
        }))
    }

    /// What is left of this release and those before it when one comes with these files.
    fn assets_gone_in(&self, next: &HashMap<Arc<str>, Entry>, policy: &LoadOptions) -> StaleAssets {
        let gone = self.files.iter().filter(|(path, entry)| {
            let page = entry.representation.content_type.as_bytes().starts_with(b"text/html");
            !page && !next.contains_key(*path)
        });
        let left = gone.map(|(path, entry)| {
            let stored = LargeFile::new(&self.open_files, Arc::clone(path), entry.stamp);
            let content = Source::Large(Arc::new(stored));
            // For so short a time one coding will do.
            let file =
                Representation { content, alternatives: Vec::new(), ..(*entry.representation).clone() };
            (Arc::clone(path), Arc::new(file))
        });
        let left = if policy.stale_assets.is_zero() { HashMap::new() } else { left.collect() };
        self.stale_assets.carry_over(&self.release, left, policy.stale_assets, |path| next.contains_key(path))
    }

    /// Whether there is such a directory, the root left out.
    pub(crate) fn has_directory(&self, path: &str) -> bool {
        self.directories.contains(path)
    }

    /// Every directory, the root left out, in no order.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &str> {
        self.directories.iter().map(String::as_str)
    }

    /// Every file, in no order.
    pub(crate) fn listing(&self) -> impl Iterator<Item = FileEntry> {
        self.files.iter().map(|(path, entry)| FileEntry {
            path: path.to_string(),
            size: entry.representation.content.size(),
            digest: entry.digest,
            executable: entry.executable,
            modified: entry.representation.modified,
        })
    }

    /// How many files there are.
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }
}
