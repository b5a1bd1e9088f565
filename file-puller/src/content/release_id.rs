//! What a release is known by: [`ReleaseId`].
//!
//! A release's identity is its content: the same files give the same id wherever and whenever they were pulled. That is
//! what makes a re-pull of known content publish nothing, and two Pods comparable by one word.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::digest::{Digest, FileMode};
use super::path::ReleasePath;

/// A release's name on the volume: 16 hexadecimal digits that stand for its content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ReleaseId(Box<str>);

impl ReleaseId {
    /// The identity of these files: the first 16 hexadecimal digits of SHA-256 over their byte-wise sorted lines
    /// `<sha256> <mode> <path>\n`.
    pub(crate) fn of<'f>(files: impl Iterator<Item = (Digest, FileMode, &'f ReleasePath)>) -> Self {
        // Digest and mode have one length each, and no path has a character below the line break: the order of the
        // values is that of their lines, so that no line has to be kept.
        let mut files: Vec<_> = files.collect();
        files.sort_unstable();
        let mut hasher = Sha256::new();
        for (digest, mode, path) in files {
            hasher.update(digest.hexadecimal());
            hasher.update(format!(" {mode} "));
            hasher.update(path.as_str());
            hasher.update(b"\n");
        }
        let mut id = Digest::of(hasher).to_string();
        id.truncate(16);
        Self(id.into())
    }

    /// Reads a name that may be a release's.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (text.len() == 16 && digits).then(|| Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(content: &str) -> Digest {
        Digest::of(Sha256::new_with_prefix(content))
    }

    /// The expected ids were computed with coreutils: `printf '<sha256> 0644 a\n…' | sha256sum | cut -c1-16`.
    #[test]
    fn identity_is_content_mode_and_path_in_any_order() {
        let a = ReleasePath::parse("a").unwrap();
        let b = ReleasePath::parse("b").unwrap();
        let (one, two) = (digest("test"), digest("other"));
        let id = ReleaseId::of([(one, FileMode::PLAIN, &a), (two, FileMode::PLAIN, &b)].into_iter());
        let reversed = ReleaseId::of([(two, FileMode::PLAIN, &b), (one, FileMode::PLAIN, &a)].into_iter());
        assert_eq!(id, reversed);
        assert_eq!(id.as_str(), "46b411a24485fd53");
        assert_ne!(id, ReleaseId::of([(two, FileMode::PLAIN, &a), (one, FileMode::PLAIN, &b)].into_iter()));
        assert_ne!(
            id,
            ReleaseId::of([(one, FileMode::EXECUTABLE, &a), (two, FileMode::PLAIN, &b)].into_iter())
        );
        assert_eq!(ReleaseId::parse(id.as_str()), Some(id));
    }

    #[test]
    fn other_names_are_not_ids() {
        for name in
            ["", "current", "9f86d081884c7d6", "9f86d081884c7d659", "9F86d081884c7d65", "../../../../../x"]
        {
            assert_eq!(ReleaseId::parse(name), None, "{name}");
        }
    }
}
