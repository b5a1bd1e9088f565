//! The volume's layout, and the right to write it.
//!
//! Owns the three names that file-puller has on a volume (`current`, `releases/`, `.staging/`), holds a handle to each
//! directory for as long as it runs, and the lock that keeps a second puller out. At start it clears away what a crash left,
//! and nothing that is not file-puller's own. How a release is filled is `stage`'s affair, how it becomes visible `publish`'s.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use lifecycle::exit::{Exit, Failure};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::content::{Limits, Manifest, ReleaseId};

/// The public name: a relative symbolic link to the release that is served.
pub(crate) const CURRENT: &str = "current";
/// Holds the releases and their manifests.
pub(crate) const RELEASES: &str = "releases";
/// Holds what is not complete, or no longer needed.
pub(crate) const STAGING: &str = ".staging";
/// In the private directory: a copy of the current release, which stays there from one sync to the next.
pub(crate) const SPARE: &str = "spare";

/// A volume that this process, and no other, writes.
#[derive(Debug)]
pub(crate) struct Volume {
    path: PathBuf,
    // The lock is on this handle: the kernel lets go of it when the process ends, however it ends.
    root: OwnedFd,
    releases: OwnedFd,
    staging: OwnedFd,
}

/// Why the volume could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// The system refused an operation.
    #[error("cannot {context}: {cause}")]
    Io {
        /// The operation and the name that it was about.
        context: String,
        /// The system's reason.
        cause: io::Error,
    },
    /// Another puller has it. That may end at any moment, so this is no verdict on the volume.
    #[error("another file-puller is writing {}; stop it, or give this one a --volume of its own", .0.display())]
    InUse(PathBuf),
    /// It is not one of ours.
    #[error("{0}")]
    Refused(String),
}

