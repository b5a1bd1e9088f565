//! From a release on the volume to a generation in memory: every file is found, hashed where nothing says what its digest is, and
//! read where it is small enough.
//!
//! Nothing here is proportional to the release but the index itself, which is taken from the memory budget file by file: names
//! are not collected first, and the publisher's manifest is read as a stream.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;

use lifecycle::Ignore as _;
use rustix::process::setpriority_process;

use super::coding::Coding;
use super::digest::Digest;
use super::dir::{Directory, FileInfo, FileState, Lookup};
use super::entry::{Codings, Entry, Facts};
use super::generation::Generation;
use super::index::{Index, LoadOptions, let_go};
use super::large_file::OpenFiles;
use super::release::{ManifestBeside, Release};
use super::representation::{HELD_MAX, Modified, Source};
use super::walk::{Visitor, visit};
use crate::memory::NoRoom;

/// What the headers of a file that is held cost besides its body.
const HEADERS: u64 = 600;

/// From so many files on, or once so many bytes are to be read, a release is loaded at a low priority, so that requests wait less for
/// the processor. A tenth of one is left to loading while requests would take all of it: the release must come through also then.
const LARGE: u64 = 512;
const LARGE_BYTES: u64 = 64 * 1024 * 1024;
const LOW_PRIORITY: i32 = 10;

/// Why a release is not loaded.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// Its index does not fit into memory beside the one that is served.
    NoRoom,
    /// The link named another one before all of it had been looked through.
    Replaced,
    /// It cannot be read.
    Io(io::Error),
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<NoRoom> for LoadError {
    fn from(NoRoom: NoRoom) -> Self {
        Self::NoRoom
    }
}

/// Loads a release. Blocks for as long as reading it takes. `is_named` says whether the link still names it: a publisher may remove
/// what the link does not name any more, and a directory that is being removed looks like one with fewer files.
///
/// # Errors
/// Where the release cannot be read, in whole or in part, or does not fit: the generation before it then stays.
pub(crate) fn load(
    release: &Release,
    options: &LoadOptions,
    previous: Option<&Generation>,
    is_named: impl Fn() -> bool,
) -> Result<Generation, LoadError> {
    let manifest = ManifestBeside::of(&release.path);
    let directory = &release.directory;
    // Last-Modified must not go back: the link of a rollback carries an older time, several releases may be published within a
    // second, and a file that the previous release lacks may have had any date before.
    let published = Modified::at(release.since);
    let published = previous.map_or(published, |previous| published.max(previous.published.next()));
    let mut loader = Loader {
        directory,
        published,
        previous,
        index: Index::new(&options.budget),
        open_files: OpenFiles::new(Arc::clone(directory)),
        files: 0,
        bytes: 0,
    };
    let visited = visit(directory, "", &mut loader);
    if !is_named() {
        return Err(LoadError::Replaced);
    }
    visited?;
    loader.offer_compressed();
    if let Some(manifest) = manifest {
        manifest.each(|path, size, digest| loader.stated(path, size, digest))?;
    }
    let bodies = loader.read(options)?;
    let Loader { index, open_files, .. } = loader;
    let stale_assets = previous.map(|previous| previous.leave_to(&index, options)).unwrap_or_default();
    Ok(Generation::new(release.clone(), published, stale_assets, index, open_files, &bodies, options.clone()))
}

/// Stands for a digest that is not known yet.
const UNKNOWN: Digest = Digest::from_bytes([0; 32]);

struct Loader<'a> {
    directory: &'a Directory,
    published: Modified,
    previous: Option<&'a Generation>,
    index: Index,
    open_files: Arc<OpenFiles>,
    files: u64,
    /// Of those that were read.
    bytes: u64,
}

impl Visitor for Loader<'_> {
    type Error = LoadError;

    fn file(&mut self, path: &str, info: FileInfo) -> Result<(), LoadError> {
        self.files += 1;
        if self.files == LARGE {
            lower_priority();
        }
        let state = info.state.without_change_time();
        let before = self.previous.and_then(|previous| previous.index.get(path));
        if let Some(before) = before {
            let facts = before.facts();
            // The same file of the same volume, hard-linked by its publisher.
            if facts.state == state && facts.executable == info.executable {
                return Ok(self.index.share(before.clone())?);
            }
        }
        let facts = Facts {
            digest: UNKNOWN,
            state,
            modified: self.published,
            executable: info.executable,
            codings: Codings::default(),
        };
        Ok(self.index.add(path, &facts)?)
    }

    fn directory(&mut self, path: &str) -> Result<(), LoadError> {
        Ok(self.index.add_directory(path)?)
    }
}

