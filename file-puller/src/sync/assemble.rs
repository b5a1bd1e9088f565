//! Putting a release together: from the seed tree or from scratch, with links to what the volume has already.

use std::num::NonZero;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread;

use super::plan::{Link, Reuse};
use crate::content::{Manifest, ReleaseId};
use crate::store::{Clear, Diff, SeedTree, Staging, Volume, VolumeError, clear};

/// Links that are worth a thread of their own.
const SHARE: usize = 1000;

/// Begins a release with the seed tree, if that is a copy of the release which the diff is to, else from scratch.
pub(super) fn begin(
    volume: &Arc<Volume>,
    id: &ReleaseId,
    manifest: &Manifest,
    seed: Option<SeedTree>,
    diff: Option<&Diff>,
) -> Result<Staging, VolumeError> {
    match (seed, diff) {
        (Some(seed), Some(diff)) if seed.base().id == diff.base => {
            match seed.into_staging(volume, id, manifest, diff) {
                Ok(staging) => return Ok(staging),
                // The seed tree was probably removed from outside. Stage from scratch: slower, same result.
                Err(error) => tracing::warn!(%error, "staging from scratch, without the seed tree"),
            }
            clear(volume, Clear::Attempt)?;
        }
        (Some(seed), _) => seed.discard(),
        (None, _) => {}
    }
    Staging::begin(volume, id, manifest)
}

/// Links what is on the volume into the staging tree, and returns the files for which that did not do.
pub(super) fn link(
    staging: &Staging,
    links: &[Link],
    manifest: &Manifest,
) -> Result<Vec<usize>, VolumeError> {
    let mut refused = Vec::new();
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    for Link { release, files } in links {
        let tree = staging.volume().open_release(release)?;
        let link_all = |files: &[Reuse]| -> Result<Vec<usize>, VolumeError> {
            let mut refused = Vec::new();
            for file in files {
                let new = &manifest.files[file.file];
                let from = file.moved_from.as_ref().unwrap_or(&new.path);
                if !staging.reuse((release, tree.as_fd()), from, new)? {
                    refused.push(file.file);
                }
            }
            Ok(refused)
        };
        // A link is time in the kernel and nothing else, so it is shared out where there are many.
        let share = files.len().div_ceil(threads).max(SHARE);
        thread::scope(|scope| {
            let link_all = &link_all;
            let mut shares = files.chunks(share);
            let own = shares.next().unwrap_or_default();
            let spawn = |files| (files, thread::Builder::new().spawn_scoped(scope, move || link_all(files)));
            let others: Vec<_> = shares.map(spawn).collect();
            refused.extend(link_all(own)?);
            for (files, other) in others {
                // Where the system has no more threads, this one does.
                let found = other.ok().and_then(|other| other.join().ok()).unwrap_or_else(|| link_all(files));
                refused.extend(found?);
            }
            Ok::<_, VolumeError>(())
        })?;
    }
    // In the manifest's order, so that requests and their log read like it.
    refused.sort_unstable();
    Ok(refused)
}
