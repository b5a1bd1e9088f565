//! A directory that nothing leads out of.
//!
//! SECURITY: every open goes through `openat2` with `RESOLVE_BENEATH`, so that the kernel itself refuses `..`, absolute
//! links and links out of the tree, at the moment of the open and without a race. Links that stay inside are followed:
//! ConfigMap volumes and git work trees are made of them. `O_NONBLOCK` keeps a FIFO from holding anyone up.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, Stat, fstat, fstatfs, openat, openat2};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

/// How often an open is tried again that the kernel gave up because something was renamed meanwhile.
const RENAME_RACES: usize = 16;

/// The kernel refuses whatever leads out.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// What a file is opened for, if it is to be read.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// A handle on a directory, kept open: it stays the same directory whatever becomes of its name.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    identity: Identity,
}

/// Device and inode: which directory it is, whatever it is called.
pub(crate) type Identity = (u64, u64);

fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

/// A file or directory that this process may not read, with the user that it runs as: mostly that of a container, which is not
/// the user that wrote the content.
fn denied(what: &str, error: Errno) -> io::Error {
    let error = io::Error::from(error);
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let message = format!(
        "{what}: {error}; user {user}, group {group}, must be able to read it, for example after `chmod -R a+rX`"
    );
    io::Error::new(error.kind(), message)
}

/// Which file, in which state: as long as all of this is equal, so are the bytes. The change time is in it because,
/// unlike the modification time, no program can set it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileState {
    device: u64,
    /// On its device.
    pub(crate) inode: u64,
    /// In bytes.
    pub(crate) size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What a path names.
#[derive(Debug)]
pub(crate) enum Lookup<T> {
    /// A regular file.
    File(T),
    /// A directory.
    Dir,
    /// Nothing that may be served: absent, outside, unreadable, a FIFO, a device, a socket.
    None,
}

/// What is known of a file without opening it for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileInfo {
    /// Identity and state.
    pub(crate) state: FileState,
    /// Any of the three executable bits.
    pub(crate) executable: bool,
}

impl Directory {
    /// Opens a directory by name, links followed: the operator chooses the root.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty()).map_err(|error| match error {
            Errno::ACCESS | Errno::PERM => denied("the directory", error),
            other => other.into(),
        })?;
        let identity = identity(&fstat(&fd)?);
        Ok(Self { fd, identity })
    }

    /// Which one it is.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Asks the kernel once for what everything else here stands on.
    ///
    /// # Errors
    /// Where it has no `openat2`, or a sandbox forbids it.
    pub(crate) fn check_kernel() -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        openat2(CWD, c".", flags, Mode::empty(), ResolveFlags::BENEATH).map(drop).map_err(|error| {
            io::Error::other(format!(
                "this kernel or its sandbox has no openat2 ({error}): Linux 5.6 or later is needed"
            ))
        })
    }

    /// Opens what `path` names beneath this directory, for reading if it is a regular file.
    ///
    /// # Errors
    /// Where the system fails, such as out of descriptors; that there is nothing to serve is no error.
    pub(crate) fn file(&self, path: &str) -> io::Result<Lookup<(File, FileState)>> {
        look(self.beneath(path, READ)?, |file, metadata| (file, FileState::of(metadata)))
    }

    /// The regular file that `path` names, where the kernel finds it without waiting for a disk. `None` says nothing about what
    /// is there.
    pub(crate) fn cached_file(&self, path: &str) -> Option<(File, FileState)> {
        self.cached(path, READ)
    }

    /// The state of such a file, which is not opened for that: inotify would tell every watcher of the directory.
    pub(crate) fn cached_state(&self, path: &str) -> Option<FileState> {
        self.cached(path, OFlags::PATH).map(|(_, state)| state)
    }

    fn cached(&self, path: &str, flags: OFlags) -> Option<(File, FileState)> {
        let resolve = BENEATH | ResolveFlags::CACHED;
        // A kernel before 5.12 does not know `CACHED`, and refuses.
        let fd = openat2(self.fd.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve).ok()?;
        let file = File::from(fd);
        let metadata = file.metadata().ok()?;
        metadata.is_file().then(|| (file, FileState::of(&metadata)))
    }

    /// Whether a question about a file in it can take the time of a network, whatever is cached.
    pub(crate) fn is_remote(&self) -> bool {
        // NFS, FUSE (and virtiofs), CIFS, SMB 2, 9P, Ceph, AFS.
        const REMOTE: [u32; 7] =
            [0x6969, 0x6573_5546, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997, 0x00c3_6400, 0x5346_414f];
        // What cannot be told may be.
        fstatfs(&self.fd).map_or(true, |stat| {
            REMOTE.iter().any(|magic| u64::try_from(stat.f_type).unwrap_or_default() == u64::from(*magic))
        })
    }

    /// Looks at what `path` names beneath this directory without opening it for reading.
    pub(crate) fn inspect(&self, path: &str) -> io::Result<Lookup<FileInfo>> {
        look(self.beneath(path, OFlags::PATH)?, |_, metadata| FileInfo::of(metadata))
    }

    /// Like [`Directory::inspect`], but what may not be read is an error: for those who have to have all or nothing.
    pub(crate) fn examine(&self, path: &str) -> io::Result<Lookup<FileInfo>> {
        look(self.try_beneath(path, READ)?, |_, metadata| FileInfo::of(metadata))
    }

    /// The names in a directory beneath this one (`""` is this one), in no order, and the directory's identity.
    ///
    /// # Errors
    /// `NotFound` where the path names no directory, `PermissionDenied` where it may not be read.
    pub(crate) fn entries(&self, path: &str) -> io::Result<Listing> {
        let path = if path.is_empty() { "." } else { path };
        let fd =
            self.try_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)?.ok_or(io::ErrorKind::NotFound)?;
        let names = Dir::read_from(&fd)?;
        Ok(Listing { identity: identity(&names.stat()?), names })
    }

    /// `None` where there is nothing for us.
    fn beneath(&self, path: &str, flags: OFlags) -> io::Result<Option<OwnedFd>> {
        match self.try_beneath(path, flags) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
            opened => opened,
        }
    }

    /// `None` where there is nothing. What may not be read is an error.
    fn try_beneath(&self, path: &str, flags: OFlags) -> io::Result<Option<OwnedFd>> {
        for _ in 0..RENAME_RACES {
            match openat2(self.fd.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), BENEATH) {
                Ok(fd) => return Ok(Some(fd)),
                // The tree was being changed while the kernel looked; it leaves it to us to look again.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error @ (Errno::ACCESS | Errno::PERM)) => return Err(denied(path, error)),
                Err(
                    Errno::NOENT
                    | Errno::NOTDIR
                    | Errno::LOOP
                    | Errno::XDEV
                    | Errno::NXIO
                    | Errno::NODEV
                    | Errno::NAMETOOLONG
                    | Errno::INVAL,
                ) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }
}

