//! All public files beneath a directory: what a generation is built from, and what a manifest lists.
//!
//! Links that stay beneath the root are followed, as a request would follow them; a link to a directory above itself ends
//! there. Hidden names are left out in silence, names that no request could ask for with a warning.

use std::io;

use crate::content::dir::{Directory, FileInfo, Lookup};
use crate::content::path::{self, Depth};

/// A tree deeper or larger than this is refused rather than half served: no site is, and a mistake in a volume is.
const MAX_DEPTH: usize = 64;
const MAX_FILES: usize = 1_000_000;
const MAX_PATH: usize = 1024;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Paths relative to the root, sorted by bytes.
    pub(crate) files: Vec<(String, FileInfo)>,
    /// Directories, the root left out.
    pub(crate) directories: Vec<String>,
}

/// Walks everything beneath `root`. Blocks.
///
/// # Errors
/// Where a directory cannot be read, or the tree is beyond all measure.
pub(crate) fn walk(root: &Directory) -> io::Result<Tree> {
    let mut tree = Tree::default();
    descend(root, "", &mut Vec::new(), &mut tree)?;
    tree.files.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(tree)
}

/// Walks everything beneath a directory of `root`. Blocks.
pub(crate) fn walk_beneath(root: &Directory, directory: &str) -> io::Result<Tree> {
    let mut tree = Tree::default();
    descend(root, directory, &mut Vec::new(), &mut tree)?;
    Ok(tree)
}

fn descend(root: &Directory, at: &str, above: &mut Vec<(u64, u64)>, tree: &mut Tree) -> io::Result<()> {
    let listing = match root.list(at) {
        Ok(listing) => listing,
        // A plain directory may be edited at any moment, also while we walk it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !at.is_empty() => {
            tracing::warn!(directory = at, "left out: just removed, or not ours to read");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if above.contains(&listing.identity) {
        return Ok(());
    }
    if above.len() >= MAX_DEPTH {
        return Err(io::Error::other(format!("{at} is more than {MAX_DEPTH} directories deep")));
    }
    above.push(listing.identity);
    let place = if at.is_empty() { Depth::Top } else { Depth::Below };
    for name in listing.names {
        let Ok(name) = String::from_utf8(name) else {
            tracing::warn!(directory = at, "left out: a name that is not UTF-8");
            continue;
        };
        if !path::is_public(&name, place) {
            continue;
        }
        let path = if at.is_empty() { name } else { format!("{at}/{name}") };
        if path.contains('\\') || path.len() > MAX_PATH {
            tracing::warn!(
                path,
                "left out: no request can ask for a name with a backslash or longer than 1,024 bytes"
            );
            continue;
        }
        match root.inspect(&path)? {
            Lookup::File(inspected) => tree.files.push((path, inspected)),
            Lookup::Dir => {
                descend(root, &path, above, tree)?;
                tree.directories.push(path);
            }
            Lookup::None => tracing::debug!(path, "left out: no regular file beneath the root"),
        }
        if tree.files.len() + tree.directories.len() > MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} files")));
        }
    }
    above.pop();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

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

        let tree = walk(&Directory::open(root.path()).unwrap()).unwrap();
        let files: Vec<_> = tree.files.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(files, ["a/b/c.css", "index.html", "link/c.css"]);
    }
}
