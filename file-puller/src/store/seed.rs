//! A copy of the current release in hard links, made in the background: the next release begins with it.
//!
//! Every release is a tree of its own, and to link ten thousand files takes the kernel longer than all the rest of a small
//! change. With the links made beforehand, a change costs what it changes. The copy lies in the private directory, so no reader
//! ever sees it before it is a release, and a restart sweeps it away.

use std::io;
use std::iter;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use lifecycle::Ignore as _;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::create::{ensure_directory, make_directory, open_directory};
use super::fsync::{self, FsyncSet};
use super::private::{Private, SEED};
use super::staging::Staging;
use super::sys;
use super::volume::{Context as _, Volume, VolumeError};
use crate::content::{Manifest, ReleaseId, ReleasePath};
use crate::crash_point::crash_point;

/// A release with more directories than this has no seed tree: to sync them one by one takes longer than the links save.
const MAX_DIRECTORIES: usize = 2_000;

/// A release whose manifest was read already.
#[derive(Debug, Clone)]
pub(crate) struct CachedManifest {
    pub(crate) id: ReleaseId,
    pub(crate) manifest: Arc<Manifest>,
}

/// How a new release differs from the current one.
#[derive(Debug)]
pub(crate) struct Diff {
    /// The current release.
    pub(crate) base: ReleaseId,
    /// Its files that the new release does not have at the same path with the same content and mode.
    pub(crate) removed: Vec<ReleasePath>,
}

/// The copy, and of which release it is one. To know that release's manifest saves the next sync from reading it.
#[derive(Debug)]
pub(crate) struct SeedTree {
    base: CachedManifest,
    private: Arc<Private>,
}

impl SeedTree {
    /// Copies a release that has at least so many files, and not too many directories; a smaller one is linked soon enough when it
    /// is needed.
    pub(crate) fn make(volume: &Volume, base: ReleaseId, least: usize) -> Result<Option<Self>, VolumeError> {
        let manifest = volume.manifest(&base).filter(|manifest| {
            manifest.files.len() >= least && manifest.directories().len() <= MAX_DIRECTORIES
        });
        let Some(manifest) = manifest.map(Arc::new) else { return Ok(None) };
        let private = volume.private()?;
        let seed = private.path().join(SEED);
        let context = || format!("copy {base} to {}", seed.display());
        private.take_away(SEED).context(context)?;
        if let Err(error) = copy(volume, &private, &base, &manifest) {
            // Nothing is left of it, and if that fails too, the next sync clears the directory.
            private.take_away(SEED).ignore();
            return Err(error).context(context);
        }
        Ok(Some(Self { base: CachedManifest { id: base, manifest }, private }))
    }

    /// Which release it is a copy of.
    pub(crate) fn base(&self) -> &CachedManifest {
        &self.base
    }

    /// Removes it, because what it is a copy of is damaged.
    pub(crate) fn discard(self) {
        // The next seed tree is made in its place, after removing what is there.
        self.private.take_away(SEED).ignore();
    }

    /// Makes it a release that is being put together: without what is gone, with the directories of what will come.
    pub(crate) fn into_staging(
        self,
        volume: &Arc<Volume>,
        id: &ReleaseId,
        manifest: &Manifest,
        diff: &Diff,
    ) -> Result<Staging, VolumeError> {
        let private = self.private;
        private.clear().context(|| format!("clear {}", private.path().display()))?;
        let directory = private.directory();
        let context = || format!("make {}/{id} of {SEED}", private.path().display());
        rustix::fs::renameat(directory, SEED, directory, id.as_str()).context(context)?;
        crash_point();
        let tree = open_directory(directory, id.as_str()).context(context)?;
        // The copy itself was synced when it was made.
        let fsync_set = FsyncSet::new(volume.backlog());
        for path in &diff.removed {
            remove_file(tree.as_fd(), path, &fsync_set)
                .context(|| format!("take {path} out of {}/{id}", private.path().display()))?;
        }
        for directory in manifest.directories() {
            let context = || format!("make {}/{id}/{directory}", private.path().display());
            if ensure_directory(&tree, directory, volume.directory_mode()).context(context)? {
                fsync_set.created_directory(directory);
            }
            crash_point();
        }
        Staging::of_tree(volume, private, id, manifest, tree, Some(self.base.id), fsync_set)
    }
}