/// What was opened, and what is known of it if it is a regular file.
fn look<T>(fd: Option<OwnedFd>, of: impl FnOnce(File, &Metadata) -> T) -> io::Result<Lookup<T>> {
    let Some(fd) = fd else { return Ok(Lookup::None) };
    let file = File::from(fd);
    let metadata = file.metadata()?;
    Ok(if metadata.is_file() {
        Lookup::File(of(file, &metadata))
    } else if metadata.is_dir() {
        Lookup::Dir
    } else {
        Lookup::None
    })
}

/// A directory's names, as the file system has them: not every name is text.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) identity: Identity,
    names: Dir,
}

impl Listing {
    /// The next one.
    pub(crate) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        for entry in &mut self.names {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                return Ok(Some(name.to_vec()));
            }
        }
        Ok(None)
    }
}

impl FileInfo {
    fn of(metadata: &Metadata) -> Self {
        Self { state: FileState::of(metadata), executable: metadata.mode() & 0o111 != 0 }
    }
}

impl FileState {
    /// The state of an open file now.
    pub(crate) fn of_file(file: &File) -> io::Result<Self> {
        Ok(Self::of(&file.metadata()?))
    }

    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The bytes of [`FileState::pack`].
    pub(crate) const PACKED: usize = 36;

    /// In as few bytes as there can be, for the index of a large release; without the change time.
    pub(crate) fn pack(&self) -> [u8; Self::PACKED] {
        let mut packed = [0; Self::PACKED];
        packed[..8].copy_from_slice(&self.device.to_le_bytes());
        packed[8..16].copy_from_slice(&self.inode.to_le_bytes());
        packed[16..24].copy_from_slice(&self.size.to_le_bytes());
        packed[24..32].copy_from_slice(&self.modified.0.to_le_bytes());
        // Nanoseconds within a second.
        packed[32..].copy_from_slice(&u32::try_from(self.modified.1).unwrap_or(0).to_le_bytes());
        packed
    }

    /// All of it, the change time included.
    pub(crate) fn to_bytes(self) -> [u8; Self::PACKED + 16] {
        let mut bytes = [0; Self::PACKED + 16];
        bytes[..Self::PACKED].copy_from_slice(&self.pack());
        bytes[Self::PACKED..Self::PACKED + 8].copy_from_slice(&self.changed.0.to_le_bytes());
        bytes[Self::PACKED + 8..].copy_from_slice(&self.changed.1.to_le_bytes());
        bytes
    }

