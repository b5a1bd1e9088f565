//! A copy of the current release in hard links, made while nobody waits: the next release begins with it.
//!
//! Every release is a tree of its own, and to link ten thousand files takes the kernel longer than all the rest of a small
//! change. With the links made beforehand, a change costs what it changes. The copy lies in the private directory, so no reader
//! ever sees it before it is a release, and a restart sweeps it away.

use std::io;
use std::iter;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::fsync::{self, FsyncSet};
use super::staging::{Staging, make_directory, write_manifest};
use super::sweep::{sweep_seed, sweep_staging};
use super::volume::{Context as _, DIRECTORY, SPARE, STAGING, Volume, VolumeError};
use crate::content::{Manifest, ReleaseId, ReleasePath};
use crate::crash_point::crash_point;

/// A release whose manifest was read already.
#[derive(Debug, Clone)]
pub(crate) struct CachedManifest {
    /// The release.
    pub(crate) id: ReleaseId,
    /// Its manifest.
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

/// The copy, and of which release it is one. To know that one's manifest saves the next sync from reading it.
#[derive(Debug)]
pub(crate) struct SeedTree {
    base: CachedManifest,
}

impl SeedTree {
    /// Copies a release that has at least so many files; a smaller one is linked soon enough when it is needed.
    pub(crate) fn make(volume: &Volume, of: ReleaseId, least: usize) -> Result<Option<Self>, VolumeError> {
        sweep_seed(volume)?;
        let manifest = volume.manifest(&of).filter(|manifest| manifest.files.len() >= least);
        let Some(manifest) = manifest.map(Arc::new) else { return Ok(None) };
        let copied =
            copy(volume, &of, &manifest).context(|| format!("copy {of} to {volume}/{STAGING}/{SPARE}"));
        if copied.is_err() {
            sweep_seed(volume)?;
        }
        copied.map(|()| Some(Self { base: CachedManifest { id: of, manifest } }))
    }

    /// Which release it is a copy of.
    pub(crate) fn base(&self) -> &CachedManifest {
        &self.base
    }

    /// Makes it a release that is being put together: without what is gone, with the directories of what will come.
    pub(crate) fn into_staging(
        self,
        volume: Arc<Volume>,
        id: ReleaseId,
        manifest: &Manifest,
        diff: &Diff,
    ) -> Result<Staging, VolumeError> {
        sweep_staging(&volume)?;
        let context = || format!("make {volume}/{STAGING}/{id} of {SPARE}");
        rustix::fs::renameat(volume.staging(), SPARE, volume.staging(), id.as_str()).context(context)?;
        crash_point();
        let tree =
            rustix::fs::openat(volume.staging(), id.as_str(), DIRECTORY, Mode::empty()).context(context)?;
        // The copy itself was synced when it was made.
        let fsync_set = FsyncSet::new();
        for path in &diff.removed {
            remove_file(&volume, &tree, path, &fsync_set)?;
        }
        for directory in manifest.directories() {
            match make_directory(&tree, directory) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    made.context(|| format!("make {volume}/{STAGING}/{id}/{directory}"))?;
                    fsync_set.created(directory);
                }
            }
            crash_point();
        }
        let manifest = write_manifest(&volume, &id, manifest)?;
        Ok(Staging::from_copy(volume, id, tree, self.base.id, manifest, fsync_set))
    }
}

fn copy(volume: &Volume, release: &ReleaseId, manifest: &Manifest) -> io::Result<()> {
    let original = rustix::fs::openat(volume.releases(), release.as_str(), DIRECTORY, Mode::empty())?;
    make_directory(volume.staging(), SPARE)?;
    let copy = rustix::fs::openat(volume.staging(), SPARE, DIRECTORY, Mode::empty())?;
    for directory in manifest.directories() {
        make_directory(&copy, directory)?;
        crash_point();
    }
    for file in &manifest.files {
        let path = file.path.as_str();
        rustix::fs::linkat(&original, path, &copy, path, AtFlags::empty())?;
        crash_point();
    }
    // Publishing syncs what it changes in the copy and nothing else. These are synced one by one even where they are many: the
    // next sync begins after this, so it should not wait for what a neighbour has not written yet.
    fsync::flush_each(copy.as_fd(), iter::once(".").chain(manifest.directories()))
}

