//! The volume's layout, and the right to write it.
//!
//! Owns the three names that file-puller has on a volume (`current`, `releases/`, `.staging/`), holds a handle to each
//! directory for as long as it runs, and the lock that keeps a second puller out. At start it clears away what a crash left,
//! and nothing that is not file-puller's own. How a release is filled is `staging`'s affair, how it becomes visible `publish`'s.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lifecycle::Ignore as _;
use lifecycle::exit::{Exit, Failure};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::backlog::Backlog;
use super::create::{
    DIRECTORY, DirectoryOptions, add_group_rights, ensure_directory, keeps_modes, open_directory,
    open_lock_file,
};
use super::directory::entries;
use super::private::Private;
use super::sys::{self, Lock};
use crate::content::{FileMode, LARGE_MANIFEST, Limits, Manifest, ReleaseId};
use crate::crash_point::lacks;

/// The public name: a relative symbolic link to the release that is served.
pub(crate) const CURRENT: &str = "current";
/// Holds the releases and their manifests.
pub(crate) const RELEASES: &str = "releases";
/// Holds what is not complete, or no longer needed.
pub(crate) const STAGING: &str = ".staging";
/// In it: the file that the process which writes the volume has locked.
pub(crate) const LOCK: &str = "lock";

/// What is appended to a manifest's name for that of its signature.
pub(super) const SIGNATURE_EXTENSION: &str = ".sig";

/// A volume that this process, and no other, writes.
#[derive(Debug)]
pub(crate) struct Volume {
    path: PathBuf,
    // The lock is on this handle: the kernel lets go of it when the process ends, however it ends.
    root: OwnedFd,
    releases: OwnedFd,
    staging: OwnedFd,
    /// Open for as long as the volume is ours: closing it gives the lock back.
    _lock: Option<OwnedFd>,
    directories: DirectoryOptions,
    keeps_modes: bool,
    backlog: Arc<Backlog>,
    /// Made when there is something to put in it, so that a volume that cannot be written can still be followed.
    private: Mutex<Option<Arc<Private>>>,
}

/// Why the volume could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// The system refused an operation.
    #[error("cannot {context}: {cause}")]
    Io {
        /// The operation and the name that it was about.
        context: String,
        cause: io::Error,
    },
    /// Another puller has it. That may end at any moment, so this is no verdict on the volume.
    #[error("another file-puller is writing {}; stop it, or give this one a --volume of its own", .0.display())]
    InUse(PathBuf),
    /// What was staged is gone, or another tree is in its place.
    #[error("another process has changed {}; only one file-puller may write a volume, and its locks do not work between the two", .0.display())]
    Shared(PathBuf),
    /// It is not one of ours.
    #[error("{0}")]
    Refused(String),
}

impl VolumeError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Io { .. } | Self::Shared(_) => Exit::Io,
            Self::InUse(_) => Exit::Unavailable,
            Self::Refused(_) => Exit::Refused,
        }
    }

    /// Whether the system says that there is no space left, or no inode.
    pub(crate) fn is_full(&self) -> bool {
        let full = [Errno::NOSPC, Errno::DQUOT].map(|errno| Some(errno.raw_os_error()));
        matches!(self, Self::Io { cause, .. } if full.contains(&cause.raw_os_error()))
    }

    /// Whether the system says that this user may not do it.
    pub(super) fn is_denied(&self) -> bool {
        matches!(self, Self::Io { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied)
    }

    /// The thread that writes to the volume has ended before its time. Never the error to report: that thread's own is.
    pub(crate) fn given_up() -> Self {
        let cause = io::Error::other("the thread that writes has ended");
        Self::Io { context: "write what was downloaded".to_owned(), cause }
    }
}

impl From<VolumeError> for Failure {
    fn from(error: VolumeError) -> Self {
        Self::new(error.exit(), error.to_string())
    }
}

