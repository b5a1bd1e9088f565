//! A release while it is being put together, in the volume's private directory.
//!
//! Every name is made beneath the staging tree's own handle, and no file is opened that was there before, so nothing that a
//! manifest says can reach out of the tree. A [`Draft`] is hashed as it is written and counts only once its size and digest are the
//! manifest's. Modes are set on open handles: the umask has no say in what readers may read. A [`Spare`] is where a large release
//! begins that differs from the current one in little.

mod draft;
mod spare;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use self::draft::create;
pub use self::draft::{Draft, Mismatch, SealError};
pub use self::spare::Spare;
use crate::durable::Unsynced;
use crate::fault;
use crate::manifest::Manifest;
use crate::path::ReleasePath;
use crate::release::ReleaseId;
use crate::volume::{DIRECTORY, Doing as _, RELEASES, STAGING, Volume, VolumeError, manifest_name};

/// A release that nobody sees yet.
#[derive(Debug)]
pub struct Staging {
    volume: Arc<Volume>,
    id: ReleaseId,
    tree: OwnedFd,
    /// The release whose files are in the tree already, where the new one has them at the same paths.
    copy_of: Option<ReleaseId>,
    /// Open since it was written, as the release's own files are.
    manifest: File,
    unsynced: Arc<Unsynced>,
}

/// A release whose files arrive before anybody knows which release it is.
#[derive(Debug)]
pub struct Incoming {
    volume: Arc<Volume>,
    tree: OwnedFd,
    unsynced: Arc<Unsynced>,
}

/// The tree of [`Incoming`], which no release id can be.
const INCOMING: &str = "incoming";
/// A link on its way to replace a file of its own content.
const LINK: &str = "link";

impl Staging {
    /// Clears the private directory, and makes in it the release's directories and its manifest.
    ///
    /// # Errors
    /// Where the volume refuses.
    pub fn begin(volume: Arc<Volume>, id: ReleaseId, manifest: &Manifest) -> Result<Self, VolumeError> {
        volume.sweep_staging()?;
        fault::point();
        let doing = |name: &str| format!("make {volume}/{STAGING}/{id}/{name}");
        make_directory(volume.staging(), id.as_str()).doing(|| doing(""))?;
        let tree = rustix::fs::openat(volume.staging(), id.as_str(), DIRECTORY, Mode::empty())
            .doing(|| doing(""))?;
        let unsynced = Unsynced::new();
        unsynced.note_root();
        for directory in manifest.directories() {
            make_directory(&tree, directory).doing(|| doing(directory))?;
            unsynced.made(directory);
            fault::point();
        }
        let manifest = write_manifest(&volume, &id, manifest)?;
        Ok(Self { volume, id, tree, copy_of: None, manifest, unsynced: Arc::new(unsynced) })
    }

    /// The release.
    pub fn id(&self) -> &ReleaseId {
        &self.id
    }

    /// The volume that it is for.
    pub fn volume(&self) -> &Arc<Volume> {
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
    ///
    /// # Errors
    /// Where the volume refuses.
    pub(crate) fn remove(&self, path: &ReleasePath) -> Result<(), VolumeError> {
        match rustix::fs::unlinkat(&self.tree, path.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => {
                return Err(error).doing(|| format!("remove {}/{STAGING}/{}/{path}", self.volume, self.id));
            }
        }
        self.unsynced.renamed(path.as_str());
        fault::point();
        Ok(())
    }

    /// Takes over a file of an earlier release: a hard link, so it costs neither transfer nor space.
    ///
    /// # Errors
    /// Where the file system will not have it, for instance because the file has as many links as a file can have.
    pub fn reuse(&self, release: BorrowedFd<'_>, from: &ReleasePath, to: &ReleasePath) -> io::Result<()> {
        rustix::fs::linkat(release, from.as_str(), &self.tree, to.as_str(), AtFlags::empty())?;
        self.unsynced.renamed(to.as_str());
        fault::point();
        Ok(())
    }

    /// The same for a file that has been written already: gives its space back.
    ///
    /// # Errors
    /// Where the file system will not have it; the file then stays as it was written.
    pub fn replace(&self, release: BorrowedFd<'_>, from: &ReleasePath, to: &ReleasePath) -> io::Result<()> {
        let private = self.volume.staging();
        rustix::fs::linkat(release, from.as_str(), private, LINK, AtFlags::empty())?;
        fault::point();
        rustix::fs::renameat(private, LINK, &self.tree, to.as_str())?;
        self.unsynced.renamed(to.as_str());
        fault::point();
        Ok(())
    }

    /// Begins a file.
    ///
    /// # Errors
    /// Where the volume refuses.
    pub fn draft(&self, path: &ReleasePath) -> Result<Draft, VolumeError> {
        Draft::create(&self.tree, path, &self.volume, &self.unsynced)
    }

    /// Waits until the tree and its manifest are on the disk.
    ///
    /// # Errors
    /// Where the disk did not take all of it.
    pub(crate) fn to_disk(&self) -> Result<(), VolumeError> {
        let synced = self.unsynced.to_disk(&self.volume, self.tree(), Some(self.manifest.as_fd()));
        synced.doing(|| format!("sync release {} to the disk of {}", self.id, self.volume))
    }
}

impl Incoming {
    /// Clears the private directory, and makes an empty tree in it.
    ///
    /// # Errors
    /// Where the volume refuses.
    pub fn begin(volume: Arc<Volume>) -> Result<Self, VolumeError> {
        volume.sweep_staging()?;
        let doing = || format!("make {volume}/{STAGING}/{INCOMING}");
        make_directory(volume.staging(), INCOMING).doing(doing)?;
        fault::point();
        let tree = rustix::fs::openat(volume.staging(), INCOMING, DIRECTORY, Mode::empty()).doing(doing)?;
        let unsynced = Unsynced::new();
        unsynced.note_root();
        Ok(Self { volume, tree, unsynced: Arc::new(unsynced) })
    }