impl VolumeError {
    /// The exit code for it.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Io { .. } => Exit::Io,
            Self::InUse(_) => Exit::Unavailable,
            Self::Refused(_) => Exit::Refused,
        }
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
    pub(crate) fn open(path: &Path) -> Result<Self, VolumeError> {
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
        match rustix::fs::flock(&root, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(VolumeError::InUse(path.to_owned())),
            Err(error) => return Err(error).context(|| format!("lock the volume {shown}")),
        }
        check_current(&root, path)?;
        let releases = open_or_make(&root, RELEASES, path)?;
        let staging = open_or_make(&root, STAGING, path)?;
        Ok(Self { path: path.to_owned(), root, releases, staging })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The volume's directory.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory of releases.
    pub(crate) fn releases(&self) -> BorrowedFd<'_> {
        self.releases.as_fd()
    }

    /// The private directory.
    pub(crate) fn staging(&self) -> BorrowedFd<'_> {
        self.staging.as_fd()
    }

    /// The release that `current` names, if its tree is there.
    pub(crate) fn current(&self) -> Result<Option<ReleaseId>, VolumeError> {
        let target = match rustix::fs::readlinkat(&self.root, CURRENT, Vec::new()) {
            Ok(target) => target,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error).context(|| format!("read the link {self}/{CURRENT}")),
        };
        let named = target.to_str().ok().and_then(link_target);
        Ok(named.filter(|id| self.holds(id)))
    }

    /// Whether the release's tree is there.
    pub(crate) fn holds(&self, id: &ReleaseId) -> bool {
        rustix::fs::statat(&self.releases, id.as_str(), AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// A handle on the release's tree.
    pub(crate) fn open_release(&self, id: &ReleaseId) -> Result<OwnedFd, VolumeError> {
        rustix::fs::openat(&self.releases, id.as_str(), DIRECTORY, Mode::empty())
            .context(|| format!("open {self}/{RELEASES}/{id}"))
    }

    /// The releases that have a tree and a manifest, most recently published first.
    pub(crate) fn complete_releases(&self) -> Result<Vec<ReleaseId>, VolumeError> {
        let mut found = Vec::new();
        for id in self.names(|name| name.strip_suffix(".json").and_then(ReleaseId::parse))? {
            let manifest = rustix::fs::statat(&self.releases, manifest_name(&id), AtFlags::SYMLINK_NOFOLLOW);
            if let (Ok(stat), true) = (manifest, self.holds(&id)) {
                found.push(((stat.st_mtime, stat.st_mtime_nsec), id));
            }
        }
        found.sort_by(|(a, _), (b, _)| b.cmp(a));
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }

    /// The manifest that a release was published with, or `None` where it is missing or was tampered with.
    pub(crate) fn manifest(&self, id: &ReleaseId) -> Option<Manifest> {
        let json = fs::read(self.path.join(RELEASES).join(manifest_name(id))).ok()?;
        // It was within the limits of its day, which need not be today's.
        let unlimited = Limits {
            manifest: u64::MAX,
            files: usize::MAX,
            file_size: u64::MAX,
            size: u64::MAX,
            min_free: 0,
        };
        let manifest = Manifest::parse(&json, &unlimited).ok()?;
        drop(json);
        (manifest.id() == *id).then_some(manifest)
    }

    /// Makes sure that so many more bytes fit and `min_free` stays free, before any of them is fetched.
    pub(crate) fn has_room_for(&self, bytes: u64, min_free: u64) -> Result<(), VolumeError> {
        let free = self.free()?;
        if bytes.saturating_add(min_free) <= free {
            return Ok(());
        }
        let [bytes, free, min_free] = [bytes, free, min_free].map(bytesize::ByteSize);
        let cause = format!("it has {free} free, and --min-free {min_free} of that is to stay free");
        Err(io::Error::new(io::ErrorKind::StorageFull, cause)).context(|| format!("stage {bytes} on {self}"))
    }

    /// How many bytes a user without privileges can still write.
    pub(crate) fn free(&self) -> Result<u64, VolumeError> {
        let stat = rustix::fs::fstatvfs(&self.root).context(|| format!("ask how much space {self} has"))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// The names under `releases/` that `ours` reads as a release's.
    pub(crate) fn names(
        &self,
        ours: impl Fn(&str) -> Option<ReleaseId>,
    ) -> Result<Vec<ReleaseId>, VolumeError> {
        let context = || format!("read {self}/{RELEASES}");
        let mut ids = Vec::new();
        for entry in fs::read_dir(self.path.join(RELEASES)).context(context)? {
            ids.extend(entry.context(context)?.file_name().to_str().and_then(&ours));
        }
        Ok(ids)
    }
}

#[cfg(test)]
impl Volume {
    /// The volume with something else in the place of its directory of releases.
    pub(crate) fn with_releases(self, releases: OwnedFd) -> Self {
        Self { releases, ..self }
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.path.display(), out)
    }
}

/// How a directory is opened: itself, never through a link that somebody put in its place.
pub(crate) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What `current` points at when it names that release. Relative, so that it holds wherever the volume is mounted.
pub(crate) fn link_text(id: &ReleaseId) -> String {
    format!("{RELEASES}/{id}")
}

/// The name of a release's manifest, beside its tree.
pub(crate) fn manifest_name(id: &ReleaseId) -> String {
    format!("{id}.json")
}

fn link_target(text: &str) -> Option<ReleaseId> {
    text.strip_prefix(RELEASES)?.strip_prefix('/').and_then(ReleaseId::parse)
}

/// Refuses a volume whose `current` was made by somebody else: replacing it could take away what they serve.
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

fn open_or_make(root: &OwnedFd, name: &str, path: &Path) -> Result<OwnedFd, VolumeError> {
    let shown = path.display();
    match rustix::fs::mkdirat(root, name, Mode::from_raw_mode(0o755)) {
        // The umask may have taken bits away that readers under another user need.
        Ok(()) => rustix::fs::chmodat(root, name, Mode::from_raw_mode(0o755), AtFlags::empty())
            .context(|| format!("set the mode of {shown}/{name}"))?,
        Err(Errno::EXIST) => {}
        Err(error @ (Errno::ACCESS | Errno::PERM)) => {
            let uid = rustix::process::geteuid().as_raw();
            let hint = io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{}; the volume must be writable for user {uid}", io::Error::from(error)),
            );
            return Err(hint).context(|| format!("make {shown}/{name}"));
        }
        Err(error) => return Err(error).context(|| format!("make {shown}/{name}")),
    }
    rustix::fs::openat(root, name, DIRECTORY, Mode::empty())
        .context(|| format!("open {shown}/{name} as a directory"))
}
