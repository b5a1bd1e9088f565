//! A release while it is being put together, in the volume's private directory.
//!
//! Every name is made beneath the staging tree's own handle, and no file is opened that was there before, so nothing that a
//! manifest says can reach out of the tree. A file is hashed as it is written and counts only once its size and digest are the
//! manifest's. Modes are set on open handles: the umask has no say in what readers may read.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{AtFlags, Mode, OFlags};
use sha2::{Digest as _, Sha256};

use crate::fault;
use crate::manifest::{Manifest, ManifestFile};
use crate::path::ReleasePath;
use crate::release::{Digest, FileMode, ReleaseId};
use crate::volume::{DIRECTORY, Doing as _, RELEASES, STAGING, Volume, VolumeError, manifest_name};

/// A release that nobody sees yet.
#[derive(Debug)]
pub struct Staging {
    volume: Arc<Volume>,
    id: ReleaseId,
    tree: OwnedFd,
}

/// A release whose files arrive before anybody knows which release it is.
#[derive(Debug)]
pub struct Incoming {
    volume: Arc<Volume>,
    tree: OwnedFd,
}

/// The tree of [`Incoming`], which no release id can be.
const INCOMING: &str = "incoming";
/// A link on its way to replace a file of its own content.
const LINK: &str = "link";

/// One file that is being written.
#[derive(Debug)]
pub struct Draft {
    path: ReleasePath,
    volume: Arc<Volume>,
    file: File,
    hasher: Sha256,
    written: u64,
}

/// What was served is not what the manifest promised: most often content that changed between the two requests.
#[derive(Debug, thiserror::Error)]
#[error("{path} is not what the manifest promises: {difference}")]
pub struct Mismatch {
    /// The file.
    pub path: ReleasePath,
    /// Promised and found.
    pub difference: String,
}

/// Why a draft could not be made a file of the release.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// It is not the file that was promised.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The volume refused.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

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
        for directory in manifest.directories() {
            make_directory(&tree, directory).doing(|| doing(directory))?;
            fault::point();
        }
        write_manifest(&volume, &id, manifest)?;
        Ok(Self { volume, id, tree })
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
        std::os::fd::AsFd::as_fd(&self.tree)
    }

    /// Takes over a file of an earlier release: a hard link, so it costs neither transfer nor space.
    ///
    /// # Errors
    /// Where the file system will not have it, for instance because the file has as many links as a file can have.
    pub fn reuse(&self, release: BorrowedFd<'_>, from: &ReleasePath, to: &ReleasePath) -> io::Result<()> {
        rustix::fs::linkat(release, from.as_str(), &self.tree, to.as_str(), AtFlags::empty())?;
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
        fault::point();
        Ok(())
    }

    /// Begins a file.
    ///
    /// # Errors
    /// Where the volume refuses.
    pub fn draft(&self, path: &ReleasePath) -> Result<Draft, VolumeError> {
        Draft::create(&self.tree, path, &self.volume)
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
        Ok(Self { volume, tree })
    }

    /// Makes a directory; those above it are there.
    ///
    /// # Errors
    /// Where the volume refuses.
    pub fn make_directory(&self, path: &str) -> Result<(), VolumeError> {
        make_directory(&self.tree, path).doing(|| format!("make {path} on {}", self.volume))?;
        fault::point();
        Ok(())
    }

    /// Begins a file.
    ///
    /// # Errors
    /// Where the volume refuses.
    pub fn draft(&self, path: &ReleasePath) -> Result<Draft, VolumeError> {
        Draft::create(&self.tree, path, &self.volume)
    }

    /// Now that all files are there, they are a release.
    ///
    /// # Errors
    /// Where the volume refuses.
    pub fn named(self, id: ReleaseId, manifest: &Manifest) -> Result<Staging, VolumeError> {
        let Self { volume, tree } = self;
        write_manifest(&volume, &id, manifest)?;
        rustix::fs::renameat(volume.staging(), INCOMING, volume.staging(), id.as_str())
            .doing(|| format!("name {volume}/{STAGING}/{INCOMING} {id}"))?;
        fault::point();
        Ok(Staging { volume, id, tree })
    }
}

