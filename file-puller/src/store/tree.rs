//! Questions to a tree on the volume, and how a file of one tree gets into another.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};

use lifecycle::Ignore as _;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::create::{create_file, open_file, set_mode};
use super::sys;
use super::volume::{Volume, VolumeError};
use crate::content::{Digest, FileMode, Manifest, ManifestFile, ReleaseId, ReleasePath};
use crate::crash_point::stall;

/// Whether a file can be what its manifest says, as far as its size and mode tell.
pub(super) fn looks_intact(
    volume: &Volume,
    tree: BorrowedFd<'_>,
    path: &ReleasePath,
    file: &ManifestFile,
) -> bool {
    rustix::fs::statat(tree, path.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && u64::try_from(stat.st_size) == Ok(file.size)
            && (!volume.keeps_modes() || file.mode.is_intact(stat.st_mode))
    })
}

/// Whether every file of a release is in its place, as far as size and mode tell.
pub(crate) fn looks_whole(volume: &Volume, id: &ReleaseId, manifest: &Manifest) -> Result<bool, VolumeError> {
    if !volume.holds(id)? {
        return Ok(false);
    }
    let tree = volume.open_release(id)?;
    Ok(manifest.files.iter().all(|file| looks_intact(volume, tree.as_fd(), &file.path, file)))
}

/// The digest of a file's content.
pub(super) fn digest(tree: BorrowedFd<'_>, path: &str) -> io::Result<Digest> {
    digest_until(tree, path, || false)?.ok_or_else(|| io::ErrorKind::Interrupted.into())
}

/// The digest of a file's content, or `None` if it was told to stop before the end.
pub(super) fn digest_until(
    tree: BorrowedFd<'_>,
    path: &str,
    stop: impl Fn() -> bool,
) -> io::Result<Option<Digest>> {
    let file = open_file(tree, path)?;
    stall("read");
    let mut is_stopped = false;
    let digest = Digest::of_reader(file, |_| {
        is_stopped = stop();
        if is_stopped { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    });
    if is_stopped { Ok(None) } else { digest.map(Some) }
}

/// Puts a file that is on the volume at another place as well: as a hard link, or as a copy where the file system has no
/// links, this file has as many as it can have, or it belongs to another user. A copy is compared with what it has to be.
pub(super) fn link_or_copy(
    from: BorrowedFd<'_>,
    old: &str,
    to: BorrowedFd<'_>,
    new: &str,
    content: (Digest, FileMode),
) -> io::Result<()> {
    match sys::link(from, old, to, new) {
        Err(Errno::PERM | Errno::MLINK | Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::ACCESS) => {}
        linked => return Ok(linked?),
    }
    let copied = copy(from, old, to, new, content);
    if copied.is_err() {
        // The first failure is the one to report.
        rustix::fs::unlinkat(to, new, AtFlags::empty()).ignore();
    }
    copied
}

fn copy(
    from: BorrowedFd<'_>,
    old: &str,
    to: BorrowedFd<'_>,
    new: &str,
    (digest, mode): (Digest, FileMode),
) -> io::Result<()> {
    let source = open_file(from, old)?;
    let mut copy = File::from(create_file(to, new)?);
    if Digest::of_reader(source, |piece| copy.write_all(piece))? != digest {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not what its manifest says"));
    }
    set_mode(&copy, mode)?;
    // Not all that is copied is noted by itself, and copies are few or the file system is one without links.
    copy.sync_all()
}