    /// Makes a directory; those above it are there.
    ///
    /// # Errors
    /// Where the volume refuses.
    pub fn make_directory(&self, path: &str) -> Result<(), VolumeError> {
        make_directory(&self.tree, path).doing(|| format!("make {path} on {}", self.volume))?;
        self.unsynced.made(path);
        fault::point();
        Ok(())
    }

    /// Begins a file.
    ///
    /// # Errors
    /// Where the volume refuses.
    pub fn draft(&self, path: &ReleasePath) -> Result<Draft, VolumeError> {
        Draft::create(&self.tree, path, &self.volume, &self.unsynced)
    }

    /// Now that all files are there, they are a release.
    ///
    /// # Errors
    /// Where the volume refuses.
    pub fn named(self, id: ReleaseId, manifest: &Manifest) -> Result<Staging, VolumeError> {
        let Self { volume, tree, unsynced } = self;
        let manifest = write_manifest(&volume, &id, manifest)?;
        rustix::fs::renameat(volume.staging(), INCOMING, volume.staging(), id.as_str())
            .doing(|| format!("name {volume}/{STAGING}/{INCOMING} {id}"))?;
        fault::point();
        Ok(Staging { volume, id, tree, copy_of: None, manifest, unsynced })
    }
}

/// Replaces the manifest of a published release by another of the same content.
///
/// # Errors
/// Where the volume refuses.
pub fn replace_manifest(volume: &Volume, id: &ReleaseId, manifest: &Manifest) -> Result<(), VolumeError> {
    volume.sweep_staging()?;
    let written = write_manifest(volume, id, manifest)?;
    let name = manifest_name(id);
    let doing = || format!("replace {volume}/{RELEASES}/{name}");
    // It says how old content may be that is accepted after a power cut, too.
    rustix::fs::fsync(written).doing(doing)?;
    rustix::fs::renameat(volume.staging(), &name, volume.releases(), &name).doing(doing)?;
    fault::point();
    rustix::fs::fsync(volume.releases()).doing(doing)
}

fn write_manifest(volume: &Volume, id: &ReleaseId, manifest: &Manifest) -> Result<File, VolumeError> {
    let name = manifest_name(id);
    let doing = || format!("write {volume}/{STAGING}/{name}");
    let file = create(volume.staging(), &name).doing(|| format!("make {volume}/{STAGING}/{name}"))?;
    let mut out = io::BufWriter::new(File::from(file));
    manifest
        .write(&mut out)
        .and_then(|()| out.flush())
        .and_then(|()| Ok(rustix::fs::fchmod(out.get_ref(), Mode::from_raw_mode(0o644))?))
        .doing(doing)?;
    fault::point();
    out.into_inner().map_err(io::IntoInnerError::into_error).doing(doing)
}

fn make_directory(beneath: impl rustix::fd::AsFd + Copy, name: &str) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(beneath, name, mode)?;
    Ok(rustix::fs::chmodat(beneath, name, mode, AtFlags::empty())?)
}
