//! Linking what is on the volume into a staged release: the files that did not change, most of them most of the time.

use std::num::NonZero;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::thread;

use super::plan::{Assembly, Reuse};
use crate::content::{Manifest, ReleaseId};
use crate::store::{Staging, VolumeError, looks_intact};

/// Links that are worth a thread of their own.
const SHARE: usize = 1000;

/// Links what is on the volume into the staging tree, and returns the files for which that did not do.
pub(super) fn link(
    staging: &Staging,
    assembly: Assembly,
    manifest: &Manifest,
) -> Result<Vec<usize>, VolumeError> {
    let Assembly { reuse, mut fetch, .. } = assembly;
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    for (release, files) in reuse {
        let tree = staging.volume().open_release(&release)?;
        let from = Earlier { release: &release, tree: tree.as_fd() };
        // A link is time in the kernel and nothing else, so it is shared out where there are many.
        let share = files.len().div_ceil(threads).max(SHARE);
        thread::scope(|scope| {
            let link_all = |files: &[Reuse]| -> Result<Vec<usize>, VolumeError> {
                let mut refused = Vec::new();
                for file in files {
                    if !from.gives(staging, file, manifest)? {
                        refused.push(file.file);
                    }
                }
                Ok(refused)
            };
            let mut shares = files.chunks(share);
            let own = shares.next().unwrap_or_default();
            let spawn = |files| (files, thread::Builder::new().spawn_scoped(scope, move || link_all(files)));
            let others: Vec<_> = shares.map(spawn).collect();
            fetch.extend(link_all(own)?);
            for (files, other) in others {
                // Where the system has no more threads, this one does.
                let refused =
                    other.ok().and_then(|other| other.join().ok()).unwrap_or_else(|| link_all(files));
                fetch.extend(refused?);
            }
            Ok::<_, VolumeError>(())
        })?;
    }
    // In the manifest's order, so that requests and their log read like it.
    fetch.sort_unstable();
    Ok(fetch)
}

/// A release that has files of the new one.
#[derive(Clone, Copy)]
struct Earlier<'e> {
    release: &'e ReleaseId,
    tree: BorrowedFd<'e>,
}

impl Earlier<'_> {
    /// Whether the new release has the file now.
    fn gives(self, staging: &Staging, file: &Reuse, manifest: &Manifest) -> Result<bool, VolumeError> {
        let Self { release, tree } = self;
        let new = &manifest.files[file.file];
        let is_there = file.moved_from.is_none() && staging.is_copy_of(release);
        let from = file.moved_from.as_ref().unwrap_or(&new.path);
        if !looks_intact(if is_there { staging.tree() } else { tree }, from, new) {
            tracing::warn!(path = %from, %release, "damaged, so it is fetched");
            if is_there {
                staging.remove(from)?;
            }
            return Ok(false);
        }
        if is_there {
            return Ok(true);
        }
        // Too many links on one file, or a file of another owner: the content manager has it too.
        let linked = staging.reuse(tree, from, &new.path);
        if let Err(error) = &linked {
            tracing::debug!(path = %new.path, %release, %error, "cannot be linked, so it is a copy");
        }
        Ok(linked.is_ok())
    }
}
