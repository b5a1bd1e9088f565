//! A generation: one published release, ready to be served.
//!
//! A release never changes after it was published, so everything about it is worked out once, off the event loop, before its
//! first request: which paths there are, their entity tags, and the bodies of smaller files. A request takes one generation and is
//! answered from it alone, so that no answer can mix two releases. What the previous generation holds already is shared,
//! not read again.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::coding::Coding;
use super::digest::Digest;
use super::entry::{Entry, Facts};
use super::header_policy::{HeaderPolicy, REVALIDATE};
use super::large_file::{LargeFile, OpenFiles};
use super::media_type;
use super::path::ContentPath;
use super::release::{LinkStamp, ReleaseId};
use super::representation::{ETag, Modified, Representation, Source};
use super::stale_assets::StaleAssets;
use crate::memory::{Account, Budget};

/// What a place in the table costs, on average, and a directory's name besides its bytes.
pub(crate) const SLOT: u64 = 40;

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

/// How releases are made ready.
#[derive(Debug, Clone)]
pub(crate) struct LoadOptions {
    /// Bytes of bodies that may be held in memory.
    pub(crate) cache: u64,
    /// How long assets of a release are given out that the next one has no more.
    pub(crate) stale_assets: Duration,
    /// Headers that operators configure.
    pub(crate) header_policy: Arc<HeaderPolicy>,
    /// Where memory comes from.
    pub(crate) budget: Arc<Budget>,
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
            generation.index.files.insert(entry, Some(representation));
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
        let (entry, ready) = self.index.files.get_key_value(path.as_bytes())?;
        Some(match ready {
            Some(ready) => Arc::clone(ready),
            None => Arc::new(self.represent(entry, None)),
        })
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
        self.index.files.get_key_value(path.as_bytes()).map(|(entry, _)| entry)
    }

    /// The body of a file that is held in memory.
    pub(super) fn body(&self, path: &str) -> Option<&Source> {
        let ready = self.index.files.get(path.as_bytes())?.as_ref()?;
        matches!(ready.source, Source::Memory(_)).then_some(&ready.source)
    }

    /// The files that `next` has no more, pages left out: who asks for a page wants what is true now.
    pub(super) fn assets_gone_in(&self, next: &Index) -> HashSet<Entry> {
        let files = self.index.files.keys();
        files
            .filter(|entry| {
                let page = media_type::of(entry.path()).as_bytes().starts_with(b"text/html");
                !page && !next.contains(entry.path())
            })
            .cloned()
            .collect()
    }

    /// What releases before it had and it has not.
    pub(crate) fn stale_assets(&self) -> &StaleAssets {
        &self.stale_assets
    }

    /// The asset at a path that an earlier release had, and which that was.
    pub(crate) fn stale_asset(&self, path: &str) -> Option<(ReleaseId, Arc<Representation>)> {
        self.stale_assets.find(path, &self.options)
    }

    /// Where this release's files are opened.
    pub(super) fn open_files(&self) -> &Arc<OpenFiles> {
        &self.open_files
    }

    /// Whether there is such a directory, the root left out.
    pub(crate) fn has_directory(&self, path: &str) -> bool {
        self.index.directories.contains(path)
    }

    /// Every directory, the root left out, in no order.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &str> {
        self.index.directories.iter().map(AsRef::as_ref)
    }

    /// Every file, in no order.
    pub(crate) fn listing(&self) -> impl Iterator<Item = FileEntry> {
        self.index.files.keys().map(|entry| {
            let Facts { digest, state, modified, executable, .. } = entry.facts();
            FileEntry { path: entry.path().to_owned(), size: state.size, digest, executable, modified }
        })
    }

    /// How many files there are.
    pub(crate) fn len(&self) -> usize {
        self.index.files.len()
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

/// A file by itself, without its siblings.
pub(super) fn represent(entry: &Entry, source: Source, header_policy: &HeaderPolicy) -> Representation {
    let Facts { digest, modified, .. } = entry.facts();
    Representation {
        etag: ETag::of(digest),
        modified,
        last_modified: modified.header(),
        cache_control: header_policy.cache_control(entry.path()),
        content_type: header_policy.content_type(entry.path()),
        source,
        coding: Coding::Identity,
        alternatives: Vec::new(),
    }
}

/// Every file and directory of a release, and the memory that they take.
#[derive(Debug)]
pub(super) struct Index {
    /// The representation is kept where the body is.
    files: HashMap<Entry, Option<Arc<Representation>>>,
    directories: HashSet<Box<str>>,
    budget: Arc<Budget>,
    /// What was taken for the tables. Entries are accounted for one by one, because generations share them.
    tables: u64,
}

/// So that of two generations that let go of an entry at the same time exactly one gives its memory back.
static LETTING_GO: Mutex<()> = Mutex::new(());

impl Index {
    /// Without files.
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self { files: HashMap::new(), directories: HashSet::new(), budget: Arc::clone(budget), tables: 0 }
    }

    /// Adds a file that the generation before has as well.
    pub(super) fn share(&mut self, entry: Entry) -> Result<(), crate::memory::NoRoom> {
        self.budget.take(Account::Index, SLOT)?;
        self.tables += SLOT;
        self.files.insert(entry, None);
        Ok(())
    }

    /// Adds a file.
    pub(super) fn add(&mut self, path: &str, facts: &Facts) -> Result<(), crate::memory::NoRoom> {
        self.budget.take(Account::Index, Entry::cost(path))?;
        if let Err(error) = self.share(Entry::new(path, facts)) {
            self.budget.refund(Account::Index, Entry::cost(path));
            return Err(error);
        }
        Ok(())
    }

    /// Adds a directory.
    pub(super) fn add_directory(&mut self, path: &str) -> Result<(), crate::memory::NoRoom> {
        let cost = SLOT + path.len() as u64;
        self.budget.take(Account::Index, cost)?;
        self.tables += cost;
        self.directories.insert(path.into());
        Ok(())
    }

    /// Every entry, in no order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.files.keys()
    }

    /// The entry at a path.
    pub(super) fn get(&self, path: &str) -> Option<&Entry> {
        self.files.get_key_value(path.as_bytes()).map(|(entry, _)| entry)
    }

    /// Whether there is a file at a path.
    pub(super) fn contains(&self, path: &str) -> bool {
        self.files.contains_key(path.as_bytes())
    }

    /// Says something else of a file, which this index alone has.
    pub(super) fn replace(&mut self, path: &str, facts: &Facts) {
        let entry = Entry::new(path, facts);
        // The key stays what it was if it is only inserted again.
        if let Some((before, ready)) = self.files.remove_entry(path.as_bytes()) {
            if !before.is_unshared() {
                self.budget.charge(Account::Index, Entry::cost(path));
            }
            self.files.insert(entry, ready);
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.budget.refund(Account::Index, self.tables);
        let_go(self.files.drain().map(|(entry, _)| entry), &self.budget);
    }
}

/// Lets go of entries, and gives the memory back of those that nothing else has.
pub(super) fn let_go(entries: impl Iterator<Item = Entry>, budget: &Budget) {
    let _one_at_a_time = LETTING_GO.lock();
    for entry in entries.filter(Entry::is_unshared) {
        budget.refund(Account::Index, Entry::cost(entry.path()));
    }
}
