//! A release while it is being put together, in the private directory.
//!
//! Every name is made beneath the staging tree's own handle, and no file is opened that was there before, so nothing that a
//! manifest says can reach out of the tree. Files come from earlier releases, as links, from the source, and from the objects that had
//! arrived before.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{self, Write as _};
use std::iter;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use lifecycle::Ignore as _;
use rustix::fs::AtFlags;

use super::create::{PlainFiles, create_file, make_directory, open_directory, open_file, set_mode};
use super::directory::unlink;
use super::fsync::FsyncSet;
use super::objects::Objects;
use super::private::{Private, same_file};
use super::signed_manifest::SignedManifest;
use super::tree::{link_or_copy, looks_intact};
use super::volume::{Context as _, Volume, VolumeError, manifest_name};
use crate::content::{Digest, FileMode, Manifest, ManifestFile, ReleaseId, ReleasePath};
use crate::crash_point::crash_point;

/// A release that no reader sees yet.
#[derive(Debug)]
pub(crate) struct Staging {
    volume: Arc<Volume>,
    private: Arc<Private>,
    id: ReleaseId,
    tree: OwnedFd,
    plain_files: PlainFiles,
    /// The release whose files are in the tree already, where the new one has them at the same paths.
    copy_of: Option<ReleaseId>,
    /// Open since it was written, as the release's own files are.
    manifest: File,
    /// Where the publisher signed the manifest.
    signature: Option<File>,
    fsync_set: FsyncSet,
}

impl Staging {
    /// Makes the release's directories and its manifest in the private directory, which was cleared before.
    pub(crate) fn begin(
        volume: &Arc<Volume>,
        id: &ReleaseId,
        manifest: &Manifest,
    ) -> Result<Self, VolumeError> {
        let private = volume.private()?;
        let context = |name: &str| format!("make {}/{id}/{name}", private.path().display());
        let mode = volume.directory_mode();
        make_directory(private.directory(), id.as_str(), mode).context(|| context(""))?;
        let tree = open_directory(private.directory(), id.as_str()).context(|| context(""))?;
        let fsync_set = FsyncSet::new(volume.backlog());
        fsync_set.created_directory(".");
        for directory in manifest.directories() {
            make_directory(&tree, directory, mode).context(|| context(directory))?;
            fsync_set.created_directory(directory);
            crash_point();
        }
        Self::of_tree(volume, private, id, manifest, tree, None, fsync_set)
    }

    /// A tree in the private directory, which may have begun as a copy of a release, and its manifest beside it.
    pub(super) fn of_tree(
        volume: &Arc<Volume>,
        private: Arc<Private>,
        id: &ReleaseId,
        manifest: &Manifest,
        tree: OwnedFd,
        copy_of: Option<ReleaseId>,
        fsync_set: FsyncSet,
    ) -> Result<Self, VolumeError> {
        let manifest = write_manifest(&private, id, manifest, volume.manifest_mode())?;
        let (volume, id, plain_files) = (Arc::clone(volume), id.clone(), PlainFiles::default());
        Ok(Self { volume, private, id, tree, plain_files, copy_of, manifest, signature: None, fsync_set })
    }

    /// Puts the signed manifest in the place of the one that was written here.
    pub(crate) fn sign(&mut self, signed: SignedManifest) -> Result<(), VolumeError> {
        let (manifest, signature) = signed.into_release(&self.private, &self.id)?;
        (self.manifest, self.signature) = (manifest, Some(signature));
        Ok(())
    }

    /// Whether it has a signature.
    pub(super) fn is_signed(&self) -> bool {
        self.signature.is_some()
    }

    pub(crate) fn id(&self) -> &ReleaseId {
        &self.id
    }

    pub(crate) fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// The private directory that it lies in.
    pub(super) fn private(&self) -> &Private {
        &self.private
    }

    /// Where its tree and its manifest lie.
    pub(crate) fn directory(&self) -> &Path {
        self.private.path()
    }

    pub(crate) fn tree(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }

    /// Whether all of it is still in its place, as far as sizes and modes tell: another process may have swept it, or an operator.
    pub(crate) fn is_whole(&self, manifest: &Manifest) -> bool {
        let private = self.private.directory();
        self.private.is_in_place(self.volume.staging())
            && same_file(private, &manifest_name(&self.id), self.manifest.as_fd())
            && same_file(private, self.id.as_str(), self.tree())
            && manifest.files.iter().all(|file| looks_intact(&self.volume, self.tree(), &file.path, file))
    }