/// Says what was being done when the system refused.
pub(crate) trait Context<T> {
    /// `context` completes "cannot …".
    fn context(self, context: impl FnOnce() -> String) -> Result<T, VolumeError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, context: impl FnOnce() -> String) -> Result<T, VolumeError> {
        self.map_err(|error| VolumeError::Io { context: context(), cause: error.into() })
    }
}

impl Volume {
    /// Takes a volume into use: makes what is missing, and locks it.
    pub(crate) fn open(path: &Path, directories: DirectoryOptions) -> Result<Self, VolumeError> {
        let shown = path.display();
        match fs::create_dir(path) {
            Ok(()) => {
                tracing::info!(volume = %shown, "volume made");
                let above = fs::File::open(path.join("..")).and_then(|above| above.sync_all());
                above.context(|| format!("sync what holds the volume {shown}"))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context(|| format!("make the volume {shown}")),
        }
        let root = rustix::fs::open(path, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty())
            .context(|| format!("open the volume {shown}"))?;
        let local = sys::flock(&root).context(|| format!("lock the volume {shown}"))?;
        if local == Lock::HeldByAnother {
            return Err(VolumeError::InUse(path.to_owned()));
        }
        check_current(&root, path)?;
        let staging = open_or_make(&root, STAGING, path, directories.mode())?;
        let lock = open_lock(&staging).context(|| format!("open {shown}/{STAGING}/{LOCK}"))?;
        let forwarded = match &lock {
            Some(lock) => sys::fcntl_lock(lock).context(|| format!("lock {shown}/{STAGING}/{LOCK}"))?,
            None => Lock::Missing,
        };
        match (local, forwarded) {
            (_, Lock::HeldByAnother) => return Err(VolumeError::InUse(path.to_owned())),
            (Lock::Missing, Lock::Missing) => {
                tracing::warn!(volume = %shown, "the volume has no locks: make sure that only one file-puller writes it");
            }
            _ => {}
        }
        let keeps_modes = lock.as_ref().is_none_or(keeps_modes);
        if !keeps_modes {
            tracing::warn!(volume = %shown, "the volume's file system keeps no modes, so those of the manifest have no effect");
        }
        check_symlinks(&root, &staging, path)?;
        let releases = open_or_make(&root, RELEASES, path, directories.mode())?;
        let backlog = Arc::new(Backlog::new(staging.as_fd()));
        let private = Mutex::new(None);
        let path = path.to_owned();
        Ok(Self { path, root, releases, staging, _lock: lock, directories, keeps_modes, backlog, private })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The volume's directory.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    pub(crate) fn releases(&self) -> BorrowedFd<'_> {
        self.releases.as_fd()
    }

    /// A directory of the volume's own that readers cannot look into, which is made where it is missing.
    pub(crate) fn closed_directory(&self, name: &str) -> Result<OwnedFd, VolumeError> {
        open_or_make(&self.root, name, &self.path, self.directories.closed_mode())
    }

    /// The mode of a file in such a directory.
    pub(crate) fn closed_file_mode(&self) -> FileMode {
        self.directories.closed_file_mode()
    }

    /// The mode of directories.
    pub(super) fn directory_mode(&self) -> Mode {
        self.directories.mode()
    }

    /// The mode of a release's manifest, and of its signature.
    pub(super) fn manifest_mode(&self) -> FileMode {
        self.directories.manifest_mode()
    }

    /// Whether a file has the mode that it was given.
    pub(super) fn keeps_modes(&self) -> bool {
        self.keeps_modes
    }

    /// What its changes hold of the container's memory.
    pub(super) fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    /// This process' own directory in `.staging`, which is made where it is not there, or not any more.
    pub(super) fn private(&self) -> Result<Arc<Private>, VolumeError> {
        let mut private = self.private.lock();
        if let Some(private) = private.as_ref().filter(|private| private.is_in_place(self.staging())) {
            return Ok(Arc::clone(private));
        }
        let made =
            Private::create(self.staging(), &self.path.join(STAGING), self.directory_mode(), &self.backlog)
                .map_err(|error| explained(error, self.staging()))
                .context(|| format!("make a directory in {self}/{STAGING}"))?;
        Ok(Arc::clone(private.insert(Arc::new(made))))
    }

    /// Whether that is the name of this process' own directory.
    pub(super) fn is_own(&self, name: &str) -> bool {
        self.private.lock().as_ref().is_some_and(|private| private.name() == name)
    }

    /// Removes this process' own directory if nothing is in it, until it is needed again.
    pub(super) fn release_private(&self) {
        let mut private = self.private.lock();
        if private.as_ref().is_some_and(|private| private.is_empty())
            && let Some(private) = private.take()
        {
            private.remove(self.staging());
        }
    }

    /// This process' own directory, if it was made.
    pub(super) fn existing_private(&self) -> Option<Arc<Private>> {
        self.private.lock().clone()
    }

    /// The directory of private directories.
    pub(crate) fn staging(&self) -> BorrowedFd<'_> {
        self.staging.as_fd()
    }

    /// The release that `current` names, if its tree is there.
    pub(crate) fn current(&self) -> Result<Option<ReleaseId>, VolumeError> {
        match self.current_target()? {
            Some(id) if self.holds(&id)? => Ok(Some(id)),
            _ => Ok(None),
        }
    }

    /// The release that `current` names, whether or not its tree is there.
    pub(super) fn current_target(&self) -> Result<Option<ReleaseId>, VolumeError> {
        match rustix::fs::readlinkat(&self.root, CURRENT, Vec::new()) {
            Ok(target) => Ok(target.to_str().ok().and_then(link_target)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).context(|| format!("read the link {self}/{CURRENT}")),
        }
    }

    /// Whether the release's tree is there.
    pub(crate) fn holds(&self, id: &ReleaseId) -> Result<bool, VolumeError> {
        let kind = self.kind_of(id.as_str())?;
        Ok(kind == Some(FileType::Directory))
    }

    /// What has this name under `releases/`. SECURITY: that it cannot be asked does not mean that nothing has it, or a disk that fails
    /// for a moment would let older content be accepted.
    fn kind_of(&self, name: &str) -> Result<Option<FileType>, VolumeError> {
        match rustix::fs::statat(&self.releases, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).context(|| format!("look at {self}/{RELEASES}/{name}")),
        }
    }

