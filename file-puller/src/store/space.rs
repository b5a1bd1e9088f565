//! Whether a release fits, and what takes the space if it does not.

use std::collections::HashSet;
use std::io;
use std::iter;
use std::os::fd::{AsFd as _, BorrowedFd};

use bytesize::ByteSize;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::create::open_directory;
use super::directory::entries;
use super::volume::{Context as _, RELEASES, Volume, VolumeError};
use crate::content::ReleaseId;
use crate::crash_point::lacks;

/// What a release will add to the volume.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Need {
    /// Bytes that are still to be written.
    written: u64,
    /// Bytes that its releases take more.
    kept: u64,
    inodes: u64,
}

impl Need {
    /// Files of these sizes, and so many directories.
    pub(crate) fn new(volume: &Volume, sizes: impl Iterator<Item = u64>, directories: usize) -> Self {
        let block = volume.space().map_or(4096, |space| space.block).max(1);
        // A file takes whole blocks, and a directory at least one.
        let mut need = Self { inodes: directories as u64, ..Self::default() };
        need.kept = need.inodes.saturating_mul(block);
        for size in sizes {
            need.inodes += 1;
            need.kept = need.kept.saturating_add(size.next_multiple_of(block));
        }
        Self { written: need.kept, ..need }
    }

    /// The same, where the files are on the volume already, outside of its releases.
    pub(crate) fn arrived(volume: &Volume, sizes: impl Iterator<Item = u64>, directories: usize) -> Self {
        let Self { kept, .. } = Self::new(volume, sizes, directories);
        Self { kept, ..Self::new(volume, iter::empty(), directories) }
    }

    /// So many bytes that come over the wire. What releases take of them is known once they are unpacked; it is no less than
    /// this that is written, most of the time.
    pub(crate) fn arriving(bytes: u64) -> Self {
        Self { written: bytes, ..Self::default() }
    }
}

/// Makes sure that it fits, before any of it is fetched: `min_free` bytes of the file system stay free, and all releases together
/// take no more than `max_volume_size`. The error names what is short, and what holds it.
pub(crate) fn check_room(
    volume: &Volume,
    need: &Need,
    min_free: u64,
    max_volume_size: Option<u64>,
    current: Option<&ReleaseId>,
) -> Result<(), VolumeError> {
    let context = || format!("stage {} on {volume}", ByteSize(need.written.max(need.kept)));
    let short = |why: String| Err(io::Error::new(io::ErrorKind::StorageFull, why)).context(context);
    if let Ok(space) = volume.space() {
        let why = if need.written.saturating_add(min_free) > space.free {
            let (free, min_free) = (ByteSize(space.free), ByteSize(min_free));
            Some(format!("it has {free} free, and --min-free {min_free} of that is to stay free"))
        } else {
            let too_few = space.free_inodes.filter(|free| *free < need.inodes);
            let needed = need.inodes;
            too_few.map(|free| format!("its file system has {free} inodes free, and {needed} are needed"))
        };
        if let Some(why) = why {
            let held = usage(volume, current).map(|usage| usage.held_by_old()).unwrap_or_default();
            return short(why + &held);
        }
    }
    if let Some(limit) = max_volume_size.filter(|_| need.kept > 0) {
        let usage = usage(volume, current).context(|| format!("read {volume}/{RELEASES}"))?;
        if usage.total().saturating_add(need.kept) > limit {
            let (total, limit) = (ByteSize(usage.total()), ByteSize(limit));
            let held = usage.held_by_old();
            return short(format!("its releases take {total} of --max-volume-size {limit}{held}"));
        }
    }
    Ok(())
}

/// Adds to a system's error, which says that the volume is full, what holds the space.
pub(crate) fn explain_full(volume: &Volume, full: VolumeError, current: Option<&ReleaseId>) -> VolumeError {
    match (full, usage(volume, current)) {
        (VolumeError::Io { context, cause }, Ok(usage)) => {
            let why = format!("{cause}{}", usage.held_by_old());
            VolumeError::Io { context, cause: io::Error::new(io::ErrorKind::StorageFull, why) }
        }
        (full, _) => full,
    }
}

/// What the releases take.
#[derive(Debug, Default)]
struct Usage {
    current: u64,
    /// Beyond what they share with the current one.
    old: u64,
    old_releases: usize,
}

impl Usage {
    fn total(&self) -> u64 {
        self.current.saturating_add(self.old)
    }

    fn held_by_old(&self) -> String {
        match self.old_releases {
            0 => "; there is no old release that could go".to_owned(),
            releases => format!(
                "; {releases} old releases hold {} of it and cannot go before --keep-for is over",
                ByteSize(self.old)
            ),
        }
    }
}

fn usage(volume: &Volume, current: Option<&ReleaseId>) -> io::Result<Usage> {
    if lacks("tree-sizes") {
        return Err(Errno::IO.into());
    }
    let mut seen = HashSet::new();
    let mut usage = Usage::default();
    let mut releases: Vec<_> =
        volume.complete_releases().map_err(io::Error::other)?.into_iter().map(|(id, _)| id).collect();
    // The current one first, so that what it shares with others is its own.
    releases.sort_by_key(|id| current != Some(id));
    for id in releases {
        let tree = open_directory(volume.releases(), id.as_str())?;
        let bytes = tree_size(tree.as_fd(), &mut seen)?;
        if current == Some(&id) {
            usage.current = bytes;
        } else {
            usage.old = usage.old.saturating_add(bytes);
            usage.old_releases += 1;
        }
    }
    Ok(usage)
}

/// What a tree takes on the disk, without the files that were seen before.
fn tree_size(directory: BorrowedFd<'_>, seen: &mut HashSet<u64>) -> io::Result<u64> {
    let mut size = 0;
    for entry in entries(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let below = open_directory(directory, name)?;
            size += tree_size(below.as_fd(), seen)?;
        } else if stat.st_nlink > 1 && !seen.insert(stat.st_ino) {
            continue;
        }
        // Blocks of 512 bytes, whatever the file system's own are.
        size += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::create::DirectoryOptions;

    #[test]
    fn a_directory_takes_an_inode_and_a_block_whether_or_not_its_files_have_arrived() {
        let above = tempfile::tempdir().unwrap();
        let volume = Volume::open(&above.path().join("volume"), DirectoryOptions::default()).unwrap();
        let block = volume.space().unwrap().block;
        let sizes = [0, 1, block, block + 1];
        let Need { written, kept, inodes } = Need::new(&volume, sizes.into_iter(), 3);
        assert_eq!((written, kept, inodes), ((4 + 3) * block, (4 + 3) * block, 4 + 3));
        // The files are on the volume, and their directories are not.
        let Need { written, kept, inodes } = Need::arrived(&volume, sizes.into_iter(), 3);
        assert_eq!((written, kept, inodes), (3 * block, (4 + 3) * block, 3));
    }

    #[test]
    fn directories_are_in_what_a_release_takes() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("volume");
        let volume = Volume::open(&path, DirectoryOptions::default()).unwrap();
        let id = ReleaseId::parse("0123456789abcdef").unwrap();
        std::fs::create_dir_all(path.join("releases").join(id.as_str()).join("a/b")).unwrap();
        let blocks = |directory: &str| {
            let directory = path.join("releases").join(id.as_str()).join(directory);
            std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(directory).unwrap()) * 512
        };
        let tree = volume.open_release(&id).unwrap();
        let size = tree_size(tree.as_fd(), &mut HashSet::new()).unwrap();
        assert_eq!(size, blocks("a") + blocks("a/b"));
    }
}
