//! Making files and directories with exactly the mode that they have to have: the umask is ignored.

use std::fs::File;
use std::io;
use std::sync::OnceLock;

use lifecycle::Ignore as _;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use super::sys;
use crate::content::FileMode;
use crate::crash_point::lacks;

pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The mode of directories, and of the manifests in them.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct DirectoryOptions {
    /// Make directories and manifests writable for their group (0775, 0664), so that a puller under another user of that group can take over
    #[arg(long)]
    group_write: bool,
}

impl DirectoryOptions {
    /// 0755, or 0775 with `--group-write`.
    pub(super) fn mode(self) -> Mode {
        Mode::from_raw_mode(if self.group_write { 0o775 } else { 0o755 })
    }

    /// 0700, or 0770 with `--group-write`: of what readers are not to see, such as the names of files that were left out.
    pub(super) fn closed_mode(self) -> Mode {
        Mode::from_raw_mode(if self.group_write { 0o770 } else { 0o700 })
    }

    /// The same for a file: 0600, or 0660.
    pub(super) fn closed_file_mode(self) -> FileMode {
        if self.group_write { FileMode::CLOSED_GROUP_WRITABLE } else { FileMode::CLOSED }
    }

    /// 0644, or 0664 with `--group-write`: the time of a manifest is set when its release is replaced, and only a user who may write
    /// a file can set its time.
    pub(super) fn manifest_mode(self) -> FileMode {
        if self.group_write { FileMode::GROUP_WRITABLE } else { FileMode::PLAIN }
    }
}

/// Opens a directory itself, never through a link that was put in its place.
pub(crate) fn open_directory(beneath: impl AsFd, name: impl Arg + Copy) -> Result<OwnedFd, Errno> {
    open(beneath, name, DIRECTORY)
}

/// Opens a file to read it, never through a link, and without waiting where something else was put in its place.
pub(crate) fn open_file(beneath: impl AsFd, name: impl Arg + Copy) -> Result<File, Errno> {
    open(beneath, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC)
        .map(File::from)
}

/// Opens something to read it. Its access time stays as it is, where it is ours: a hundred thousand updates are a load for the disk
/// and for memory (see `backlog`).
fn open(beneath: impl AsFd, name: impl Arg + Copy, flags: OFlags) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat(&beneath, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(beneath, name, flags, Mode::empty()),
        opened => opened,
    }
}

/// Makes a directory of exactly that mode, unless it is there. Returns whether it was made.
pub(super) fn ensure_directory(beneath: impl AsFd + Copy, name: &str, mode: Mode) -> io::Result<bool> {
    match make_directory(beneath, name, mode) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        done => done.map(|()| true),
    }
}

/// Makes a directory of exactly that mode.
pub(super) fn make_directory(beneath: impl AsFd + Copy, name: &str, mode: Mode) -> io::Result<()> {
    rustix::fs::mkdirat(beneath, name, mode)?;
    // The file mode creation mask may have taken bits away. A set-group-ID bit that the parent directory gave must stay:
    // chmod(2) of a mode without it would remove it, so the bits are compared first.
    let stat = rustix::fs::statat(beneath, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let found = stat.st_mode & 0o7777;
    if found & 0o777 != mode.as_raw_mode() {
        sys::chmod(beneath, name, Mode::from_raw_mode(found & 0o7000 | mode.as_raw_mode()))?;
    }
    Ok(())
}

/// Adds to what was made without `--group-write` the rights that its group has in this mode. Only the owner can.
pub(super) fn add_group_rights(handle: impl AsFd, mode: Mode) -> Result<(), Errno> {
    let found = Mode::from_raw_mode(rustix::fs::fstat(&handle)?.st_mode & 0o7777);
    let added = mode & Mode::RWXG;
    if found.contains(added) { Ok(()) } else { sys::fchmod(handle, found | added) }
}

/// Sets the mode of a file that this process has made.
pub(crate) fn set_mode(file: &File, mode: FileMode) -> io::Result<()> {
    Ok(sys::fchmod(file, mode.as_mode())?)
}

/// The mode of a lock file: each user of its group can lock it, and see whether another process holds it. That its owner may execute it
/// is of no use: no umask gives this mode to a new file, and no file system to all its files, so it proves that modes are kept.
const LOCK_MODE: Mode = Mode::from_raw_mode(0o764);
/// What an earlier version gave it, and what a new one has until it is given its own.
const EARLIER_LOCK_MODE: Mode = Mode::from_raw_mode(0o664);

/// Opens a file to lock it, and makes it where it is missing.
pub(super) fn open_lock_file(beneath: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = rustix::fs::openat(beneath, name, flags, EARLIER_LOCK_MODE)?;
    if rustix::fs::fstat(&lock)?.st_mode & 0o777 != LOCK_MODE.as_raw_mode() {
        // Only its owner can, and a later process finds it done.
        sys::fchmod(&lock, LOCK_MODE).ignore();
    }
    Ok(lock)
}

/// Whether a lock file has the mode that it was given: some network file systems give every file the same.
pub(super) fn keeps_modes(lock: &OwnedFd) -> bool {
    let Ok(stat) = rustix::fs::fstat(lock) else { return false };
    let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
    // One that another user made with an earlier version is as it should be, and only that user can change it.
    let is_others = stat.st_uid != rustix::process::geteuid().as_raw();
    !lacks("modes") && (mode == LOCK_MODE || is_others && mode == EARLIER_LOCK_MODE)
}

/// Makes a file that was not there before, and that no other program can read yet.
pub(crate) fn create_file(beneath: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    create_file_as(beneath, name, Mode::from_raw_mode(0o600))
}

fn create_file_as(beneath: impl AsFd, name: &str, mode: Mode) -> io::Result<OwnedFd> {
    let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(beneath, name, new, mode)?)
}

/// Makes files that are most likely plain ones, so that nearly none needs its mode set.
#[derive(Debug, Default)]
pub(super) struct PlainFiles {
    /// Whether a new file has the mode of a plain file: what the umask or the directory's own rules did to the first, they do to all.
    are_plain: OnceLock<bool>,
}

impl PlainFiles {
    /// Makes a file that was not there before.
    pub(super) fn create(&self, beneath: impl AsFd, name: &str) -> io::Result<OwnedFd> {
        let plain = FileMode::PLAIN.as_mode();
        let file = create_file_as(beneath, name, plain)?;
        self.are_plain.get_or_init(|| {
            rustix::fs::fstat(&file).is_ok_and(|stat| Mode::from_raw_mode(stat.st_mode & 0o7777) == plain)
        });
        Ok(file)
    }

    /// Whether a file that was made has this mode.
    pub(super) fn have(&self, mode: FileMode) -> bool {
        mode == FileMode::PLAIN && self.are_plain.get() == Some(&true)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;
    use std::time::SystemTime;

    use super::*;

    /// By default a file system updates the access time when a file is first read after a change.
    #[test]
    fn reading_leaves_the_access_time_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let above = File::open(directory.path()).unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "text").unwrap();
        let times = std::fs::FileTimes::new().set_accessed(SystemTime::UNIX_EPOCH);
        File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
        open_file(&above, "file").unwrap().read_to_string(&mut String::new()).unwrap();
        assert_eq!(path.metadata().unwrap().atime(), 0);
    }
}
