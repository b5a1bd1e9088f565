//! Names of files that survive a crash: a file that is synced is lost all the same where its directory is not.

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
        // /proc has no disk that its directories could be written to.
        assert!(File::open("/proc").unwrap().sync_all().is_err());
        sync(Path::new("/proc")).unwrap();
        assert!(sync(Path::new("/proc/none")).is_err());
    }
}
