//! Linking what is on the volume into a staged release: the files that did not change, most of them most of the time.

use std::io;
use std::num::NonZero;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::thread;

use crate::manifest::Manifest;
use crate::path::ReleasePath;
use crate::plan::{Reuse, Sources, plausible};
use crate::stage::Staging;
use crate::volume::VolumeError;

/// Links that are worth a thread of their own.
const SHARE: usize = 1000;

/// How a file that is on the volume becomes one of the staged release: [`Staging::reuse`] or [`Staging::replace`].
pub(super) type Link = fn(&Staging, BorrowedFd<'_>, &ReleasePath, &ReleasePath) -> io::Result<()>;

/// Links what is on the volume into the staging tree, and returns the files for which that did not do.
pub(super) fn link(
    staging: &Staging,
    sources: Sources,
    manifest: &Manifest,
    link: Link,
) -> Result<Vec<usize>, VolumeError> {
    let Sources { reuse, mut fetch } = sources;
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    for (release, files) in reuse {
        let tree = staging.volume().open_release(&release)?;
        // A link is time in the kernel and nothing else, so it is shared out where there are many.
        let share = files.len().div_ceil(threads).max(SHARE);
        thread::scope(|scope| {
            let link_all = |files: &[Reuse]| -> Vec<usize> {
                let refused = files.iter().filter(|file| {
                    let new = &manifest.files[file.file];
                    if !plausible(tree.as_fd(), &file.from, new) {
                        tracing::warn!(path = %file.from, %release, "damaged, so it is fetched");
                        return true;
                    }
                    // Too many links on one file, or a file of another owner: the content manager has it too.
                    let to = &new.path;
                    link(staging, tree.as_fd(), &file.from, to)
                        .inspect_err(|error| tracing::debug!(path = %to, %release, %error, "cannot be linked, so it is a copy"))
                        .is_err()
                });
                refused.map(|file| file.file).collect()
            };
            let mut shares = files.chunks(share);
            let own = shares.next().unwrap_or_default();
            let others: Vec<_> = shares.map(|files| (files, scope.spawn(move || link_all(files)))).collect();
            fetch.extend(link_all(own));
            for (files, other) in others {
                // Whatever ended a thread, its files are then fetched.
                fetch.extend(other.join().unwrap_or_else(|_| files.iter().map(|file| file.file).collect()));
            }
        });
    }
    Ok(fetch)
}
