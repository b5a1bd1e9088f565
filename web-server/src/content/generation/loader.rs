//! From a release on the volume to a generation in memory: every file is found, hashed where nobody says what its digest is, and
//! read where it is small enough.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::sync::Arc;

use bytes::Bytes;

use super::{Entry, Generation, LoadOptions};
use crate::content::coding::Coding;
use crate::content::digest::Digest;
use crate::content::dir::{Directory, FileInfo, FileState, Lookup};
use crate::content::large_file::{LargeFile, OpenFiles};
use crate::content::release::Published;
use crate::content::representation::{ETag, HELD_MAX, Modified, Representation, Source};
use crate::content::walk::walk;

impl Generation {
    /// Loads a release. Blocks for as long as reading it takes.
    ///
    /// # Errors
    /// Where the release cannot be read; the generation before it then stays.
    pub(crate) fn load(
        published: Published,
        policy: &LoadOptions,
        previous: Option<&Self>,
    ) -> io::Result<Self> {
        let Published { release, path, link, directory, since: published, digests } = published;
        let identity = directory.identity()?;
        let directory = Arc::new(directory);
        let tree = walk(&directory)?;
        let mut files = tree.files;
        // Smaller files first: the budget then saves the most trips to the volume.
        files.sort_unstable_by_key(|(_, inspected)| inspected.stamp.size);

        let open_files = OpenFiles::new(Arc::clone(&directory));
        let mut loader = Loader {
            open_files,
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
        let stale_assets =
            previous.map(|previous| previous.assets_gone_in(&table, policy)).unwrap_or_default();
        let directories = tree.directories.into_iter().collect();
        let Loader { held, open_files, .. } = loader;
        Ok(Self {
            release,
            path,
            link,
            held,
            identity,
            published,
            stale_assets,
            files: table,
            directories,
            open_files,
        })
    }
}

struct Loader<'a> {
    open_files: Arc<OpenFiles>,
    directory: Arc<Directory>,
    published: Modified,
    policy: &'a LoadOptions,
    held: u64,
    digests: HashMap<String, (u64, Digest)>,
    previous: Option<&'a Generation>,
}

impl Loader<'_> {
    fn entry(&mut self, path: &Arc<str>, inspected: FileInfo) -> io::Result<Entry> {
        let FileInfo { stamp, executable } = inspected;
        let stated =
            self.digests.get(&**path).filter(|(size, _)| *size == stamp.size).map(|(_, digest)| *digest);
        let before = self.previous.and_then(|previous| previous.files.get(path));
        let hold = stamp.size <= HELD_MAX && self.held.saturating_add(stamp.size) <= self.policy.budget;

        let (digest, content) = match (hold, stated, before) {
            // The publisher says that these are the bytes that are in memory already.
            (true, Some(digest), Some(Entry { digest: known, representation, .. }))
                if *known == digest && matches!(representation.content, Source::Memory(_)) =>
            {
                (digest, representation.content.clone())
            }
            (true, _, _) => {
                let bytes = self.read(path, stamp)?;
                (Digest::of(&bytes), Source::Memory(bytes))
            }
            (false, stated, _) => {
                let digest = match stated {
                    Some(digest) => digest,
                    None => self.hash(path, stamp)?,
                };
                (digest, Source::Large(Arc::new(LargeFile::new(&self.open_files, Arc::clone(path), stamp))))
            }
        };
        if let Source::Memory(bytes) = &content {
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
            cache_control: self.policy.header_policy.cache_control(path),
            content_type: self.policy.header_policy.content_type(path),
            content,
            coding: Coding::Identity,
            alternatives: Vec::new(),
        };
        Ok(Entry { digest, executable, stamp, representation: Arc::new(representation) })
    }

    fn read(&self, path: &str, stamp: FileState) -> io::Result<Bytes> {
        let file = self.open(path, stamp)?;
        // One byte more than expected would show a file that is growing.
        let mut bytes = Vec::with_capacity(usize::try_from(stamp.size).unwrap_or_default());
        file.take(stamp.size + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == stamp.size { Ok(bytes.into()) } else { Err(changing(path)) }
    }

    fn hash(&self, path: &str, stamp: FileState) -> io::Result<Digest> {
        let file = self.open(path, stamp)?;
        let digest = Digest::of_file(&file)?;
        if FileState::of_file(&file)?.same_file(&stamp) { Ok(digest) } else { Err(changing(path)) }
    }

    fn open(&self, path: &str, stamp: FileState) -> io::Result<std::fs::File> {
        match self.directory.file(path)? {
            Lookup::File((file, found)) if found.same_file(&stamp) => Ok(file),
            Lookup::File(_) => Err(changing(path)),
            Lookup::Dir | Lookup::None => {
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
