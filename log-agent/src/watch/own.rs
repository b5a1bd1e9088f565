//! The agent's own files: those of the state directory, and what sinks write to. They are not followed, by whatever path or symbolic
//! link: each line that is shipped would make another one there.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What the agent keeps in the state directory; other files there are not its own.
const KEPT: [&str; 10] = [
    "checkpoint.0.json",
    "checkpoint.1.json",
    "checkpoint.tmp",
    "dead-letter.ndjson",
    "dead-letter.ndjson.1",
    "instance",
    "instance.tmp",
    "lock",
    "sent.ndjson",
    "sent.tmp",
];

#[derive(Debug, Default)]
pub(crate) struct OwnFiles {
    files: Vec<PathBuf>,
}

impl OwnFiles {
    /// Of this state directory, and of sinks that write to these files, which may not be there yet.
    pub(crate) fn new(state_dir: &Path, sinks: Vec<PathBuf>) -> Self {
        let sinks = sinks.into_iter().map(|sink| sink.canonicalize().unwrap_or(sink));
        Self { files: KEPT.map(|name| state_dir.join(name)).into_iter().chain(sinks).collect() }
    }

    /// Whether a file of this name, which is no link, is one of them. Directories are looked at only where the last names agree, so that
    /// a disk of the agent's own that does not answer keeps no scan waiting.
    pub(super) fn has(&self, path: &Path) -> bool {
        let mut of_this_name = self.files.iter().filter(|own| own.file_name() == path.file_name());
        of_this_name.any(|own| {
            let own_directory = directory_of(own);
            own_directory.is_some() && own_directory == directory_of(path)
        })
    }
}

/// Device and inode of the directory that a file is in.
fn directory_of(path: &Path) -> Option<(u64, u64)> {
    let metadata = path.parent()?.metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}
