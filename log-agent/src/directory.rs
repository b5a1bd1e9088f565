//! A name in a directory has to outlive a crash, as what is under it does.

use std::fs::File;
use std::io;
use std::io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
use std::path::Path;

/// Writes a directory's names to the disk, where that can be asked for.
///
/// # Errors
/// As the disk gives them.
pub(crate) fn sync(directory: &Path) -> io::Result<()> {
    match File::open(directory).and_then(|directory| directory.sync_all()) {
        // A directory that may be written to and not read, or a file system whose directories know no sync.
        Err(error) if matches!(error.kind(), PermissionDenied | InvalidInput | Unsupported) => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_synced_is_no_failure() {
        // The kernel's own have no disk.
        assert!(File::open("/proc").unwrap().sync_all().is_err());
        sync(Path::new("/proc")).unwrap();
        assert!(sync(Path::new("/proc/none")).is_err());
    }
}
