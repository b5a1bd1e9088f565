//! What a look at the names has not seen: where a directory cannot be read, a link cannot be looked behind, or a file cannot be opened,
//! there may be anything. So nothing that may be there is given up.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::files::FileTable;
use super::rotation::rotations_of;
use crate::checkpoint::FileEntry;
use crate::identity::FileKey;
use crate::watch::Names;

#[derive(Debug)]
pub(super) struct Hidden<'a> {
    names: &'a Names,
    /// Inodes of files that were found, and could not be followed.
    inodes: HashSet<u64>,
    /// Logs that these files, and names of which nothing more is known, may belong to.
    logs: HashSet<PathBuf>,
}

impl<'a> Hidden<'a> {
    /// Of these names, while these files are followed.
    pub(super) fn of(names: &'a Names, files: &FileTable) -> Self {
        let (mut inodes, mut logs) = (HashSet::new(), HashSet::new());
        let mut may_belong = |path: &Path| {
            logs.insert(path.to_owned());
            logs.extend(rotations_of(path).into_iter().map(|(log, _)| log));
        };
        for found in &names.files {
            let key = FileKey::of(&found.metadata);
            if files.with_key(&key).is_none() {
                inodes.insert(key.inode());
                may_belong(&found.place.path);
            }
        }
        names.failures.iter().for_each(|(path, _)| may_belong(path));
        Self { names, inodes, logs }
    }

    /// Whether a file of this log, or a copy of one, may be there.
    pub(super) fn may_be_of(&self, log: &Path) -> bool {
        self.logs.contains(log) || !self.names.has_seen(log)
    }

    /// Whether the file of an entry may be there, under whatever name.
    pub(super) fn may_be(&self, entry: &FileEntry) -> bool {
        self.may_be_where_it_was(entry) || self.may_be_of(entry.log())
    }

    /// Whether the file of an entry may be there under its last name, or was found and could not be followed.
    pub(super) fn may_be_where_it_was(&self, entry: &FileEntry) -> bool {
        self.inodes.contains(&entry.key.inode()) || !self.names.has_seen(&entry.path)
    }
}