    /// What was packed.
    pub(crate) fn unpack(packed: [u8; Self::PACKED]) -> Self {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&packed[at..at + 8]);
            word
        };
        let nanoseconds = u32::from_le_bytes([packed[32], packed[33], packed[34], packed[35]]);
        Self {
            device: u64::from_le_bytes(word(0)),
            inode: u64::from_le_bytes(word(8)),
            size: u64::from_le_bytes(word(16)),
            modified: (i64::from_le_bytes(word(24)), nanoseconds.into()),
            changed: (0, 0),
        }
    }

    /// The same, as far as it can be packed.
    pub(crate) fn without_change_time(self) -> Self {
        Self { changed: (0, 0), ..self }
    }

    /// Whether this is the same file with the same bytes, in a tree where files are not edited: the change time is left out,
    /// because it moves each time a publisher hard-links an unchanged file into its next release.
    pub(crate) fn same_file(&self, other: &Self) -> bool {
        Self { changed: other.changed, ..*self } == *other
    }

    /// When these bytes came to be found here at the latest: written, or renamed into place.
    pub(crate) fn last_change(&self) -> SystemTime {
        time(self.modified.max(self.changed))
    }

    /// How long it has been in this state at least. A modification time can be set to any date, a change time cannot: a modification
    /// time in the future says nothing.
    pub(crate) fn age(&self) -> Duration {
        let since_changed = time(self.changed).elapsed().unwrap_or_default();
        time(self.modified).elapsed().map_or(since_changed, |since| since.min(since_changed))
    }
}

/// Of the seconds and nanoseconds since 1970.
fn time((seconds, nanoseconds): (i64, i64)) -> SystemTime {
    let since_epoch = Duration::new(
        u64::try_from(seconds).unwrap_or_default(),
        u32::try_from(nanoseconds).unwrap_or_default(),
    );
    SystemTime::UNIX_EPOCH + since_epoch
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn named(dir: &Directory, path: &str) -> &'static str {
        match dir.file(path).unwrap() {
            Lookup::File(_) => "file",
            Lookup::Dir => "directory",
            Lookup::None => "nothing",
        }
    }

    #[test]
    fn nothing_leads_out() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        let inside = tempfile::tempdir_in(&outside).unwrap();
        let root = inside.path();
        std::fs::create_dir(root.join("d")).unwrap();
        std::fs::write(root.join("d/f"), "f").unwrap();
        symlink("d/f", root.join("within")).unwrap();
        symlink("../secret", root.join("relative")).unwrap();
        symlink(outside.path().join("secret"), root.join("absolute")).unwrap();
        symlink("/proc/self/root/etc/passwd", root.join("magic")).unwrap();

        let dir = Directory::open(root).unwrap();
        // What was looked up once is cached, and nothing leads out on that way either.
        for path in ["d", "relative", "absolute", "magic", "../secret", "/etc/passwd", "absent"] {
            assert_ne!(named(&dir, path), "file");
            assert!(dir.cached_file(path).is_none(), "{path}");
        }
        assert_eq!(named(&dir, "d/f"), "file");
        assert_eq!(named(&dir, "d"), "directory");
        assert_eq!(named(&dir, "within"), "file");
        for path in ["relative", "absolute", "magic", "../secret", "/etc/passwd", "absent", "d/f/x"] {
            assert_eq!(named(&dir, path), "nothing", "{path}");
        }
    }

    #[test]
    fn a_change_changes_the_stamp() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("f"), "one").unwrap();
        let file = File::open(root.path().join("f")).unwrap();
        let before = FileState::of_file(&file).unwrap();
        std::fs::write(root.path().join("f"), "longer").unwrap();
        assert_ne!(FileState::of_file(&file).unwrap(), before);
    }

    /// An edit that keeps the size, by a program that sets the modification time back: the change time tells.
    #[test]
    fn a_change_of_equal_length_and_modification_time_changes_the_stamp() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("f");
        std::fs::write(&path, "one").unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        let before = FileState::of_file(&file).unwrap();
        testkit::wait_until("the file system's clock has moved on", || {
            std::fs::write(&path, "two").unwrap();
            file.set_modified(modified).unwrap();
            FileState::of_file(&file).unwrap() != before
        });
        let after = FileState::of_file(&file).unwrap();
        assert_eq!((after.size, after.modified, after.inode), (before.size, before.modified, before.inode));
        assert!(
            after.same_file(&before),
            "in a tree where files are not edited, it is a hard link that was made"
        );
    }
}
