//! The name of an object in a repository: [`ObjectId`], and what computes it.
//!
//! An object's id is the hash of its kind, its size and its content. Repositories use SHA-1 or, since Git 2.29, SHA-256.
//!
//! SECURITY: SHA-1 is broken, so a SHA-1 that was computed from one of the known attacks is refused (as Git does).

use std::fmt;

use sha1_checked::{CollisionResult, Sha1};
use sha2::{Digest as _, Sha256};

use crate::content::digest::parse_hexadecimal;

/// The hash that a repository uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ObjectFormat {
    Sha1,
    Sha256,
}

/// The name of an object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ObjectId {
    format: ObjectFormat,
    /// The unused rest of a SHA-1 is zero.
    bytes: [u8; 32],
}

/// What an object is. The numbers are those of a pack (`gitformat-pack(5)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ObjectKind {
    Commit = 1,
    Tree = 2,
    Blob = 3,
    Tag = 4,
}

impl ObjectFormat {
    /// Its name in the protocol's `object-format` capability.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        [Self::Sha1, Self::Sha256].into_iter().find(|format| format.name() == name)
    }

    /// The length of an id in bytes.
    pub(super) const fn id_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

impl ObjectId {
    /// Reads an id's bytes; there must be exactly as many as the format has.
    pub(super) fn of_bytes(format: ObjectFormat, bytes: &[u8]) -> Option<Self> {
        let mut id = Self { format, bytes: [0; 32] };
        (bytes.len() == format.id_len()).then(|| id.bytes[..bytes.len()].copy_from_slice(bytes))?;
        Some(id)
    }

    /// Reads 40 or 64 lower-case hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let format = match text.len() {
            40 => ObjectFormat::Sha1,
            64 => ObjectFormat::Sha256,
            _ => return None,
        };
        let mut id = Self { format, bytes: [0; 32] };
        parse_hexadecimal(text, &mut id.bytes[..format.id_len()])?;
        Some(id)
    }

    pub(super) fn format(&self) -> ObjectFormat {
        self.format
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.format.id_len()]
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl ObjectKind {
    pub(super) fn of_number(number: u8) -> Option<Self> {
        [Self::Commit, Self::Tree, Self::Blob, Self::Tag].into_iter().find(|kind| *kind as u8 == number)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
            Self::Tag => "tag",
        }
    }
}

/// Hashes as the repository's format does.
#[derive(Clone)]
pub(super) enum Hasher {
    // Its state with the collision detection is several hundred bytes.
    Sha1(Box<Sha1>),
    Sha256(Sha256),
}

/// The content was made to have the SHA-1 of other content.
#[derive(Debug, thiserror::Error)]
#[error("an object is a SHA-1 collision attack")]
pub(super) struct Collision;

impl Hasher {
    pub(super) fn new(format: ObjectFormat) -> Self {
        match format {
            ObjectFormat::Sha1 => Self::Sha1(Box::default()),
            ObjectFormat::Sha256 => Self::Sha256(Sha256::new()),
        }
    }

    /// Begins an object of this kind and size.
    pub(super) fn of_object(format: ObjectFormat, kind: ObjectKind, size: u64) -> Self {
        let mut hasher = Self::new(format);
        hasher.update(format!("{} {size}\0", kind.name()).as_bytes());
        hasher
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hasher) => sha1_checked::Digest::update(hasher.as_mut(), bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
        }
    }

    pub(super) fn id(self) -> Result<ObjectId, Collision> {
        let mut bytes = [0; 32];
        let format = match self {
            Self::Sha1(hasher) => match hasher.try_finalize() {
                CollisionResult::Ok(hash) => {
                    bytes[..20].copy_from_slice(&hash);
                    ObjectFormat::Sha1
                }
                CollisionResult::Mitigated(_) | CollisionResult::Collision(_) => return Err(Collision),
            },
            Self::Sha256(hasher) => {
                bytes = hasher.finalize().into();
                ObjectFormat::Sha256
            }
        };
        Ok(ObjectId { format, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf test | git hash-object --stdin`, in a repository of each format.
    #[test]
    fn ids_are_those_of_git() {
        for (format, id) in [
            (ObjectFormat::Sha1, "30d74d258442c7c65512eafab474568dd706c430"),
            (ObjectFormat::Sha256, "aa19560d465e7d43915547490a1f6b73eb55702e3d12cb82fb577df60bad4928"),
        ] {
            let mut hasher = Hasher::of_object(format, ObjectKind::Blob, 4);
            hasher.update(b"test");
            assert_eq!(hasher.id().unwrap().to_string(), id);
            assert_eq!(ObjectId::parse(id).unwrap().to_string(), id);
        }
        for text in ["", "30d74d", "30D74D258442c7c65512eafab474568dd706c430", "main"] {
            assert_eq!(ObjectId::parse(text), None, "{text}");
        }
    }
}
