//! A generation: one published release, ready to be served.
//!
//! A release never changes after it was published, so everything about it is worked out once, off the event loop, before its
//! first request: which paths there are, their entity tags, and the bodies of smaller files. A request takes one generation and is
//! answered from it alone, so that no answer can mix two releases. What the previous generation holds already is shared,
//! not read again.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::coding::Coding;
use super::digest::Digest;
use super::entry::{Entry, Facts};
use super::header_policy::REVALIDATE;
use super::index::{Index, LoadOptions, represent};
use super::large_file::{LargeFile, OpenFiles};
use super::media_type;
use super::path::ContentPath;
use super::release::{LinkStamp, ReleaseId};
use super::representation::{ETag, Modified, Representation, Source};
use super::stale_assets::StaleAssets;

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
    /// When its link was made, or the link of a release before it, whichever is later.
    pub(crate) published: SystemTime,
    stale_assets: StaleAssets,
    index: Index,
    open_files: Arc<OpenFiles>,
    options: LoadOptions,
}

/// A file, as a manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileEntry {
    /// Relative to the root.
    pub(crate) path: String,
    pub(crate) size: u64,
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

/// Everything that a generation is made of.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) release: ReleaseId,
    pub(super) path: PathBuf,
    pub(super) link: LinkStamp,
    pub(super) identity: (u64, u64),
    pub(super) published: SystemTime,
    pub(super) stale_assets: StaleAssets,
    pub(super) index: Index,
    pub(super) open_files: Arc<OpenFiles>,
}

impl Generation {
    /// A generation of what was loaded.
    pub(super) fn new(loaded: Loaded, bodies: &HashMap<Entry, Source>, options: LoadOptions) -> Self {
        let Loaded { release, path, link, identity, published, stale_assets, index, open_files } = loaded;
        let held = bodies.values().map(Source::held).sum();
        let mut generation =
            Self { release, path, link, held, identity, published, stale_assets, index, open_files, options };
        let ready: Vec<_> = bodies
            .keys()
            .map(|entry| (entry.clone(), Arc::new(generation.represent(entry, Some(bodies)))))
            .collect();
        for (entry, representation) in ready {
            generation.index.keep_ready(entry, representation);
        }
        generation
    }

    /// Looks a path up.
    pub(crate) fn find(&self, path: &ContentPath) -> Found {
        let file = path.file();
        match self.file(file) {
            Some(representation) => Found::File(representation),
            None if path.may_be_redirected() && self.has_directory(file) => Found::Directory,
            None => Found::Nothing,
        }
    }

    /// The file at exactly this path.
    pub(crate) fn file(&self, path: &str) -> Option<Arc<Representation>> {
        let (entry, ready) = self.index.find(path)?;
        Some(ready.map_or_else(|| Arc::new(self.represent(entry, None)), Arc::clone))
    }

    /// A file of the release for a puller, under whatever name: visitors cannot ask for hidden ones. Blocks.
    pub(crate) fn any_file(&self, path: &str, digest: Digest) -> io::Result<Option<Representation>> {
        if let Some(listed) = self.file(path) {
            return Ok(Some(Representation { alternatives: Vec::new(), ..(*listed).clone() }));
        }
        let Some(stamp) = self.open_files.state(path)? else { return Ok(None) };
        let modified = Modified::at(self.published);
        let file = LargeFile::new(&self.open_files, path, stamp);
        Ok(Some(Representation {
            etag: ETag::of(digest),
            modified,
            last_modified: modified.header(),
            cache_control: REVALIDATE,
            content_type: media_type::of(path),
            source: Source::Large(Arc::new(file)),
            coding: Coding::Identity,
            alternatives: Vec::new(),
        }))
    }

    /// The entry at a path.
    pub(super) fn entry(&self, path: &str) -> Option<&Entry> {
        self.index.get(path)
    }

    /// The body of a file that is held in memory.
    pub(super) fn body(&self, path: &str) -> Option<&Source> {
        let ready = self.index.find(path)?.1?;
        matches!(ready.source, Source::Memory(_)).then_some(&ready.source)
    }

    /// What is left over when `next` takes its place: its own assets, and those of the releases before it.
    pub(super) fn leave_to(&self, next: &Index, options: &LoadOptions) -> StaleAssets {
        self.stale_assets.carry_over(&self.release, &self.index, &self.open_files, next, options)
    }

    /// What releases before it had and it has not.
    pub(crate) fn stale_assets(&self) -> &StaleAssets {
        &self.stale_assets
    }

    /// The asset at a path that an earlier release had, and which that was.
    pub(crate) fn stale_asset(&self, path: &str) -> Option<(ReleaseId, Arc<Representation>)> {
        self.stale_assets.find(path, &self.options)
    }

    /// Whether there is such a directory, the root left out.
    pub(crate) fn has_directory(&self, path: &str) -> bool {
        self.index.has_directory(path)
    }

    /// Every directory, the root left out, in no order.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &str> {
        self.index.directories()
    }

    /// Every file, in no order.
    pub(crate) fn listing(&self) -> impl Iterator<Item = FileEntry> {
        self.index.entries().map(|entry| {
            let Facts { digest, state, modified, executable, .. } = entry.facts();
            FileEntry { path: entry.path().to_owned(), size: state.size, digest, executable, modified }
        })
    }

    /// How many files there are.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    fn represent(&self, entry: &Entry, bodies: Option<&HashMap<Entry, Source>>) -> Representation {
        let path = entry.path();
        let facts = entry.facts();
        let mut representation = represent(entry, self.source(entry, bodies), &self.options.header_policy);
        for coding in facts.codings.iter() {
            let Some(sibling) = self.entry(&format!("{path}{}", coding.suffix())) else { continue };
            let source = self.source(sibling, bodies);
            representation.alternatives.push(Arc::new(Representation {
                cache_control: representation.cache_control.clone(),
                content_type: representation.content_type.clone(),
                coding,
                ..represent(sibling, source, &self.options.header_policy)
            }));
        }
        representation
    }

    fn source(&self, entry: &Entry, bodies: Option<&HashMap<Entry, Source>>) -> Source {
        let held = match bodies {
            Some(bodies) => bodies.get(entry),
            None => self.body(entry.path()),
        };
        held.cloned().unwrap_or_else(|| {
            let file = LargeFile::new(&self.open_files, entry.path(), entry.facts().state);
            Source::Large(Arc::new(file))
        })
    }
}
