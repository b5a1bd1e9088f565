//! What a release still needs: which of its files are on the volume already, and which have to be fetched.
//!
//! A file of an earlier release stands for one of the new release when content and mode are the same, wherever it lies, so that a
//! renamed file costs no request. Here only manifests are compared; what is linked is looked at first (`plausible`), because
//! a manifest says what a file was, and its size and mode whether it still can be.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType};

use crate::manifest::{Manifest, ManifestFile};
use crate::path::ReleasePath;
use crate::release::{Digest, FileMode, ReleaseId};
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
    /// Files of earlier releases, by release; the current one first.
    pub reuse: Vec<(ReleaseId, Vec<Reuse>)>,
    /// Files that only the content manager has.
    pub fetch: Vec<usize>,
    /// How it differs from the current release, where there is one to compare it with.
    pub departure: Option<Departure>,
}

/// A release whose manifest was read already.
#[derive(Debug, Clone)]
pub struct Known {
    /// The release.
    pub id: ReleaseId,
    /// Its manifest.
    pub manifest: Arc<Manifest>,
}

/// What a release leaves behind of another.
#[derive(Debug)]
pub struct Departure {
    /// The other one.
    pub from: ReleaseId,
    /// Its files that the new release does not have at the same path with the same content and mode.
    pub gone: Vec<ReleasePath>,
}

/// One file that an earlier release already has.
#[derive(Debug)]
pub struct Reuse {
    /// Which file of the new manifest.
    pub file: usize,
    /// Where it lies in the earlier release, if not at the path that it has in the new one.
    pub moved_from: Option<ReleasePath>,
}

/// Reading an earlier manifest takes about as long as fetching one of so many of its files. When fewer than that are
/// missing, they are fetched, instead of searched for in all that retention has kept.
const LOOK_WORTH: usize = 100;

/// Compares a manifest with what is on the volume, of which one release may be known.
///
/// # Errors
/// Where the volume cannot be read.
pub fn plan(
    volume: &Volume,
    id: &ReleaseId,
    manifest: &Manifest,
    known: Option<&Known>,
) -> Result<Plan, VolumeError> {
    let current = volume.current()?;
    if volume.manifest(id).is_some() && whole(volume, id, manifest)? {
        let in_step = current.as_ref() == Some(id);
        return Ok(if in_step { Plan::InStep } else { Plan::PointBack });
    }
    let mut earlier = volume.complete_releases()?;
    earlier.retain(|earlier| earlier != id);
    // The others most recently published first: the likeliest to have much comes first.
    earlier.sort_by_key(|earlier| current.as_ref() != Some(earlier));
    let mut search = Search::new(manifest);
    // One earlier manifest is in memory at a time.
    for earlier in earlier {
        if search.is_begun() && search.missing() * LOOK_WORTH <= manifest.files.len() {
            break;
        }
        let known = known.filter(|known| known.id == earlier).map(|known| Arc::clone(&known.manifest));
        let Some(old) = known.or_else(|| volume.manifest(&earlier).map(Arc::new)) else { continue };
        let gone = search.look_into(&earlier, &old);
        if current.as_ref() == Some(&earlier) {
            search.sources.departure = Some(Departure { from: earlier, gone });
        }
    }
    Ok(Plan::Stage(search.done()))
}

/// Whether every file of the release is there, by size and mode.
fn whole(volume: &Volume, id: &ReleaseId, manifest: &Manifest) -> Result<bool, VolumeError> {
    if !volume.holds(id) {
        return Ok(false);
    }
    let tree = volume.open_release(id)?;
    Ok(manifest.files.iter().all(|file| plausible(tree.as_fd(), &file.path, file)))
}

/// The files of a new manifest, and which of them were found so far.
struct Search<'m> {
    manifest: &'m Manifest,
    by_path: HashMap<&'m ReleasePath, usize>,
    by_content: HashMap<(Digest, FileMode), Vec<usize>>,
    found: Vec<bool>,
    sources: Sources,
}

impl<'m> Search<'m> {
    fn new(manifest: &'m Manifest) -> Self {
        Self {
            manifest,
            by_path: HashMap::new(),
            by_content: HashMap::new(),
            found: vec![false; manifest.files.len()],
            sources: Sources::default(),
        }
    }

    fn is_begun(&self) -> bool {
        !self.by_path.is_empty()
    }

    fn missing(&self) -> usize {
        self.found.iter().filter(|found| !**found).count()
    }

    /// Finds what an earlier release has, and returns its files that the new one has not at the same path.
    fn look_into(&mut self, id: &ReleaseId, old: &Manifest) -> Vec<ReleasePath> {
        if !self.is_begun() {
            self.by_path =
                self.manifest.files.iter().enumerate().map(|(index, file)| (&file.path, index)).collect();
        }
        let mut reuse = Vec::new();
        let mut gone = Vec::new();
        for old in &old.files {
            let same = self.by_path.get(&&old.path).copied();
            match same.filter(|index| self.manifest.files[*index].content() == old.content()) {
                Some(index) => self.claim(index, None, &mut reuse),
                None => gone.push(old.path.clone()),
            }
        }
        // What is still missing may lie there under another name.
        self.by_content.clear();
        for index in (0..self.found.len()).filter(|index| !self.found[*index]) {
            self.by_content.entry(self.manifest.files[index].content()).or_default().push(index);
        }
        if !self.by_content.is_empty() {
            for old in &old.files {
                for index in self.by_content.remove(&old.content()).unwrap_or_default() {
                    self.claim(index, Some(old.path.clone()), &mut reuse);
                }
            }
        }
        if !reuse.is_empty() {
            self.sources.reuse.push((id.clone(), reuse));
        }
        gone
    }

    fn claim(&mut self, index: usize, moved_from: Option<ReleasePath>, reuse: &mut Vec<Reuse>) {
        if !std::mem::replace(&mut self.found[index], true) {
            reuse.push(Reuse { file: index, moved_from });
        }
    }

    fn done(mut self) -> Sources {
        // In the manifest's order, so that requests and their log read like it.
        self.sources.fetch = (0..self.found.len()).filter(|index| !self.found[*index]).collect();
        self.sources
    }
}

/// Whether a file can be what its manifest says, as far as its size and mode tell.
pub(crate) fn plausible(tree: BorrowedFd<'_>, path: &ReleasePath, file: &ManifestFile) -> bool {
    rustix::fs::statat(tree, path.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && u64::try_from(stat.st_size) == Ok(file.size)
            && stat.st_mode & 0o7777 == file.mode.bits()
    })
}
