//! A release while it is being put together, in the volume's private directory.
//!
//! Every name is made beneath the staging tree's own handle, and no file is opened that was there before, so nothing that a
//! manifest says can reach out of the tree. A [`StagedFile`] is hashed as it is written and counts only once its size and digest are the
//! manifest's. Modes are set on open handles: the umask has no say in what readers may read. A [`SeedTree`] is where a large release
//! begins that differs from the current one in little.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::fsync::FsyncSet;
use super::staged_file::{StagedFile, create};
use super::sweep::sweep_staging;
use super::volume::{Context as _, DIRECTORY, RELEASES, STAGING, Volume, VolumeError, manifest_name};
use crate::content::{Manifest, ReleaseId, ReleasePath};
use crate::crash_point::crash_point;

/// A release that nobody sees yet.
#[derive(Debug)]
pub(crate) struct Staging {
    volume: Arc<Volume>,
    id: ReleaseId,
    tree: OwnedFd,
    /// The release whose files are in the tree already, where the new one has them at the same paths.
    copy_of: Option<ReleaseId>,
    /// Open since it was written, as the release's own files are.
    manifest: File,
    fsync_set: Arc<FsyncSet>,
}

impl Staging {
    /// Clears the private directory, and makes in it the release's directories and its manifest.
    pub(crate) fn begin(
        volume: Arc<Volume>,
        id: ReleaseId,
        manifest: &Manifest,
    ) -> Result<Self, VolumeError> {
        sweep_staging(&volume)?;
        crash_point();
        Self::beside_unpacked(volume, id, manifest)
    }

    /// The same for files that are in the private directory already ([`Unpacked`](super::Unpacked)): nothing is cleared.
    pub(crate) fn beside_unpacked(
        volume: Arc<Volume>,
        id: ReleaseId,
        manifest: &Manifest,
    ) -> Result<Self, VolumeError> {
        let context = |name: &str| format!("make {volume}/{STAGING}/{id}/{name}");
        make_directory(volume.staging(), id.as_str()).context(|| context(""))?;
        let tree = rustix::fs::openat(volume.staging(), id.as_str(), DIRECTORY, Mode::empty())
            .context(|| context(""))?;
        let fsync_set = FsyncSet::new();
        fsync_set.note_root();
        for directory in manifest.directories() {
            make_directory(&tree, directory).context(|| context(directory))?;
            fsync_set.created(directory);
            crash_point();
        }
        let manifest = write_manifest(&volume, &id, manifest)?;
        Ok(Self { volume, id, tree, copy_of: None, manifest, fsync_set: Arc::new(fsync_set) })
    }

    /// A tree that began as a copy of the release `base`.
    pub(super) fn from_copy(
        volume: Arc<Volume>,
        id: ReleaseId,
        tree: OwnedFd,
        base: ReleaseId,
        manifest: File,
        fsync_set: FsyncSet,
    ) -> Self {
        Self { volume, id, tree, copy_of: Some(base), manifest, fsync_set: Arc::new(fsync_set) }
    }

    /// The release.
    pub(crate) fn id(&self) -> &ReleaseId {
        &self.id
    }

    /// The volume that it is for.
    pub(crate) fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// The staged tree.
    pub(crate) fn tree(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }

    /// Whether it began with the files of that release.
    pub(crate) fn is_copy_of(&self, release: &ReleaseId) -> bool {
        self.copy_of.as_ref() == Some(release)
    }

    /// Takes a file out again, so that another can take its place.
    pub(crate) fn remove(&self, path: &ReleasePath) -> Result<(), VolumeError> {
        match rustix::fs::unlinkat(&self.tree, path.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => {
                return Err(error).context(|| format!("remove {}/{STAGING}/{}/{path}", self.volume, self.id));
            }
        }
        self.fsync_set.moved(path.as_str());
        crash_point();
        Ok(())
    }

    /// Takes over a file of an earlier release: a hard link, so it costs neither transfer nor space.
    pub(crate) fn reuse(
        &self,
        release: BorrowedFd<'_>,
        from: &ReleasePath,
        to: &ReleasePath,
    ) -> io::Result<()> {
        rustix::fs::linkat(release, from.as_str(), &self.tree, to.as_str(), AtFlags::empty())?;
        self.fsync_set.moved(to.as_str());
        crash_point();
        Ok(())
    }