impl Draft {
    fn create(tree: &OwnedFd, path: &ReleasePath, volume: &Arc<Volume>) -> Result<Self, VolumeError> {
        let file = create(tree, path.as_str()).doing(|| format!("make {path} on {volume}"))?;
        fault::point();
        let (path, volume) = (path.clone(), Arc::clone(volume));
        Ok(Self { path, volume, file: file.into(), hasher: Sha256::new(), written: 0 })
    }

    /// Adds bytes, and hashes them.
    ///
    /// # Errors
    /// Where the volume refuses, most often because it is full.
    pub fn append(&mut self, chunks: &[Bytes]) -> Result<(), VolumeError> {
        for chunk in chunks {
            self.hasher.update(chunk);
            self.file.write_all(chunk).doing(|| format!("write {} on {}", self.path, self.volume))?;
            self.written += chunk.len() as u64;
            fault::point();
        }
        Ok(())
    }

    /// Begins again, as if nothing had been written.
    ///
    /// # Errors
    /// Where the volume refuses.
    pub fn emptied(mut self) -> Result<Self, VolumeError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.doing(|| format!("empty {} on {}", self.path, self.volume))?;
        Ok(Self { hasher: Sha256::new(), written: 0, ..self })
    }

    /// Makes it a file of the release, whatever it is, and says what it is.
    ///
    /// # Errors
    /// Where the volume refuses.
    pub fn keep(self, mode: FileMode) -> Result<(u64, Digest), VolumeError> {
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode.bits()))
            .doing(|| format!("set the mode of {} on {}", self.path, self.volume))?;
        Ok((self.written, Digest::of(self.hasher)))
    }

    /// Makes it a file of the release, if it is the one that the manifest promises.
    ///
    /// # Errors
    /// Where it is not, or the volume refuses.
    pub fn seal(self, promised: &ManifestFile) -> Result<(), SealError> {
        let mismatch = |difference| Mismatch { path: promised.path.clone(), difference };
        if self.written != promised.size {
            let difference = format!("{} bytes instead of {}", self.written, promised.size);
            return Err(mismatch(difference).into());
        }
        let (_, digest) = self.keep(promised.mode)?;
        if digest != promised.digest {
            return Err(mismatch(format!("SHA-256 {digest} instead of {}", promised.digest)).into());
        }
        Ok(())
    }
}

/// Replaces the manifest of a published release by another of the same content.
///
/// # Errors
/// Where the volume refuses.
pub fn replace_manifest(volume: &Volume, id: &ReleaseId, manifest: &Manifest) -> Result<(), VolumeError> {
    volume.sweep_staging()?;
    write_manifest(volume, id, manifest)?;
    let name = manifest_name(id);
    let doing = || format!("replace {volume}/{RELEASES}/{name}");
    // It says how old content may be that is accepted after a power cut, too.
    rustix::fs::syncfs(volume.root()).doing(doing)?;
    rustix::fs::renameat(volume.staging(), &name, volume.releases(), &name).doing(doing)?;
    fault::point();
    rustix::fs::fsync(volume.releases()).doing(doing)
}

fn write_manifest(volume: &Volume, id: &ReleaseId, manifest: &Manifest) -> Result<(), VolumeError> {
    let name = manifest_name(id);
    let file = create(volume.staging(), &name).doing(|| format!("make {volume}/{STAGING}/{name}"))?;
    let mut out = io::BufWriter::new(File::from(file));
    manifest
        .write(&mut out)
        .and_then(|()| out.flush())
        .and_then(|()| Ok(rustix::fs::fchmod(out.get_ref(), Mode::from_raw_mode(0o644))?))
        .doing(|| format!("write {volume}/{STAGING}/{name}"))?;
    fault::point();
    Ok(())
}

fn make_directory(beneath: impl rustix::fd::AsFd + Copy, name: &str) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(beneath, name, mode)?;
    Ok(rustix::fs::chmodat(beneath, name, mode, AtFlags::empty())?)
}

fn create(beneath: impl rustix::fd::AsFd, name: &str) -> io::Result<OwnedFd> {
    let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(beneath, name, new, Mode::from_raw_mode(0o600))?)
}