    /// A handle on the release's tree.
    pub(crate) fn open_release(&self, id: &ReleaseId) -> Result<OwnedFd, VolumeError> {
        open_directory(&self.releases, id.as_str()).context(|| format!("open {self}/{RELEASES}/{id}"))
    }

    /// The releases that have a tree and a manifest, most recently current first, with the time at which each was published or,
    /// if it is not current any more, replaced.
    pub(crate) fn complete_releases(&self) -> Result<Vec<(ReleaseId, SystemTime)>, VolumeError> {
        let mut found = Vec::new();
        for id in self.names(manifest_id)? {
            let manifest = rustix::fs::statat(&self.releases, manifest_name(&id), AtFlags::SYMLINK_NOFOLLOW);
            if let (Ok(stat), Ok(true)) = (manifest, self.holds(&id)) {
                let seconds = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
                let nanoseconds = Duration::from_nanos(stat.st_mtime_nsec);
                found.push((id, SystemTime::UNIX_EPOCH + seconds + nanoseconds));
            }
        }
        found.sort_by(|(_, a), (_, b)| b.cmp(a));
        Ok(found)
    }

    /// The manifest that a release was published with, or `None` where it is missing or was tampered with.
    pub(crate) fn manifest(&self, id: &ReleaseId) -> Option<Manifest> {
        read_manifest(self.releases(), id)
    }

    /// Whether a release has a signature beside its manifest.
    pub(crate) fn has_signature(&self, id: &ReleaseId) -> Result<bool, VolumeError> {
        Ok(self.kind_of(&signature_name(id))?.is_some())
    }

