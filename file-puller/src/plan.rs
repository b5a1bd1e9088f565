//! What a release still needs: which of its files are on the volume already, and which have to be fetched.
//!
//! A file of an earlier release stands for one of the new release when content and mode are the same, wherever it lies, so that a
//! renamed file costs no request. Here only manifests are compared; what is linked is looked at first (`plausible`), because
//! a manifest says what a file was, and its size and mode whether it still can be.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType};

use crate::manifest::{Manifest, ManifestFile};
use crate::path::ReleasePath;
use crate::release::ReleaseId;
use crate::volume::{Volume, VolumeError};

/// How a manifest's release comes about.
#[derive(Debug)]
pub enum Plan {
    /// `current` names it, and it is whole.
    InStep,
    /// It was published before and is whole: `current` has to be pointed back at it.
    PointBack,
    /// It has to be put together.
    Stage(Sources),
}

/// Where each file of a release comes from, as indices into the manifest's files.
#[derive(Debug, Default)]
pub struct Sources {
    /// Files of earlier releases, by release.
    pub reuse: Vec<(ReleaseId, Vec<Reuse>)>,
    /// Files that only the content manager has.
    pub fetch: Vec<usize>,
}

/// One file that an earlier release already has.
#[derive(Debug)]
pub struct Reuse {
    /// Which file of the new manifest.
    pub file: usize,
    /// Where it lies in the earlier release.
    pub from: ReleasePath,
}

/// Reading an earlier manifest takes about as long as fetching one of so many of its files. When fewer than that are
/// missing, they are fetched, instead of searched for in all that retention has kept.
const LOOK_WORTH: usize = 100;

/// Compares a manifest with what is on the volume.
///
/// # Errors
/// Where the volume cannot be read.
pub fn plan(volume: &Volume, id: &ReleaseId, manifest: &Manifest) -> Result<Plan, VolumeError> {
    if volume.manifest(id).is_some() && whole(volume, id, manifest)? {
        let in_step = volume.current()?.as_ref() == Some(id);
        return Ok(if in_step { Plan::InStep } else { Plan::PointBack });
    }
    Ok(Plan::Stage(sources(volume, id, manifest)?))
}

/// Whether every file of the release is there, by size and mode.
fn whole(volume: &Volume, id: &ReleaseId, manifest: &Manifest) -> Result<bool, VolumeError> {
    if !volume.holds(id) {
        return Ok(false);
    }
    let tree = volume.open_release(id)?;
    Ok(manifest.files.iter().all(|file| plausible(tree.as_fd(), &file.path, file)))
}

fn sources(volume: &Volume, id: &ReleaseId, manifest: &Manifest) -> Result<Sources, VolumeError> {
    let mut earlier = volume.complete_releases()?;
    earlier.retain(|earlier| earlier != id);
    if earlier.is_empty() {
        return Ok(Sources { reuse: Vec::new(), fetch: (0..manifest.files.len()).collect() });
    }
    let mut wanted: HashMap<_, Vec<usize>> = HashMap::with_capacity(manifest.files.len());
    for (index, file) in manifest.files.iter().enumerate() {
        wanted.entry((file.digest, file.mode)).or_default().push(index);
    }
    let mut sources = Sources::default();
    // One earlier manifest is in memory at a time, the most recent first: it is the likeliest to have the most.
    for earlier in earlier {
        if wanted.len() * LOOK_WORTH <= manifest.files.len() {
            break;
        }
        let Some(old) = volume.manifest(&earlier) else { continue };
        let mut reuse = Vec::new();
        for old in old.files {
            let files = wanted.remove(&(old.digest, old.mode)).unwrap_or_default();
            reuse.extend(files.into_iter().map(|file| Reuse { file, from: old.path.clone() }));
        }
        if !reuse.is_empty() {
            sources.reuse.push((earlier, reuse));
        }
    }
    sources.fetch = wanted.into_values().flatten().collect();
    // In the manifest's order, so that requests and their log read like it.
    sources.fetch.sort_unstable();
    Ok(sources)
}

/// Whether a file can be what its manifest says, as far as its size and mode tell.
pub(crate) fn plausible(tree: BorrowedFd<'_>, path: &ReleasePath, file: &ManifestFile) -> bool {
    rustix::fs::statat(tree, path.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && u64::try_from(stat.st_size) == Ok(file.size)
            && stat.st_mode & 0o7777 == file.mode.bits()
    })
}