    /// Takes in a file of the private directory that was written for this release: moves it to its place. `written` is the
    /// file as it was opened for that, if it is still open.
    pub(super) fn adopt(
        &self,
        directory: BorrowedFd<'_>,
        name: &str,
        to: &ReleasePath,
        written: Option<File>,
    ) -> Result<(), VolumeError> {
        rustix::fs::renameat(directory, name, &self.tree, to.as_str())
            .context(|| format!("move {name} to {}/{STAGING}/{}/{to}", self.volume, self.id))?;
        self.fsync_set.created(to.as_str());
        if let Some(file) = written {
            self.fsync_set.wrote(to.as_str(), file);
        }
        crash_point();
        Ok(())
    }

    /// Gives a file of the tree a second name.
    pub(super) fn link_within(&self, from: &ReleasePath, to: &ReleasePath) -> Result<(), VolumeError> {
        rustix::fs::linkat(&self.tree, from.as_str(), &self.tree, to.as_str(), AtFlags::empty())
            .context(|| format!("link {}/{STAGING}/{}/{from} to {to}", self.volume, self.id))?;
        self.fsync_set.moved(to.as_str());
        crash_point();
        Ok(())
    }

    /// Opens a file of the tree to read it.
    pub(super) fn open_file(&self, path: &ReleasePath) -> Result<File, VolumeError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.tree, path.as_str(), flags, Mode::empty());
        Ok(file.context(|| format!("open {}/{STAGING}/{}/{path}", self.volume, self.id))?.into())
    }

    /// Begins a file.
    pub(crate) fn create_file(&self, path: &ReleasePath) -> Result<StagedFile, VolumeError> {
        StagedFile::create(&self.tree, path, &self.volume, &self.fsync_set)
    }

    /// The names that are not known to be on the disk.
    #[cfg(test)]
    pub(super) fn fsync_set(&self) -> &FsyncSet {
        &self.fsync_set
    }

    /// Waits until the tree and its manifest are on the disk.
    pub(crate) fn flush(&self) -> Result<(), VolumeError> {
        let synced = self.fsync_set.flush(self.volume.root(), self.tree(), Some(self.manifest.as_fd()));
        synced.context(|| format!("sync release {} to the disk of {}", self.id, self.volume))
    }
}

/// Replaces the manifest of a published release by another of the same content.
pub(crate) fn replace_manifest(
    volume: &Volume,
    id: &ReleaseId,
    manifest: &Manifest,
) -> Result<(), VolumeError> {
    sweep_staging(volume)?;
    let written = write_manifest(volume, id, manifest)?;
    let name = manifest_name(id);
    let context = || format!("replace {volume}/{RELEASES}/{name}");
    // It says how old content may be that is accepted after a power cut, too.
    rustix::fs::fsync(written).context(context)?;
    rustix::fs::renameat(volume.staging(), &name, volume.releases(), &name).context(context)?;
    crash_point();
    rustix::fs::fsync(volume.releases()).context(context)
}

pub(super) fn write_manifest(
    volume: &Volume,
    id: &ReleaseId,
    manifest: &Manifest,
) -> Result<File, VolumeError> {
    let name = manifest_name(id);
    let context = || format!("write {volume}/{STAGING}/{name}");
    let file = create(volume.staging(), &name).context(|| format!("make {volume}/{STAGING}/{name}"))?;
    let mut out = io::BufWriter::new(File::from(file));
    manifest
        .write(&mut out)
        .and_then(|()| out.flush())
        .and_then(|()| Ok(rustix::fs::fchmod(out.get_ref(), Mode::from_raw_mode(0o644))?))
        .context(context)?;
    crash_point();
    out.into_inner().map_err(io::IntoInnerError::into_error).context(context)
}

pub(super) fn make_directory(beneath: impl rustix::fd::AsFd + Copy, name: &str) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(beneath, name, mode)?;
    Ok(rustix::fs::chmodat(beneath, name, mode, AtFlags::empty())?)
}
