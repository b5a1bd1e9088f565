//! What makes a file the same file: across renames, across restarts, and not across a re-creation that looks alike.
//!
//! A path names whatever lies there now, an inode number is reused as soon as its file is gone, and a size says
//! nothing at all. So a file is known by three things together:
//!
//! - its [`FileKey`]: device, inode, and the instant of birth, which a reused inode does not share (statx(2));
//! - a [`Fingerprint`] of its head, which a file that was truncated and rewritten does not share;
//! - a [`Fingerprint`] of the bytes right before a position, checked at every reopening, and byte for byte at every read.
//!
//! The inode generation would serve in the place of the birth time; the kernel gives it only through an ioctl without
//! a safe wrapper, and file systems that have one have birth times too. Where neither is known, the fingerprints decide alone.

use std::fmt;
use std::fs::Metadata;
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::fs::MetadataExt as _;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// How many bytes a fingerprint covers at most: of the head, and of what lies before a position.
pub(crate) const WINDOW: usize = 1024;

/// What the file system says a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct FileKey {
    device: u64,
    inode: u64,
    /// Nanoseconds since 1970, where the file system keeps them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    born: Option<u64>,
}

impl FileKey {
    /// The key of an open file, from its metadata.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|since| u64::try_from(since.as_nanos()).ok());
        Self { device: metadata.dev(), inode: metadata.ino(), born }
    }

    /// The inode number, which no renumbering of devices changes.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// Whether a file that was known as `self` may be what is now `found`.
    ///
    /// Device numbers can change at a reboot; a file that keeps its inode and was born at the same nanosecond is the
    /// same one all the same. Without birth times the device has to agree, and the fingerprints decide the rest.
    pub(crate) fn may_be(&self, found: &Self) -> bool {
        self.inode == found.inode
            && match (self.born, found.born) {
                (Some(was), Some(is)) => was == is,
                _ => self.device == found.device,
            }
    }
}

/// A hash of a stretch of a file, and how long the stretch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    /// Bytes covered, at most [`WINDOW`].
    pub(crate) len: usize,
    hash: u64,
}

impl Fingerprint {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { len: bytes.len(), hash: leading(&Sha256::digest(bytes)) }
    }

    /// Whether these are the bytes it was made of.
    pub(crate) fn matches(&self, bytes: &[u8]) -> bool {
        *self == Self::of(bytes)
    }
}

/// Which of the contents that a file has had: it is another one after every truncation and rewrite. The inode stays, and so may the time of
/// birth, so the number keeps their ids apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub(crate) struct Epoch(u64);

impl Epoch {
    /// That of the content with this number, in the order in which this process has met them. `run` is a number that no other process
    /// has: what that one met is perhaps not known here, where its state directory failed.
    pub(crate) fn new(run: u64, content: u64) -> Self {
        Self(run.wrapping_add(content))
    }
}

/// A number that no process had before: the standard library seeds it from the system's source of randomness.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// A state directory: ids that are given out on behalf of different ones differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instance(pub(crate) u64);

/// A content's name in record ids: 16 hex digits.
///
/// It is derived from the state directory, the key, the epoch and the first line. The checkpoint keeps it, on the disk before
/// the first record is sent, and how far it was given to records. Where the state directory cannot keep that, records get a name that is
/// this process's alone: those that come again after a restart are then not known as such, but none is taken for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct FileId(u64);

impl From<FileId> for String {
    fn from(id: FileId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for FileId {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&text, 16).map(Self)
    }
}

impl FileId {
    /// Names the content that begins with `first_line`, of which at most [`WINDOW`] bytes count.
    pub(crate) fn derive(instance: Instance, key: &FileKey, epoch: Epoch, first_line: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(instance.0.to_be_bytes());
        hash.update(key.device.to_be_bytes());
        hash.update(key.inode.to_be_bytes());
        hash.update(key.born.unwrap_or_default().to_be_bytes());
        hash.update(epoch.0.to_be_bytes());
        hash.update(&first_line[..first_line.len().min(WINDOW)]);
        Self(leading(&hash.finalize()))
    }

    /// Another name of the same content, which no process gives but the one with this number.
    pub(crate) fn of_process(self, run: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0.to_be_bytes());
        hash.update(run.to_be_bytes());
        Self(leading(&hash.finalize()))
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

/// The first eight bytes of a digest: plenty to tell apart the files of one volume.
fn leading(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(device: u64, inode: u64, born: Option<u64>) -> FileKey {
        FileKey { device, inode, born }
    }

    #[test]
    fn a_reused_inode_is_another_file() {
        assert!(!key(1, 2, Some(10)).may_be(&key(1, 2, Some(11))));
        assert!(key(1, 2, Some(10)).may_be(&key(1, 2, Some(10))));
        assert!(key(1, 2, None).may_be(&key(1, 2, None)), "without birth times the fingerprints decide");
    }

    #[test]
    fn a_reboot_may_renumber_devices() {
        assert!(key(1, 2, Some(10)).may_be(&key(9, 2, Some(10))));
        assert!(!key(1, 2, None).may_be(&key(9, 2, None)));
    }

    #[test]
    fn an_id_is_another_one_after_a_truncation() {
        let key = key(1, 2, Some(10));
        let id = FileId::derive(Instance(7), &key, Epoch::default(), b"first\n");
        assert_eq!(id, FileId::derive(Instance(7), &key, Epoch::default(), b"first\n"));
        assert_eq!(id.to_string().len(), 16);
        assert_ne!(id, FileId::derive(Instance(7), &key, Epoch::new(1, 2), b"first\n"));
        assert_ne!(id, FileId::derive(Instance(8), &key, Epoch::default(), b"first\n"));
        assert_ne!(id, FileId::derive(Instance(7), &key, Epoch::default(), b"other\n"));
    }

    #[test]
    fn a_process_has_names_of_its_own() {
        let id = FileId::derive(Instance(7), &key(1, 2, None), Epoch::default(), b"first\n");
        assert_eq!(id.of_process(1), id.of_process(1));
        assert_ne!(id.of_process(1), id.of_process(2));
        assert_ne!(id.of_process(1), id);
    }

    #[test]
    fn a_fingerprint_knows_its_bytes() {
        let print = Fingerprint::of(b"abc");
        assert!(print.matches(b"abc"));
        assert!(!print.matches(b"abd"));
        assert!(!print.matches(b"ab"));
    }
}
