//! A generation: one published release, ready to be served.
//!
//! A release never changes after it was published, so everything about it is worked out once, off the event loop, before its
//! first request: which paths there are, their entity tags, and the bodies of smaller files. A request takes one generation and is
//! answered from it alone, so that no answer can mix two releases. What the previous generation holds already is shared,
//! not read again.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::digest::Digest;
use super::entry::{Entry, Facts};
use super::index::{Index, LoadOptions, represent};
use super::large_file::{LargeFile, OpenFiles};
use super::media_type;
use super::path::ContentPath;
use super::release::{Release, ReleaseId};
use super::representation::{Modified, Representation, Source};
use super::stale_assets::StaleAssets;
use crate::memory::Budget;

/// One release's table.
#[derive(Debug)]
pub(crate) struct Generation {
    /// Which release.
    pub(crate) release: Release,
    /// The date of what has changed with it: the link's, but later than all that was dated in earlier generations.
    pub(crate) published: Modified,
    /// Bytes of bodies held in memory.
    pub(crate) held: u64,
    /// What releases before it had and it has not.
    pub(crate) stale_assets: StaleAssets,
    /// What it has.
    pub(crate) index: Index,
    open_files: Arc<OpenFiles>,
    options: LoadOptions,
}

/// A file, as a manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileEntry<'a> {
    /// Relative to the root.
    pub(crate) path: &'a str,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    /// Any of the three executable bits.
    pub(crate) executable: bool,
    /// At the latest.
    pub(crate) modified: Modified,
}

impl<'a> FileEntry<'a> {
    /// A file of a release.
    pub(crate) fn of(entry: &'a Entry) -> Self {
        let Facts { digest, state, modified, executable, .. } = entry.facts();
        Self { path: entry.path(), size: state.size, digest, executable, modified }
    }
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
    /// A generation of what was loaded.
    pub(super) fn new(
        release: Release,
        published: Modified,
        stale_assets: StaleAssets,
        index: Index,
        open_files: Arc<OpenFiles>,
        bodies: &HashMap<Entry, Source>,
        options: LoadOptions,
    ) -> Self {
        let held = bodies.values().map(Source::held).sum();
        let mut generation = Self { release, published, held, stale_assets, index, open_files, options };
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
            None if path.may_be_redirected() && self.index.has_directory(file) => Found::Directory,
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
        let source = Source::Large(Arc::new(LargeFile::new(&self.open_files, path, stamp)));
        Ok(Some(Representation::new(digest, self.published, media_type::of(path), source)))
    }

    /// The body of a file that is held in memory, if it is this one.
    pub(super) fn body(&self, path: &str, digest: Digest) -> Option<&Source> {
        let (entry, ready) = self.index.find(path)?;
        ready.map(|ready| &ready.source).filter(|_| entry.digest() == digest)
    }

    /// What is left over when `next` takes its place: its own assets, and those of the releases before it.
    pub(super) fn leave_to(&self, next: &Index, options: &LoadOptions) -> StaleAssets {
        self.stale_assets.carry_over(&self.release.id, &self.index, &self.open_files, next, options)
    }

    /// The asset at a path that an earlier release had, and which that was.
    pub(crate) fn stale_asset(&self, path: &str) -> Option<(ReleaseId, Arc<Representation>)> {
        self.stale_assets.find(path, &self.options)
    }

    /// Where memory comes from.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.options.budget
    }

    /// Every file, in no order.
    pub(crate) fn listing(&self) -> impl Iterator<Item = FileEntry<'_>> {
        self.index.entries().map(FileEntry::of)
    }

    fn represent(&self, entry: &Entry, bodies: Option<&HashMap<Entry, Source>>) -> Representation {
        let path = entry.path();
        let facts = entry.facts();
        let mut representation = represent(entry, self.source(entry, bodies), &self.options.header_policy);
        for coding in facts.codings.iter() {
            let Some(sibling) = self.index.get(&format!("{path}{}", coding.suffix())) else { continue };
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
            None => self.body(entry.path(), entry.digest()),
        };
        held.cloned().unwrap_or_else(|| {
            let file = LargeFile::new(&self.open_files, entry.path(), entry.facts().state);
            Source::Large(Arc::new(file))
        })
    }
}
