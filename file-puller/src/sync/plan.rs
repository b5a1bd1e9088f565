//! What a release still needs: which of its files are on the volume already, and which have to be fetched.
//!
//! A file of an earlier release stands for one of the new release when content and mode are the same, wherever it lies, so that a
//! renamed file costs no request. Here only manifests are compared; what is linked is looked at first (`Staging::reuse`), because
//! a manifest says what a file was, and its size and mode whether it still can be.

use std::collections::HashMap;
use std::sync::Arc;

use crate::content::{Digest, FileMode, Manifest, ReleaseId, ReleasePath};
use crate::store::{CachedManifest, Diff, Volume, VolumeError, looks_whole};

/// How a manifest's release comes about.
#[derive(Debug)]
pub(crate) enum Plan {
    /// `current` names it, and it is whole.
    InStep,
    /// It was published before and is whole: `current` has to be pointed back at it.
    Repoint,
    /// It has to be put together.
    Assemble(Assembly),
}

/// Where each file of a release comes from, as indices into the manifest's files.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    /// Files of earlier releases; the current one first.
    pub(crate) link: Vec<Link>,
    /// Files that only the content manager has.
    pub(crate) fetch: Vec<usize>,
    /// How it differs from the current release, where there is one to compare it with.
    pub(crate) diff: Option<Diff>,
}

/// What an earlier release has of the new one.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) release: ReleaseId,
    pub(crate) files: Vec<Reuse>,
}

/// One file that an earlier release already has.
#[derive(Debug)]
pub(crate) struct Reuse {
    /// Which file of the new manifest.
    pub(crate) file: usize,
    /// Where it lies in the earlier release, if not at the path that it has in the new one.
    pub(crate) moved_from: Option<ReleasePath>,
}

/// Reading an earlier manifest takes about as long as fetching one of so many of its files. When fewer than that are
/// missing, they are fetched, instead of searched for in all that retention has kept.
const MIN_MISSING_SHARE: usize = 100;

/// Compares a manifest with what is on the volume, of which one release may be known.
pub(crate) fn plan(
    volume: &Volume,
    id: &ReleaseId,
    manifest: &Manifest,
    known: Option<&CachedManifest>,
) -> Result<Plan, VolumeError> {
    let current = volume.current()?;
    if volume.manifest(id).is_some() && looks_whole(volume, id, manifest)? {
        let in_step = current.as_ref() == Some(id);
        return Ok(if in_step { Plan::InStep } else { Plan::Repoint });
    }
    let mut earlier: Vec<_> = volume.complete_releases()?.into_iter().map(|(id, _)| id).collect();
    earlier.retain(|earlier| earlier != id);
    // The others most recently published first: the likeliest to have much comes first.
    earlier.sort_by_key(|earlier| current.as_ref() != Some(earlier));
    let mut search = Search::new(manifest);
    // One earlier manifest is in memory at a time.
    for earlier in earlier {
        if search.is_begun() && search.missing() * MIN_MISSING_SHARE <= manifest.files.len() {
            break;
        }
        let known = known.filter(|known| known.id == earlier).map(|known| Arc::clone(&known.manifest));
        let Some(old) = known.or_else(|| volume.manifest(&earlier).map(Arc::new)) else { continue };
        let removed = search.look_into(&earlier, &old);
        if current.as_ref() == Some(&earlier) {
            search.assembly.diff = Some(Diff { base: earlier, removed });
        }
    }
    Ok(Plan::Assemble(search.done()))
}

/// Whether a release looks as it was published.
pub(super) fn is_intact(volume: &Volume, id: &ReleaseId) -> bool {
    volume.manifest(id).is_some_and(|manifest| looks_whole(volume, id, &manifest).unwrap_or_default())
}

/// The files of a new manifest, and which of them were found so far.
struct Search<'m> {
    manifest: &'m Manifest,
    by_path: HashMap<&'m ReleasePath, usize>,
    by_content: HashMap<(Digest, FileMode), Vec<usize>>,
    found: Vec<bool>,
    assembly: Assembly,
}

impl<'m> Search<'m> {
    fn new(manifest: &'m Manifest) -> Self {
        Self {
            manifest,
            by_path: HashMap::new(),
            by_content: HashMap::new(),
            found: vec![false; manifest.files.len()],
            assembly: Assembly::default(),
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
        let mut removed = Vec::new();
        for old in &old.files {
            let same = self.by_path.get(&&old.path).copied();
            match same.filter(|index| self.manifest.files[*index].content() == old.content()) {
                Some(index) => self.mark_found(index, None, &mut reuse),
                None => removed.push(old.path.clone()),
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
                    self.mark_found(index, Some(old.path.clone()), &mut reuse);
                }
            }
        }
        if !reuse.is_empty() {
            self.assembly.link.push(Link { release: id.clone(), files: reuse });
        }
        removed
    }

    fn mark_found(&mut self, index: usize, moved_from: Option<ReleasePath>, reuse: &mut Vec<Reuse>) {
        if !std::mem::replace(&mut self.found[index], true) {
            reuse.push(Reuse { file: index, moved_from });
        }
    }

    fn done(mut self) -> Assembly {
        // In the manifest's order, so that requests and their log read like it.
        self.assembly.fetch = (0..self.found.len()).filter(|index| !self.found[*index]).collect();
        self.assembly
    }
}
