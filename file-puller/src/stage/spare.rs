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

use super::{Staging, make_directory, write_manifest};
use crate::durable::{self, Unsynced};
use crate::fault;
use crate::manifest::Manifest;
use crate::path::ReleasePath;
use crate::plan::{Departure, Known};
use crate::release::ReleaseId;
use crate::volume::{DIRECTORY, Doing as _, SPARE, STAGING, Volume, VolumeError};

/// The copy, and of which release it is one. To know that one's manifest saves the next sync from reading it.
#[derive(Debug)]
pub struct Spare {
    of: Known,
}

impl Spare {
    /// Copies a release that has at least so many files; a smaller one is linked soon enough when it is needed.
    ///
    /// # Errors
    /// Where the volume refuses. Nothing is left of it then.
    pub fn make(volume: &Volume, of: ReleaseId, least: usize) -> Result<Option<Self>, VolumeError> {
        volume.sweep_spare()?;
        let manifest = volume.manifest(&of).filter(|manifest| manifest.files.len() >= least);
        let Some(manifest) = manifest.map(Arc::new) else { return Ok(None) };
        let copied =
            copy(volume, &of, &manifest).doing(|| format!("copy {of} to {volume}/{STAGING}/{SPARE}"));
        if copied.is_err() {
            volume.sweep_spare()?;
        }
        copied.map(|()| Some(Self { of: Known { id: of, manifest } }))
    }

    /// Which release it is a copy of.
    pub fn of(&self) -> &Known {
        &self.of
    }

    /// Makes it a release that is being put together: without what is gone, with the directories of what will come.
    ///
    /// # Errors
    /// Where the volume refuses.
    pub fn begin(
        self,
        volume: Arc<Volume>,
        id: ReleaseId,
        manifest: &Manifest,
        departure: &Departure,
    ) -> Result<Staging, VolumeError> {
        volume.sweep_staging()?;
        let doing = || format!("make {volume}/{STAGING}/{id} of {SPARE}");
        rustix::fs::renameat(volume.staging(), SPARE, volume.staging(), id.as_str()).doing(doing)?;
        fault::point();
        let tree =
            rustix::fs::openat(volume.staging(), id.as_str(), DIRECTORY, Mode::empty()).doing(doing)?;
        // The copy itself was synced when it was made.
        let unsynced = Unsynced::new();
        for path in &departure.gone {
            take_out(&volume, &tree, path, &unsynced)?;
        }
        for directory in manifest.directories() {
            match make_directory(&tree, directory) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    made.doing(|| format!("make {volume}/{STAGING}/{id}/{directory}"))?;
                    unsynced.made(directory);
                }
            }
            fault::point();
        }
        let manifest = write_manifest(&volume, &id, manifest)?;
        Ok(Staging { volume, id, tree, copy_of: Some(self.of.id), manifest, unsynced: Arc::new(unsynced) })
    }
}

fn copy(volume: &Volume, release: &ReleaseId, manifest: &Manifest) -> io::Result<()> {
    let original = rustix::fs::openat(volume.releases(), release.as_str(), DIRECTORY, Mode::empty())?;
    make_directory(volume.staging(), SPARE)?;
    let copy = rustix::fs::openat(volume.staging(), SPARE, DIRECTORY, Mode::empty())?;
    for directory in manifest.directories() {
        make_directory(&copy, directory)?;
        fault::point();
    }
    for file in &manifest.files {
        let path = file.path.as_str();
        rustix::fs::linkat(&original, path, &copy, path, AtFlags::empty())?;
        fault::point();
    }
    // Publishing syncs what it changes in the copy and nothing else. These are synced one by one even where they are many: the
    // next sync begins after this, so it should not wait for what a neighbour has not written yet.
    durable::each_to_disk(copy.as_fd(), iter::once(".").chain(manifest.directories()))
}

/// Removes a file, and the directories that are empty without it.
fn take_out(
    volume: &Volume,
    tree: &OwnedFd,
    path: &ReleasePath,
    unsynced: &Unsynced,
) -> Result<(), VolumeError> {
    let tree = tree.as_fd();
    let doing = |name: &str| format!("take {name} out of a copy in {volume}/{STAGING}");
    rustix::fs::unlinkat(tree, path.as_str(), AtFlags::empty()).doing(|| doing(path.as_str()))?;
    unsynced.renamed(path.as_str());
    fault::point();
    let directories: Vec<_> = path.ancestors().collect();
    for directory in directories.into_iter().rev() {
        match rustix::fs::unlinkat(tree, directory, AtFlags::REMOVEDIR) {
            Ok(()) => {
                unsynced.renamed(directory);
                fault::point();
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => break,
            Err(error) => return Err(error).doing(|| doing(directory)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::plan::{Known, Plan, plan};
    use crate::publish::publish;
    use bytes::Bytes;
    use sha2::{Digest as _, Sha256};

    const LIMITS: Limits = Limits { manifest: 1 << 20, files: 9, file_size: 99, size: 999, min_free: 0 };

    /// Files whose content is their path and a version.
    fn manifest(files: &[(&str, &str)]) -> Manifest {
        let files: Vec<_> = files
            .iter()
            .map(|(path, version)| {
                let digest = crate::release::Digest::of(Sha256::new_with_prefix(format!("{path}{version}")));
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

    fn write(staging: &Staging, file: &crate::manifest::ManifestFile, version: &str) {
        let mut draft = staging.draft(&file.path).unwrap();
        draft.append(&[Bytes::from(format!("{}{version}", file.path))]).unwrap();
        draft.seal(file).unwrap();
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
        assert_eq!(staging.unsynced.names().unwrap(), all);
        assert_eq!(staging.unsynced.kept(), ["5", "a/1", "a/2", "b/c/3", "d/4"]);
        publish(&staging).unwrap();
        assert_eq!(staging.unsynced.kept(), [""; 0], "what readers see, nobody has open for writing");

        let spare = Spare::make(&volume, old.id(), 1).unwrap().unwrap();
        let new = manifest(&[("a/1", ""), ("a/2", "changed"), ("d/4", ""), ("e/f/6", ""), ("5", "")]);
        let known = Known { id: old.id(), manifest: Arc::new(old) };
        let Plan::Stage(sources) = plan(&volume, &new.id(), &new, Some(&known)).unwrap() else {
            panic!("it is new")
        };
        let staging = spare.begin(volume, new.id(), &new, &sources.departure.unwrap()).unwrap();
        for index in sources.fetch {
            write(&staging, &new.files[index], if index == 1 { "changed" } else { "" });
        }
        // `b` and all beneath it is gone, which `.` remembers.
        assert_eq!(staging.unsynced.names().unwrap(), [".", "a", "a/2", "e", "e/f", "e/f/6"]);
        publish(&staging).unwrap();
    }
}
