//! The one way to name a file in a release: [`ReleasePath`].
//!
//! A content manager is another party, and its paths become paths on our disk. Every rule about them is here, and a
//! value of this type has passed all of them, so no code behind it checks a path again. What two paths of one release may
//! be to each other (never the same, never one beneath the other) is checked by [`disjoint`].

use std::fmt;

use lifecycle::escape::is_unsafe;

/// The longest path in bytes; with a volume's own path before it this stays well under Linux' `PATH_MAX`.
pub(crate) const MAX_BYTES: usize = 1024;
/// The deepest path.
pub(crate) const MAX_SEGMENTS: usize = 64;
/// The longest name between two slashes that Linux' file systems take (`NAME_MAX`).
pub(crate) const MAX_SEGMENT_BYTES: usize = 255;

/// A path inside a release: relative, `/`-separated, clean.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ReleasePath(Box<str>);

/// Why a path is not one that a release may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("it is empty")]
    Empty,
    #[error("it is absolute")]
    Absolute,
    /// `a//b` or `a/`.
    #[error("it has an empty segment")]
    EmptySegment,
    /// `.` or `..`.
    #[error("it has a '.' or '..' segment")]
    DotSegment,
    /// Another system's separator: what is one name here would be two there.
    #[error("it has a backslash")]
    Backslash,
    /// NUL ends a path in the kernel's eyes; a line break would let one path pass for two in a release's identity; others change
    /// what a terminal shows, and with it which file a person takes for another.
    #[error("it has a control character")]
    Control,
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("it is deeper than {MAX_SEGMENTS} segments")]
    TooDeep,
    #[error("it has a name longer than {MAX_SEGMENT_BYTES} bytes")]
    SegmentTooLong,
}

impl ReleasePath {
    /// Checks a path.
    pub(crate) fn parse(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(PathError::TooLong);
        }
        if text.starts_with('/') {
            return Err(PathError::Absolute);
        }
        if text.contains('\\') {
            return Err(PathError::Backslash);
        }
        if text.contains(is_unsafe) {
            return Err(PathError::Control);
        }
        if text.split('/').count() > MAX_SEGMENTS {
            return Err(PathError::TooDeep);
        }
        for segment in text.split('/') {
            match segment {
                "" => return Err(PathError::EmptySegment),
                "." | ".." => return Err(PathError::DotSegment),
                _ if segment.len() > MAX_SEGMENT_BYTES => return Err(PathError::SegmentTooLong),
                _ => {}
            }
        }
        Ok(Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Its names, outermost first.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The directories above it, outermost first: `a`, `a/b` for `a/b/c`.
    pub(crate) fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }
}

/// Its order and hash are those of its text.
impl std::borrow::Borrow<str> for ReleasePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReleasePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for ReleasePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, out)
    }
}

/// How two paths of one release contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Conflict {
    #[error("is listed twice")]
    Duplicate,
    /// A file where another path needs a directory.
    #[error("lies beneath a path that is a file")]
    FileUnderFile,
}

/// Checks that all paths can be in one tree.
pub(crate) fn disjoint<T>(files: &[T], path: impl Fn(&T) -> &ReleasePath) -> Result<(), (usize, Conflict)> {
    let path = |index: u32| path(&files[index as usize]);
    // A set of the names would take seven times as much memory, and most lists are sorted already.
    let mut sorted: Vec<u32> = (0..).take(files.len()).collect();
    sorted.sort_unstable_by(|a, b| path(*a).as_str().cmp(path(*b).as_str()).then(a.cmp(b)));
    let same = |pair: &&[u32]| path(pair[0]) == path(pair[1]);
    if let Some(second) = sorted.windows(2).filter(same).map(|pair| pair[1]).min() {
        return Err((second as usize, Conflict::Duplicate));
    }
    let is_file = |name: &str| sorted.binary_search_by(|index| path(*index).as_str().cmp(name)).is_ok();
    // Neighbours lie in the same directory most often.
    let mut checked = None;
    let is_beneath_file = |index: &u32| {
        let directory = path(*index).as_str().rsplit_once('/').map(|(directory, _)| directory);
        if checked != directory && path(*index).ancestors().any(is_file) {
            return true;
        }
        checked = directory;
        false
    };
    match sorted.iter().copied().filter(is_beneath_file).min() {
        Some(index) => Err((index as usize, Conflict::FileUnderFile)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_relative_paths_pass() {
        for path in ["a", "css/site.css", "a b/ü/日本.html", "..a/b..", ".well-known/x", "%2e%2e/x"] {
            assert_eq!(ReleasePath::parse(path).unwrap().as_str(), path);
        }
        assert!(ReleasePath::parse(&["a"; MAX_SEGMENTS].join("/")).is_ok());
    }

    #[test]
    fn every_rule_refuses() {
        let deep = ["a"; MAX_SEGMENTS + 1].join("/");
        let long = "a/".repeat(MAX_BYTES / 2) + "a";
        let name = "a".repeat(MAX_SEGMENT_BYTES + 1);
        for (path, error) in [
            ("", PathError::Empty),
            ("/etc/passwd", PathError::Absolute),
            ("a//b", PathError::EmptySegment),
            ("a/", PathError::EmptySegment),
            ("./a", PathError::DotSegment),
            ("a/../../b", PathError::DotSegment),
            ("a\\b", PathError::Backslash),
            ("a\0b", PathError::Control),
            ("a\nb", PathError::Control),
            ("a\u{9b}b", PathError::Control),
            ("a\u{202e}b", PathError::Control),
            ("a\u{2028}b", PathError::Control),
            (&deep, PathError::TooDeep),
            (&long, PathError::TooLong),
            (&name, PathError::SegmentTooLong),
        ] {
            assert_eq!(ReleasePath::parse(path), Err(error), "{path:?}");
        }
    }

    #[test]
    fn one_tree_holds_all_paths() {
        let conflict = |all: &[&str]| {
            let paths: Vec<_> = all.iter().map(|path| ReleasePath::parse(path).unwrap()).collect();
            disjoint(&paths, |path| path)
        };
        assert_eq!(conflict(&["a", "a-b", "b/a", "b/c"]), Ok(()));
        assert_eq!(conflict(&["a", "b", "a"]), Err((2, Conflict::Duplicate)));
        // Byte order puts `a-b` between the two that conflict.
        assert_eq!(conflict(&["a", "a-b", "a/b"]), Err((2, Conflict::FileUnderFile)));
        assert_eq!(conflict(&["a/b/c", "a"]), Err((0, Conflict::FileUnderFile)));
        // Behind a neighbour in the same directory, and the first of several.
        assert_eq!(conflict(&["a/c", "x", "a/b", "a"]), Err((0, Conflict::FileUnderFile)));
        assert_eq!(conflict(&["x/y", "b", "b", "b", "x"]), Err((2, Conflict::Duplicate)));
    }
}
