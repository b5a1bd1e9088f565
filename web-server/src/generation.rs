//! A generation: one published release, ready to be served.
//!
//! A release never changes after it was published, so everything about it is worked out once, off the event loop, before its
//! first request: which paths there are, their entity tags, and the bodies of smaller files. A request takes one generation and is
//! answered from it alone, so that no answer can mix two releases. What the previous generation holds already is shared,
//! not read again.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::confine::{Directory, Inspected, Named, Stamp};
use crate::content_type;
use crate::digest::Digest;
use crate::encoding::Coding;
use crate::leftover::Leftovers;
use crate::presentation::Presentation;
use crate::published::{LinkStamp, Published, ReleaseId};
use crate::representation::{Content, ETag, HELD_MAX, Modified, Representation};
use crate::stored::{Shelf, Stored};
use crate::target::ContentPath;
use crate::walk::walk;

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
    /// Loads a release. Blocks for as long as reading it takes.
    ///
    /// # Errors
    /// Where the release cannot be read; the generation before it then stays.
    pub fn load(published: Published, policy: &Policy, previous: Option<&Self>) -> io::Result<Self> {
        let Published { release, link, directory, published, digests } = published;
        let identity = directory.identity()?;
        let directory = Arc::new(directory);
        let tree = walk(&directory)?;
        let mut files = tree.files;
        // Smaller files first: the budget then saves the most trips to the volume.
        files.sort_unstable_by_key(|(_, inspected)| inspected.stamp.size);

        let shelf = Shelf::new(Arc::clone(&directory));
        let mut loader = Loader {
            shelf,
            directory,
            published: Modified::at(published),
            policy,
            held: 0,
            digests,
            previous,
        };
        let mut table = HashMap::with_capacity(files.len());
        for (path, inspected) in files {
            let path: Arc<str> = path.into();
            let entry = loader.entry(&path, inspected)?;
            table.insert(path, entry);
        }
        offer_compressed(&mut table);
        let leftovers = previous.map(|previous| previous.left_over_by(&table, policy)).unwrap_or_default();
        let directories = tree.directories.into_iter().collect();
        let Loader { held, shelf, .. } = loader;
        Ok(Self { release, link, held, identity, leftovers, files: table, directories, shelf })
    }

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

struct Loader<'a> {
    shelf: Arc<Shelf>,
    directory: Arc<Directory>,
    published: Modified,
    policy: &'a Policy,
    held: u64,
    digests: HashMap<String, (u64, Digest)>,
    previous: Option<&'a Generation>,
}

impl Loader<'_> {
    fn entry(&mut self, path: &Arc<str>, inspected: Inspected) -> io::Result<Entry> {
        let Inspected { stamp, executable } = inspected;
        let stated =
            self.digests.get(&**path).filter(|(size, _)| *size == stamp.size).map(|(_, digest)| *digest);
        let before = self.previous.and_then(|previous| previous.files.get(path));
        let hold = stamp.size <= HELD_MAX && self.held.saturating_add(stamp.size) <= self.policy.budget;

        let (digest, content) = match (hold, stated, before) {
            // The publisher says that these are the bytes that are in memory already.
            (true, Some(digest), Some(Entry { digest: known, representation, .. }))
                if *known == digest && matches!(representation.content, Content::Held(_)) =>
            {
                (digest, representation.content.clone())
            }
            (true, _, _) => {
                let bytes = self.read(path, stamp)?;
                (Digest::of(&bytes), Content::Held(bytes))
            }
            (false, stated, _) => {
                let digest = match stated {
                    Some(digest) => digest,
                    None => self.hash(path, stamp)?,
                };
                (digest, Content::Stored(Arc::new(Stored::new(&self.shelf, Arc::clone(path), stamp))))
            }
        };
        if let Content::Held(bytes) = &content {
            self.held += bytes.len() as u64;
        }
        // Unchanged under this name since an earlier release: it was not modified now. Anything else was, when the link was
        // made, whatever its own time stamp says: it may be years old, or have come back in a rollback.
        let modified = match before {
            Some(before) if before.digest == digest => before.representation.modified,
            _ => self.published,
        };
        let representation = Representation {
            etag: ETag::of(digest),
            modified,
            last_modified: modified.header(),
            cache_control: self.policy.presentation.cache_control(path),
            content_type: content_type::of(path),
            content,
            coding: Coding::Identity,
            alternatives: Vec::new(),
        };
        Ok(Entry { digest, executable, stamp, representation: Arc::new(representation) })
    }

    fn read(&self, path: &str, stamp: Stamp) -> io::Result<Bytes> {
        let file = self.open(path, stamp)?;
        // One byte more than expected would show a file that is growing.
        let mut bytes = Vec::with_capacity(usize::try_from(stamp.size).unwrap_or_default());
        file.take(stamp.size + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == stamp.size { Ok(bytes.into()) } else { Err(changing(path)) }
    }

    fn hash(&self, path: &str, stamp: Stamp) -> io::Result<Digest> {
        let file = self.open(path, stamp)?;
        let digest = Digest::of_file(&file)?;
        if Stamp::of_file(&file)?.same_file(&stamp) { Ok(digest) } else { Err(changing(path)) }
    }

    fn open(&self, path: &str, stamp: Stamp) -> io::Result<std::fs::File> {
        match self.directory.file(path)? {
            Named::File((file, found)) if found.same_file(&stamp) => Ok(file),
            Named::File(_) => Err(changing(path)),
            Named::Directory | Named::Nothing => {
                Err(io::Error::new(io::ErrorKind::NotFound, format!("cannot open {path} in the release")))
            }
        }
    }
}

/// Finds precompressed siblings, and makes each an alternative of the file that it was made from.
fn offer_compressed(table: &mut HashMap<Arc<str>, Entry>) {
    let mut offers: HashMap<Arc<str>, Vec<Arc<Representation>>> = HashMap::new();
    for (path, entry) in &*table {
        for coding in Coding::COMPRESSED {
            let original = path.strip_suffix(coding.suffix()).and_then(|path| table.get_key_value(path));
            if let Some((original, of)) = original {
                let compressed = Representation {
                    cache_control: of.representation.cache_control.clone(),
                    content_type: of.representation.content_type.clone(),
                    coding,
                    ..(*entry.representation).clone()
                };
                offers.entry(Arc::clone(original)).or_default().push(Arc::new(compressed));
            }
        }
    }
    for (path, alternatives) in offers {
        if let Some(entry) = table.get_mut(&path) {
            let representation = Representation { alternatives, ..(*entry.representation).clone() };
            entry.representation = Arc::new(representation);
        }
    }
}

fn changing(path: &str) -> io::Error {
    io::Error::other(format!("{path} is being changed inside a published release"))
}
