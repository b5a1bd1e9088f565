//! What is in a directory, and removing it with all that is in it.
//!
//! The standard library panics where a directory cannot be closed, as NFS and FUSE let happen. Here that is no error: a directory
//! that was only read has nothing to lose.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, DirEntry};
use rustix::io::Errno;
use rustix::path::Arg;

use super::backlog::Backlog;
use super::create::open_directory;

/// How often a directory is emptied to which another process still adds.
const ATTEMPTS: u32 = 5;

/// What is in a directory, but for `.` and `..`.
pub(super) fn entries(directory: impl AsFd) -> io::Result<impl Iterator<Item = io::Result<DirEntry>>> {
    let is_listed = |name: &CStr| !matches!(name.to_bytes(), b"." | b"..");
    // Not `Dir::read_from`: it would open with the flags that this handle has, which may not be allowed any more.
    let all = Dir::new(open_directory(directory, ".")?)?.map(|entry| entry.map_err(io::Error::from));
    Ok(all.filter(move |entry| entry.as_ref().map_or(true, |entry| is_listed(entry.file_name()))))
}

/// Removes a name that is no directory's, if it is there.
pub(crate) fn unlink(beneath: impl AsFd, name: impl Arg) -> Result<(), Errno> {
    match rustix::fs::unlinkat(beneath, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        unlinked => unlinked,
    }
}

/// Removes a file, or a directory and all that is in it, if it is there, also while another process still adds to it or removes it.
pub(super) fn remove(beneath: BorrowedFd<'_>, name: impl Arg + Copy, backlog: &Backlog) -> io::Result<()> {
    backlog.moved(name.as_str().unwrap_or_default());
    match unlink(beneath, name) {
        Err(error @ (Errno::ISDIR | Errno::PERM)) => {
            let Ok(directory) = open_directory(beneath, name) else {
                return Err(error.into());
            };
            remove_directory(beneath, name, directory.as_fd(), backlog)
        }
        removed => Ok(removed?),
    }
}

fn remove_directory(
    beneath: BorrowedFd<'_>,
    name: impl Arg + Copy,
    directory: BorrowedFd<'_>,
    backlog: &Backlog,
) -> io::Result<()> {
    for _ in 1..ATTEMPTS {
        empty(directory, backlog)?;
        match rustix::fs::unlinkat(beneath, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => std::thread::yield_now(),
            Err(Errno::NOENT) => return Ok(()),
            removed => return Ok(removed?),
        }
    }
    empty(directory, backlog)?;
    Ok(rustix::fs::unlinkat(beneath, name, AtFlags::REMOVEDIR)?)
}

fn empty(directory: BorrowedFd<'_>, backlog: &Backlog) -> io::Result<()> {
    entries(directory)?.try_for_each(|entry| remove(directory, entry?.file_name(), backlog))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_tree_is_removed_and_what_it_links_to_is_not() {
        let above = tempfile::tempdir().unwrap();
        let at = |name: &str| above.path().join(name);
        fs::create_dir_all(at("tree/a/b")).unwrap();
        fs::create_dir(at("kept")).unwrap();
        fs::write(at("kept/file"), "").unwrap();
        for name in ["tree/1", "tree/a/2", "tree/a/b/3"] {
            fs::write(at(name), name).unwrap();
        }
        std::os::unix::fs::symlink("../kept", at("tree/link")).unwrap();
        let beneath = fs::File::open(above.path()).unwrap();
        let backlog = Backlog::new(beneath.as_fd());
        assert_eq!(entries(&beneath).unwrap().count(), 2);
        remove(beneath.as_fd(), "tree", &backlog).unwrap();
        assert!(!at("tree").exists() && at("kept/file").is_file());
        remove(beneath.as_fd(), "kept/file", &backlog).unwrap();
        remove(beneath.as_fd(), "tree", &backlog).unwrap();
    }
}