    /// Says so where no release can ever fit, because the whole volume is smaller than what is to stay free.
    pub(crate) fn warn_if_too_small(&self, min_free: u64) {
        // Some FUSE file systems do not know how much space they have.
        if let Ok(Space { all, .. }) = self.space()
            && all <= min_free
        {
            let [all, min_free] = [all, min_free].map(bytesize::ByteSize);
            tracing::warn!(volume = %self, "no release can fit: the volume has {all} in all, and --min-free {min_free} of that is to stay free; lower it, or make the volume larger");
        }
    }

    /// How many bytes a user without privileges can still write.
    pub(crate) fn free(&self) -> Result<u64, VolumeError> {
        Ok(self.space()?.free)
    }

    /// What a user without privileges can still write.
    pub(super) fn space(&self) -> Result<Space, VolumeError> {
        let stat = if lacks("statvfs") { Err(Errno::NOSYS) } else { rustix::fs::fstatvfs(&self.root) };
        let stat = stat.context(|| format!("ask how much space {self} has"))?;
        Ok(Space {
            all: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            // btrfs and others make inodes as they are needed, and say 0.
            free_inodes: if lacks("inodes") { Some(0) } else { (stat.f_files > 0).then_some(stat.f_favail) },
            block: stat.f_frsize,
        })
    }

    /// The names under `releases/` that `ours` reads as a release's.
    pub(crate) fn names(
        &self,
        ours: impl Fn(&str) -> Option<ReleaseId>,
    ) -> Result<Vec<ReleaseId>, VolumeError> {
        let context = || format!("read {self}/{RELEASES}");
        let mut ids = Vec::new();
        for entry in entries(self.releases()).context(context)? {
            ids.extend(entry.context(context)?.file_name().to_str().ok().and_then(&ours));
        }
        Ok(ids)
    }
}

/// The manifest of a release that lies beside its tree, or `None` where it is missing or was tampered with.
pub(super) fn read_manifest(beneath: BorrowedFd<'_>, id: &ReleaseId) -> Option<Manifest> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let json = rustix::fs::openat(beneath, manifest_name(id), flags, Mode::empty());
    let mut json = fs::File::from(json.ok()?);
    // It was within the limits of its day, which need not be today's.
    let manifest = if json.metadata().ok()?.len() > LARGE_MANIFEST {
        Manifest::read(json, &Limits::NONE).ok()?
    } else {
        let mut text = Vec::new();
        json.read_to_end(&mut text).ok()?;
        Manifest::parse(&text, &Limits::NONE).ok()?
    };
    (manifest.id() == *id).then_some(manifest)
}

/// What a file system has left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space {
    all: u64,
    pub(super) free: u64,
    /// `None` where it has no fixed number of them.
    pub(super) free_inodes: Option<u64>,
    pub(super) block: u64,
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.release_private();
    }
}

#[cfg(test)]
impl Volume {
    /// The volume with something else in the place of its directory of releases.
    pub(crate) fn with_releases(mut self, releases: OwnedFd) -> Self {
        self.releases = releases;
        self
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.path.display(), out)
    }
}

/// What `current` points at when it names that release. Relative, so that it holds wherever the volume is mounted.
pub(crate) fn link_text(id: &ReleaseId) -> String {
    format!("{RELEASES}/{id}")
}

/// The name of a release's manifest, beside its tree.
pub(crate) fn manifest_name(id: &ReleaseId) -> String {
    format!("{id}.json")
}

/// The release whose manifest has this name.
pub(super) fn manifest_id(name: &str) -> Option<ReleaseId> {
    name.strip_suffix(".json").and_then(ReleaseId::parse)
}

/// The name of its manifest's signature.
pub(crate) fn signature_name(id: &ReleaseId) -> String {
    format!("{}{SIGNATURE_EXTENSION}", manifest_name(id))
}

fn link_target(text: &str) -> Option<ReleaseId> {
    text.strip_prefix(RELEASES)?.strip_prefix('/').and_then(ReleaseId::parse)
}

