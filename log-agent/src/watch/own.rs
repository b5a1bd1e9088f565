//! The agent's own files: those of the state directory, and what sinks write to. They are not followed, by whatever path or symbolic
//! link: each line that is shipped would make another one there.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The kernel follows at most so many links for one path (path_resolution(7)), and opens nothing behind more.
const MOST_LINKS: usize = 40;

#[derive(Debug, Default)]
pub(crate) struct OwnFiles {
    files: Vec<PathBuf>,
}

impl OwnFiles {
    /// These files, which may not be there yet. What is written by a link's name is written where the link leads.
    pub(crate) fn new(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { files: files.into_iter().map(behind_links).collect() }
    }

    /// Which of them a file of this name is, where the name is no link. Directories are looked at only where the last names agree, so
    /// that a disk of the agent's own that does not answer keeps no scan waiting.
    pub(super) fn find(&self, path: &Path) -> Option<&Path> {
        let mut of_this_name = self.files.iter().filter(|own| own.file_name() == path.file_name());
        let found = of_this_name.find(|own| {
            let own_directory = directory_of(own);
            own_directory.is_some() && own_directory == directory_of(path)
        });
        found.map(PathBuf::as_path)
    }
}

/// Follows a file's name through symbolic links, also to a file that is not there yet.
fn behind_links(mut path: PathBuf) -> PathBuf {
    for _ in 0..MOST_LINKS {
        let Ok(target) = path.read_link() else { break };
        path.pop();
        path.push(target);
    }
    path
}

/// Device and inode of the directory that a file is in.
fn directory_of(path: &Path) -> Option<(u64, u64)> {
    let metadata = path.parent()?.metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}