fn copy(volume: &Volume, private: &Private, release: &ReleaseId, manifest: &Manifest) -> io::Result<()> {
    let original = open_directory(volume.releases(), release.as_str())?;
    make_directory(private.directory(), SEED, volume.directory_mode())?;
    let copy = open_directory(private.directory(), SEED)?;
    for directory in manifest.directories() {
        make_directory(&copy, directory, volume.directory_mode())?;
        volume.backlog().made_directory();
        crash_point();
    }
    for file in &manifest.files {
        let path = file.path.as_str();
        // Without hard links a copy would cost as much space as the release, so there is none.
        sys::link(original.as_fd(), path, copy.as_fd(), path)?;
        volume.backlog().moved(path);
        crash_point();
    }
    // Publishing syncs what it changes in the copy and nothing else. These are synced one by one even where they are many: the
    // next sync begins after this, so it should not wait for what a neighbour has not written yet, unless memory is short.
    fsync::flush_each(copy.as_fd(), iter::once(".").chain(manifest.directories()))
}

/// Removes a file, and the directories that are empty without it.
fn remove_file(tree: BorrowedFd<'_>, path: &ReleasePath, fsync_set: &FsyncSet) -> Result<(), Errno> {
    rustix::fs::unlinkat(tree, path.as_str(), AtFlags::empty())?;
    fsync_set.moved(path.as_str());
    crash_point();
    let directories: Vec<_> = path.ancestors().collect();
    for directory in directories.into_iter().rev() {
        match rustix::fs::unlinkat(tree, directory, AtFlags::REMOVEDIR) {
            Ok(()) => {
                fsync_set.moved(directory);
                crash_point();
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::create::DirectoryOptions;
    use crate::store::fixtures::{manifest, write};
    use crate::store::publish::publish;

    /// A release that begins with a copy syncs what it changes in it: nothing else, and nothing less.
    #[test]
    fn what_changed_in_a_copy_is_what_is_synced() {
        let above = tempfile::tempdir().unwrap();
        let volume =
            Arc::new(Volume::open(&above.path().join("volume"), DirectoryOptions::default()).unwrap());
        let old = manifest(&[("a/1", ""), ("a/2", ""), ("b/c/3", ""), ("d/4", ""), ("5", "")]);
        let staging = Arc::new(Staging::begin(&volume, &old.id(), &old).unwrap());
        write(&staging, &old.files.iter().collect::<Vec<_>>(), &[""; 5]);
        let all = [".", "5", "a", "a/1", "a/2", "b", "b/c", "b/c/3", "d", "d/4"];
        assert_eq!(staging.fsync_set().names().unwrap(), all);
        assert_eq!(staging.fsync_set().kept(), ["5", "a/1", "a/2", "b/c/3", "d/4"]);
        let _published = publish(&staging, &old, None).unwrap();
        assert_eq!(staging.fsync_set().kept(), [""; 0], "what readers see, nobody has open for writing");

        let spare = SeedTree::make(&volume, old.id(), 1).unwrap().unwrap();
        let new = manifest(&[("a/1", ""), ("a/2", "changed"), ("d/4", ""), ("e/f/6", ""), ("5", "")]);
        let removed = vec![old.files[1].path.clone(), old.files[2].path.clone()];
        let staging =
            spare.into_staging(&volume, &new.id(), &new, &Diff { base: old.id(), removed }).unwrap();
        let staging = Arc::new(staging);
        write(&staging, &[&new.files[1], &new.files[3]], &["changed", ""]);
        // `b` and all beneath it is gone, which `.` remembers.
        assert_eq!(staging.fsync_set().names().unwrap(), [".", "a", "a/2", "e", "e/f", "e/f/6"]);
        let _published = publish(&staging, &new, None).unwrap();
    }
}