impl Loader<'_> {
    /// The publisher says what a file's digest is.
    fn stated(&mut self, path: &str, size: u64, digest: Digest) {
        let Some(entry) = self.index.get(path) else { return };
        let facts = entry.facts();
        if facts.state.size == size && facts.digest != digest {
            self.learn(path, digest);
        }
    }

    /// Enters a file's digest, and with it since when these bytes are found under this name.
    fn learn(&mut self, path: &str, digest: Digest) {
        let Some(entry) = self.index.get(path) else { return };
        // Unchanged under this name since an earlier release: it was not modified now. Anything else was, when the link was
        // made, whatever its own time stamp says: it may be years old, or have come back in a rollback.
        let before = self.previous.and_then(|previous| previous.index.get(path)).map(Entry::facts);
        let modified = match before {
            Some(before) if before.digest == digest => before.modified,
            _ => self.published,
        };
        let facts = Facts { digest, modified, ..entry.facts() };
        self.index.replace(path, &facts);
    }

    /// Reads what is small enough, hashes what is not known, and makes sure that all can be opened.
    fn read(&mut self, options: &LoadOptions) -> Result<HashMap<Entry, Source>, LoadError> {
        let mut bodies = HashMap::new();
        let mut held = 0;
        // Smaller files first: the budget then saves the most trips to the volume.
        let mut entries: Vec<Entry> = self.index.entries().cloned().collect();
        entries.sort_unstable_by_key(|entry| entry.facts().state.size);
        for entry in entries {
            held += self.prepare(&entry, held, options, &mut bodies)?;
            // It is the last where the file's digest was not known before.
            let_go(std::iter::once(entry), &options.budget);
        }
        Ok(bodies)
    }

    /// Does so for one file, and says how many bytes of it are held.
    fn prepare(
        &mut self,
        entry: &Entry,
        held: u64,
        options: &LoadOptions,
        bodies: &mut HashMap<Entry, Source>,
    ) -> Result<u64, LoadError> {
        let Facts { digest, state, .. } = entry.facts();
        let path = entry.path();
        let small = state.size <= HELD_MAX && held + state.size <= options.cache;
        if let Some(body) = self.previous.and_then(|previous| previous.body(path, digest)).filter(|_| small) {
            bodies.insert(entry.clone(), body.clone());
            return Ok(state.size);
        }
        let keep = self.open_files.have_room();
        if !small && !keep && digest != UNKNOWN {
            return Ok(0);
        }
        let file = self.open(path, state)?;
        if small || digest == UNKNOWN {
            self.bytes += state.size;
            if self.bytes >= LARGE_BYTES {
                lower_priority();
            }
        }
        let body = if small { Some(read(&file, path, state)?) } else { None };
        let found = match &body {
            Some(body) => Digest::of(body),
            None if digest == UNKNOWN => Digest::of_file(&file)?,
            None => digest,
        };
        if digest == UNKNOWN && !FileState::of_file(&file)?.same_file(&state) {
            return Err(changing(path).into());
        }
        // Where the manifest says otherwise, neither can be believed, but the bytes are what is there.
        if found != digest {
            self.learn(path, found);
        }
        let kept = body.and_then(|body| options.budget.hold(body, HEADERS).ok());
        match (kept, self.index.get(path)) {
            (Some(body), Some(entry)) => {
                bodies.insert(entry.clone(), Source::Memory(body));
                return Ok(state.size);
            }
            _ if keep => self.open_files.keep(path, file),
            _ => {}
        }
        Ok(0)
    }

    fn open(&self, path: &str, state: FileState) -> io::Result<File> {
        match self.directory.file(path)? {
            Lookup::File((file, found)) if found.same_file(&state) => Ok(file),
            Lookup::File(_) => Err(changing(path)),
            Lookup::Dir | Lookup::None => {
                Err(io::Error::new(io::ErrorKind::NotFound, format!("cannot open {path} in the release")))
            }
        }
    }

    /// Finds precompressed siblings, and says so at the file that each was made from.
    fn offer_compressed(&mut self) {
        let mut offers: HashMap<String, Codings> = HashMap::new();
        for entry in self.index.entries() {
            for coding in Coding::COMPRESSED {
                let original = entry.path().strip_suffix(coding.suffix());
                if let Some(original) = original.filter(|original| self.index.get(original).is_some()) {
                    let codings = offers.entry(original.to_owned()).or_default();
                    *codings = codings.with(coding);
                }
            }
        }
        // Those that had siblings in the release before and have none now.
        let without = self.index.entries().filter(|entry| entry.facts().codings != Codings::default());
        for path in without.map(|entry| entry.path().to_owned()).collect::<Vec<_>>() {
            offers.entry(path).or_default();
        }
        for (path, codings) in offers {
            let facts = self.index.get(&path).map(Entry::facts);
            if let Some(facts) = facts.filter(|facts| facts.codings != codings) {
                self.index.replace(&path, &Facts { codings, ..facts });
            }
        }
    }
}

/// On Linux this is about the calling thread alone, and a thread may always lower its own priority.
fn lower_priority() {
    setpriority_process(None, LOW_PRIORITY).ignore();
}

fn read(file: &File, path: &str, state: FileState) -> io::Result<Vec<u8>> {
    // One byte more than expected would show a file that is growing.
    let mut bytes = Vec::with_capacity(usize::try_from(state.size).unwrap_or_default());
    file.take(state.size + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == state.size { Ok(bytes) } else { Err(changing(path)) }
}

fn changing(path: &str) -> io::Error {
    io::Error::other(format!("{path} is being changed inside a published release"))
}