    /// Takes over a file of an earlier release, whose tree is open as `release`: as a link, so it costs neither transfer nor space.
    /// Returns whether that is done. What is damaged, or what the file system refuses, the content manager has.
    pub(crate) fn reuse(
        &self,
        (id, release): (&ReleaseId, BorrowedFd<'_>),
        from: &ReleasePath,
        new: &ManifestFile,
    ) -> Result<bool, VolumeError> {
        let is_there = *from == new.path && self.copy_of.as_ref() == Some(id);
        let tree = if is_there { self.tree() } else { release };
        if !looks_intact(&self.volume, tree, from, new) {
            tracing::warn!(path = %from, release = %id, "damaged, so it is fetched");
            if is_there {
                self.remove(from)?;
            }
            return Ok(false);
        }
        if is_there {
            return Ok(true);
        }
        match link_or_copy(release, from.as_str(), self.tree(), new.path.as_str(), new.content()) {
            Ok(()) => {
                self.fsync_set.moved(new.path.as_str());
                crash_point();
                Ok(true)
            }
            Err(error) => {
                tracing::debug!(path = %new.path, release = %id, %error, "cannot be shared, so it is fetched");
                Ok(false)
            }
        }
    }

    /// Takes a file out again, so that another can take its place.
    fn remove(&self, path: &ReleasePath) -> Result<(), VolumeError> {
        unlink(&self.tree, path.as_str()).context(|| self.name(path.as_str()))?;
        self.fsync_set.moved(path.as_str());
        crash_point();
        Ok(())
    }

    /// Begins a file of the release, which nothing else has the name of.
    pub(super) fn create(&self, path: &ReleasePath) -> Result<File, VolumeError> {
        let file = match self.plain_files.create(self.tree(), path.as_str()) {
            // Something that was put into a copy from outside.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove(path)?;
                self.plain_files.create(self.tree(), path.as_str())
            }
            made => made,
        };
        let file = file.context(|| format!("make {path} on {}", self.volume))?;
        crash_point();
        Ok(file.into())
    }

    /// Takes in a file that was created, now that it is complete.
    pub(super) fn arrived(&self, path: &ReleasePath, mode: FileMode, file: File) -> Result<(), VolumeError> {
        if !self.plain_files.have(mode) {
            set_mode(&file, mode).context(|| format!("take in {path} on {}", self.volume))?;
        }
        self.fsync_set.created(path.as_str(), Some(file));
        crash_point();
        Ok(())
    }

    /// Takes out a file that was created and will not be complete.
    pub(super) fn give_up(&self, path: &ReleasePath) {
        // Another process may have swept it.
        rustix::fs::unlinkat(&self.tree, path.as_str(), AtFlags::empty()).ignore();
    }

    /// Gives these files the content that has arrived elsewhere: with another file, or for an earlier sync. `arrived` are the files
    /// that came by themselves.
    pub(crate) fn install<'m>(
        &self,
        objects: &Objects,
        files: impl ExactSizeIterator<Item = &'m ManifestFile>,
        arrived: impl ExactSizeIterator<Item = &'m ManifestFile>,
    ) -> Result<(), VolumeError> {
        if files.len() == arrived.len() {
            return Ok(());
        }
        let mut in_tree: HashMap<_, _> = arrived.map(|file| (file.content(), &file.path)).collect();
        for file in files {
            match in_tree.entry(file.content()) {
                Entry::Occupied(same) if **same.get() == file.path => {}
                Entry::Occupied(same) => self.link_within(same.get(), &file.path, file.content())?,
                Entry::Vacant(place) => {
                    let path = file.path.as_str();
                    objects.take(file.content(), self.tree(), path).context(|| self.name(path))?;
                    self.fsync_set.created(path, None);
                    crash_point();
                    place.insert(&file.path);
                }
            }
        }
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
        rustix::fs::renameat(directory, name, &self.tree, to.as_str()).context(|| self.name(to.as_str()))?;
        self.fsync_set.created(to.as_str(), written);
        crash_point();
        Ok(())
    }

    /// Gives a file of the tree a second name.
    pub(super) fn link_within(
        &self,
        from: &ReleasePath,
        to: &ReleasePath,
        content: (Digest, FileMode),
    ) -> Result<(), VolumeError> {
        let tree = self.tree();
        link_or_copy(tree, from.as_str(), tree, to.as_str(), content).context(|| self.name(to.as_str()))?;
        self.fsync_set.moved(to.as_str());
        crash_point();
        Ok(())
    }

    /// Opens a file of the tree to read it.
    pub(super) fn open_file(&self, path: &ReleasePath) -> Result<File, VolumeError> {
        open_file(&self.tree, path.as_str())
            .context(|| format!("open {}/{}/{path}", self.private.path().display(), self.id))
    }

    fn name(&self, path: &str) -> String {
        format!("put {path} in its place in {}/{}", self.private.path().display(), self.id)
    }

    /// The names that are not known to be on the disk.
    #[cfg(test)]
    pub(super) fn fsync_set(&self) -> &FsyncSet {
        &self.fsync_set
    }

    /// Waits until the tree and its manifest are on the disk.
    pub(super) fn flush(&self) -> Result<(), VolumeError> {
        let beside: Vec<_> = iter::once(&self.manifest).chain(&self.signature).map(File::as_fd).collect();
        let synced = self.fsync_set.flush(self.volume.root(), self.tree(), &beside);
        synced.context(|| format!("sync release {} to the disk of {}", self.id, self.volume))
    }
}

/// Writes the manifest of a release into the private directory.
fn write_manifest(
    private: &Private,
    id: &ReleaseId,
    manifest: &Manifest,
    mode: FileMode,
) -> Result<File, VolumeError> {
    let name = manifest_name(id);
    let context = || format!("write {}/{name}", private.path().display());
    let file = create_file(private.directory(), &name).context(context)?;
    let mut out = io::BufWriter::new(File::from(file));
    manifest.write(&mut out).and_then(|()| out.flush()).context(context)?;
    set_mode(out.get_ref(), mode).context(context)?;
    crash_point();
    out.into_inner().map_err(io::IntoInnerError::into_error).context(context)
}