/// Refuses a volume whose `current` was made by another program: replacing it could take away what that program serves.
fn check_current(root: &OwnedFd, path: &Path) -> Result<(), VolumeError> {
    let what = match rustix::fs::readlinkat(root, CURRENT, Vec::new()) {
        Ok(target) if target.to_str().ok().and_then(link_target).is_some() => return Ok(()),
        Ok(target) => format!("points at {target:?}, which is not a release of file-puller"),
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::INVAL) => "is not a symbolic link".to_owned(),
        Err(error) => return Err(error).context(|| format!("read the link {}/{CURRENT}", path.display())),
    };
    let shown = path.display();
    Err(VolumeError::Refused(format!("{shown}/{CURRENT} {what}; move it away or choose another --volume")))
}

/// Refuses a file system on which no release could ever become current, before anything is fetched for it.
fn check_symlinks(root: &OwnedFd, staging: &OwnedFd, path: &Path) -> Result<(), VolumeError> {
    // A volume that has the link needs no other proof, and nothing is written where nothing changes.
    if rustix::fs::statat(root, CURRENT, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        return Ok(());
    }
    if let Err(error) = sys::symlink(RELEASES, staging, CURRENT)
        && (error == Errno::PERM || sys::is_missing(error))
    {
        let shown = path.display();
        return Err(error).context(|| {
            format!("use {shown}: its file system has no symbolic links, and {CURRENT} has to be one; choose another --volume")
        });
    }
    // Any other failure is one that the first sync meets as well. A link that stays is swept.
    rustix::fs::unlinkat(staging, CURRENT, AtFlags::empty()).ignore();
    Ok(())
}

fn open_or_make(root: &OwnedFd, name: &str, path: &Path, mode: Mode) -> Result<OwnedFd, VolumeError> {
    let shown = path.display();
    ensure_directory(root, name, mode)
        .map_err(|error| explained(error, root.as_fd()))
        .context(|| format!("make {shown}/{name}"))?;
    let directory = open_directory(root, name)
        .map_err(|error| explained(error.into(), root.as_fd()))
        .context(|| format!("open {shown}/{name} as a directory"))?;
    if mode.contains(Mode::WGRP) {
        // Only its owner can, and a volume that is read-only can be followed as it is.
        add_group_rights(&directory, mode).ignore();
    }
    Ok(directory)
}

/// Opens the file that carries the lock which NFS forwards. `None` where this process may not write: then it cannot damage
/// anything either.
fn open_lock(staging: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    match open_lock_file(staging, LOCK) {
        Ok(lock) => Ok(Some(lock)),
        Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Adds to "permission denied" who this process is, whose the directory is, and what to do.
pub(crate) fn explained(error: io::Error, directory: BorrowedFd<'_>) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let owner = match rustix::fs::fstat(directory) {
        Ok(stat) => {
            format!("user {}, group {}, mode {:04o}", stat.st_uid, stat.st_gid, stat.st_mode & 0o7777)
        }
        Err(_) => "another user".to_owned(),
    };
    let why = format!(
        "{error}; the directory above belongs to {owner}, and this process is user {uid}, group {gid}: run it as that user, or \
         give the volume a group that both have (fsGroup) and start both with --group-write"
    );
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe has no names, and says so in another way than a directory without them.
    #[test]
    fn what_cannot_be_asked_is_not_taken_to_be_missing() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("volume");
        let volume = Volume::open(&path, DirectoryOptions::default()).unwrap();
        let id = ReleaseId::parse("0123456789abcdef").unwrap();
        std::os::unix::fs::symlink(link_text(&id), path.join(CURRENT)).unwrap();
        assert_eq!((volume.current().unwrap(), volume.has_signature(&id).unwrap()), (None, false));
        let volume = volume.with_releases(std::io::pipe().unwrap().0.into());
        assert!(volume.current().is_err() && volume.has_signature(&id).is_err());
    }
}
