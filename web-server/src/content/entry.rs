//! A file of a release, as the index knows it: about 80 bytes and the name, in one allocation that generations share.
//!
//! A release may have a hundred thousand files, and while it is replaced there are two. So what is kept of each file is packed,
//! and headers are made when the file is asked for. A file that is the same in the next release is the same entry there.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::coding::Coding;
use super::digest::Digest;
use super::dir::FileState;
use super::representation::Modified;

const DIGEST: usize = 32;
const STATE: usize = DIGEST + FileState::PACKED;
const MODIFIED: usize = STATE + 8;
/// Where the path begins.
const PATH: usize = MODIFIED + 1;
/// The two counts of an `Arc`, and what an allocation costs.
const OVERHEAD: usize = 16 + 16;

const EXECUTABLE: u8 = 1;

/// A file of a release. Entries are equal if their paths are.
#[derive(Debug, Clone)]
pub(crate) struct Entry(Arc<[u8]>);

/// What an entry is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) digest: Digest,
    /// As it was when the release was loaded, the change time left out.
    pub(crate) state: FileState,
    pub(crate) modified: Modified,
    pub(crate) executable: bool,
    /// The codings of which there is a precompressed sibling.
    pub(crate) codings: Codings,
}

/// A set of codings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Codings(u8);

impl Codings {
    /// Adds one.
    pub(crate) fn with(self, coding: Coding) -> Self {
        Self(self.0 | Self::bit(coding))
    }

    /// Those that are in it.
    pub(crate) fn iter(self) -> impl Iterator<Item = Coding> {
        Coding::COMPRESSED.into_iter().filter(move |coding| self.0 & Self::bit(*coding) != 0)
    }

    fn bit(coding: Coding) -> u8 {
        2 << coding as u8
    }
}

impl Entry {
    /// The entry of the file at a path.
    pub(crate) fn new(path: &str, facts: &Facts) -> Self {
        let mut packed = Vec::with_capacity(PATH + path.len());
        packed.extend_from_slice(facts.digest.as_bytes());
        packed.extend_from_slice(&facts.state.pack());
        packed.extend_from_slice(&facts.modified.seconds().to_le_bytes());
        packed.push(u8::from(facts.executable) | facts.codings.0);
        packed.extend_from_slice(path.as_bytes());
        Self(packed.into())
    }

    /// Relative to the root.
    pub(crate) fn path(&self) -> &str {
        // It was one when the entry was made.
        std::str::from_utf8(&self.0[PATH..]).unwrap_or_default()
    }

    /// What is known of the file.
    pub(crate) fn facts(&self) -> Facts {
        let packed = &self.0;
        Facts {
            digest: self.digest(),
            state: FileState::unpack(array(&packed[DIGEST..STATE])),
            modified: Modified::from_seconds(i64::from_le_bytes(array(&packed[STATE..MODIFIED]))),
            executable: packed[MODIFIED] & EXECUTABLE != 0,
            codings: Codings(packed[MODIFIED] & !EXECUTABLE),
        }
    }

    /// The digest alone.
    pub(crate) fn digest(&self) -> Digest {
        Digest::from_bytes(array(&self.0[..DIGEST]))
    }

    /// The memory that an entry for this path takes.
    pub(crate) fn cost(path: &str) -> u64 {
        (OVERHEAD + PATH + path.len()) as u64
    }

    /// Whether no other generation has this entry.
    pub(crate) fn is_unshared(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0[PATH..] == other.0[PATH..]
    }
}

impl Eq for Entry {}

/// By path, as bytes: so that a table of entries can be asked for a path.
impl Borrow<[u8]> for Entry {
    fn borrow(&self) -> &[u8] {
        &self.0[PATH..]
    }
}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0[PATH..].hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn what_is_packed_is_what_comes_back() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("f"), "text").unwrap();
        let state = FileState::of_file(&std::fs::File::open(root.path().join("f")).unwrap()).unwrap();
        let facts = Facts {
            digest: Digest::of(b"text"),
            state: state.without_change_time(),
            modified: Modified::at(UNIX_EPOCH + Duration::from_secs(784_111_777)),
            executable: true,
            codings: Codings::default().with(Coding::Brotli).with(Coding::Gzip),
        };
        let entry = Entry::new("a/f", &facts);
        assert_eq!((entry.path(), entry.facts()), ("a/f", facts));
        assert_eq!(facts.codings.iter().collect::<Vec<_>>(), [Coding::Gzip, Coding::Brotli]);
        assert!(Entry::cost("a/f") < 120);
        assert_eq!(entry, Entry::new("a/f", &Facts { executable: false, ..facts }));
    }
}
