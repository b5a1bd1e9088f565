//! All public files beneath a directory: what a generation is built from, and what a manifest lists.
//!
//! Links that stay beneath the root are followed, as a request would follow them; a link to a directory above itself ends
//! there. Hidden names are left out in silence, names that no request could ask for with a warning. A file or directory that may
//! not be read is an error: what is served in part is served wrong.

use std::io;

use super::dir::{Directory, FileInfo, Identity, Lookup};
use super::public::{Depth, is_public};

/// A tree deeper or larger than this is refused rather than half served: no site is, and a mistake in a volume is.
const MAX_DEPTH: usize = 64;
const MAX_FILES: usize = 1_000_000;
const MAX_PATH: usize = 1024;

/// What is told of a tree, in no order.
pub(crate) trait Visitor {
    /// Ends the walk.
    type Error: From<io::Error>;

    /// A file, by its path relative to the root.
    fn file(&mut self, path: &str, info: FileInfo) -> Result<(), Self::Error>;

    /// A directory other than the root.
    fn directory(&mut self, path: &str) -> Result<(), Self::Error>;
}

/// Walks everything beneath a directory of `root`, of which `""` is the root itself. Blocks.
///
/// # Errors
/// Where a directory or file cannot be read, the tree is beyond all measure, or the visitor says so.
pub(crate) fn visit<V: Visitor>(root: &Directory, directory: &str, visitor: &mut V) -> Result<(), V::Error> {
    Walk { root, visitor, above: Vec::new(), found: 0 }.descend(directory)
}

struct Walk<'a, V> {
    root: &'a Directory,
    visitor: &'a mut V,
    /// The directories that the present one is in.
    above: Vec<Identity>,
    found: usize,
}

impl<V: Visitor> Walk<'_, V> {
    fn descend(&mut self, at: &str) -> Result<(), V::Error> {
        let mut listing = match self.root.entries(at) {
            Ok(listing) => listing,
            // A plain directory may be edited at any moment, also while we walk it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !at.is_empty() => {
                tracing::warn!(directory = at, "left out: just removed");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if self.above.contains(&listing.identity) {
            return Ok(());
        }
        if self.above.len() >= MAX_DEPTH {
            let reason = format!("{at} is more than {MAX_DEPTH} directories deep");
            return Err(io::Error::other(reason).into());
        }
        self.above.push(listing.identity);
        let depth = if at.is_empty() { Depth::Top } else { Depth::Below };
        while let Some(name) = listing.next()? {
            let Ok(name) = String::from_utf8(name) else {
                tracing::warn!(directory = at, "left out: a name that is not UTF-8");
                continue;
            };
            if is_public(&name, depth) {
                self.visit(&if at.is_empty() { name } else { format!("{at}/{name}") })?;
            }
        }
        self.above.pop();
        Ok(())
    }

    fn visit(&mut self, path: &str) -> Result<(), V::Error> {
        if path.contains('\\') || path.len() > MAX_PATH {
            tracing::warn!(
                path,
                "left out: no request can ask for a name with a backslash or longer than 1,024 bytes"
            );
            return Ok(());
        }
        match self.root.examine(path)? {
            Lookup::File(info) => self.visitor.file(path, info)?,
            Lookup::Dir => {
                self.descend(path)?;
                self.visitor.directory(path)?;
            }
            Lookup::None => tracing::debug!(path, "left out: no regular file beneath the root"),
        }
        self.found += 1;
        if self.found > MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} files")).into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Collects the files.
    impl Visitor for Vec<(String, FileInfo)> {
        type Error = io::Error;

        fn file(&mut self, path: &str, info: FileInfo) -> io::Result<()> {
            self.push((path.to_owned(), info));
            Ok(())
        }

        fn directory(&mut self, _path: &str) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn public_files_with_inner_links_followed_and_loops_ended() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::create_dir_all(at(".git")).unwrap();
        for path in ["index.html", "a/b/c.css", ".git/config", ".index.html.swp", "a/back\\slash"] {
            std::fs::write(at(path), path).unwrap();
        }
        symlink("a/b", at("link")).unwrap();
        symlink("..", at("a/up")).unwrap();
        symlink("/etc/passwd", at("passwd")).unwrap();

        let mut found = Vec::new();
        visit(&Directory::open(root.path()).unwrap(), "", &mut found).unwrap();
        let mut paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["a/b/c.css", "index.html", "link/c.css"]);
    }
}
