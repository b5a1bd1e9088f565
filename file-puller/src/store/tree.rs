//! Questions to a release's tree on the volume.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType};

use crate::content::{ManifestFile, ReleasePath};

/// Whether a file can be what its manifest says, as far as its size and mode tell.
pub(crate) fn looks_intact(tree: BorrowedFd<'_>, path: &ReleasePath, file: &ManifestFile) -> bool {
    rustix::fs::statat(tree, path.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && u64::try_from(stat.st_size) == Ok(file.size)
            && stat.st_mode & 0o7777 == file.mode.bits()
    })
}