/// Removes a file, and the directories that are empty without it.
fn remove_file(
    volume: &Volume,
    tree: &OwnedFd,
    path: &ReleasePath,
    fsync_set: &FsyncSet,
) -> Result<(), VolumeError> {
    let tree = tree.as_fd();
    let context = |name: &str| format!("take {name} out of a copy in {volume}/{STAGING}");
    rustix::fs::unlinkat(tree, path.as_str(), AtFlags::empty()).context(|| context(path.as_str()))?;
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
            Err(error) => return Err(error).context(|| context(directory)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Limits;
    use crate::store::publish::publish;
    use bytes::Bytes;
    use sha2::{Digest as _, Sha256};

    const LIMITS: Limits = Limits { manifest: 1 << 20, files: 9, file_size: 99, size: 999, min_free: 0 };

    /// Files whose content is their path and a version.
    fn manifest(files: &[(&str, &str)]) -> Manifest {
        let files: Vec<_> = files
            .iter()
            .map(|(path, version)| {
                let digest = crate::content::Digest::of(Sha256::new_with_prefix(format!("{path}{version}")));
                let size = path.len() + version.len();
                format!(r#"{{"path":"{path}","size":{size},"sha256":"{digest}","mode":"0644"}}"#)
            })
            .collect();
        let json = format!(
            r#"{{"format":"sidecar-manifest/1","created":"2026-11-23T18:00:00Z","files":[{}]}}"#,
            files.join(",")
        );
        Manifest::parse(json.as_bytes(), &LIMITS).unwrap()
    }

    fn write(staging: &Staging, file: &crate::content::ManifestFile, version: &str) {
        let mut draft = staging.create_file(&file.path).unwrap();
        draft.append(&[Bytes::from(format!("{}{version}", file.path))]).unwrap();
        draft.finish_verified(file).unwrap();
    }

    /// A release that begins with a copy syncs what it changes in it: nothing else, and nothing less.
    #[test]
    fn what_changed_in_a_copy_is_what_is_synced() {
        let above = tempfile::tempdir().unwrap();
        let volume = Arc::new(Volume::open(&above.path().join("volume")).unwrap());
        let old = manifest(&[("a/1", ""), ("a/2", ""), ("b/c/3", ""), ("d/4", ""), ("5", "")]);
        let staging = Staging::begin(Arc::clone(&volume), old.id(), &old).unwrap();
        old.files.iter().for_each(|file| write(&staging, file, ""));
        let all = [".", "5", "a", "a/1", "a/2", "b", "b/c", "b/c/3", "d", "d/4"];
        assert_eq!(staging.fsync_set().names().unwrap(), all);
        assert_eq!(staging.fsync_set().kept(), ["5", "a/1", "a/2", "b/c/3", "d/4"]);
        publish(&staging).unwrap();
        assert_eq!(staging.fsync_set().kept(), [""; 0], "what readers see, nobody has open for writing");

        let spare = SeedTree::make(&volume, old.id(), 1).unwrap().unwrap();
        let new = manifest(&[("a/1", ""), ("a/2", "changed"), ("d/4", ""), ("e/f/6", ""), ("5", "")]);
        let removed = vec![old.files[1].path.clone(), old.files[2].path.clone()];
        let staging = spare.into_staging(volume, new.id(), &new, &Diff { base: old.id(), removed }).unwrap();
        write(&staging, &new.files[1], "changed");
        write(&staging, &new.files[3], "");
        // `b` and all beneath it is gone, which `.` remembers.
        assert_eq!(staging.fsync_set().names().unwrap(), [".", "a", "a/2", "e", "e/f", "e/f/6"]);
        publish(&staging).unwrap();
    }
}
