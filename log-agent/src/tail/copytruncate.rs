//! `copytruncate`: a rotator copies a file and then truncates it. What was read of the one is not read again from the other,
//! and what was not is.
//!
//! A content that its file no longer holds (because the file was truncated, or because that is what
//! a restart finds) is looked for among the files that may be copies: new ones with a rotated name of the same log. The copy that
//! has it takes it over as it is. A file that may be a copy of what another one holds *now* waits until that one is truncated,
//! or until it has been quiet for so long that it is a file like any other.

use std::path::Path;

use lifecycle::escape::escaped_path;

use super::content::{Content, Match};
use super::ends::FileEnds;
use super::file::{ReadState, TailedFile};
use super::files::Numbers;
use super::rotation::RotationAge;
use crate::checkpoint::FileEntry;
use crate::loss::LossLedger;
use crate::position::ContentSeq;

/// What a checkpoint knows of a content whose file is not followed, or has another content since.
#[derive(Debug)]
pub(super) struct Former {
    entry: FileEntry,
    content: Option<Content>,
}

impl Former {
    /// Those of these entries.
    pub(super) fn of_entries(entries: Vec<FileEntry>, numbers: &mut Numbers, sinks: &[String]) -> Vec<Self> {
        let former = |entry: FileEntry| Self { content: Some(numbers.restored(&entry, sinks)), entry };
        entries.into_iter().map(former).collect()
    }

    pub(super) fn into_entry(self) -> FileEntry {
        self.entry
    }
}

/// Finds the copies among the files of one log. What is found moves: from `previous` of its original, or from `former`, into the
/// copy. Files that turn out not to be copies are read from now on.
pub(super) fn resolve(
    files: &mut [TailedFile],
    former: &mut Vec<Former>,
    ledger: &LossLedger,
    ends: &FileEnds,
    numbers: &mut Numbers,
) {
    let mut pending: Vec<usize> =
        (0..files.len()).filter(|at| files[*at].state() == ReadState::PendingCopy).collect();
    // The oldest first: of two copies that look alike, the older one is of the older content.
    pending.sort_by_key(|at| (files[*at].age(), files[*at].content().seq()));
    let mut originals: Vec<(ContentSeq, usize)> = (0..files.len())
        .flat_map(|at| files[at].previous().iter().map(move |content| (content.seq(), at)))
        .collect();
    originals.sort_unstable();
    let mut moved = false;
    // First all that are in a copy as a whole. One that ends before what was read has less to prove it, and is believed where no other
    // can be meant.
    for how in [Match::Whole, Match::Full, Match::Prefix] {
        former.retain_mut(|former| {
            let Some(content) = &former.content else { return true };
            let Some(copy) = find(content, files, &pending, how) else { return true };
            let Some(content) = former.content.take() else { return true };
            moved |= take_over(content, &former.entry.path, copy, files, &mut pending, ledger);
            false
        });
        for (seq, original) in &originals {
            let Some(content) = files[*original].previous().iter().find(|content| content.seq() == *seq)
            else {
                continue;
            };
            let Some(copy) = find(content, files, &pending, how) else { continue };
            let path = files[*original].path().to_owned();
            let Some(content) = files[*original].give_previous(*seq) else { continue };
            moved |= take_over(content, &path, copy, files, &mut pending, ledger);
        }
    }
    let current: Vec<usize> = (0..files.len())
        .filter(|at| files[*at].state() == ReadState::Active && files[*at].age() == RotationAge::Current)
        .collect();
    for at in pending {
        let copy = &files[at];
        let alike = copy.handle().and_then(|handle| {
            let is_alike = |at: &&usize| files[**at].content().begins_like(handle).unwrap_or(false);
            current.iter().find(is_alike).copied()
        });
        if alike.is_none() || ends.is_quiet(copy) {
            if let Some(original) = alike {
                settle_as_it_is(files, at, original);
            }
            files[at].set_state(ReadState::Active);
            if moved {
                // It is younger than what has just been moved, and older than what its original holds now.
                files[at].content_mut().renumber(numbers.content());
            }
        }
    }
    if moved {
        for at in current {
            files[at].content_mut().renumber(numbers.content());
        }
    }
}

/// Which of the files that may be copies has this content.
fn find(content: &Content, files: &[TailedFile], pending: &[usize], how: Match) -> Option<usize> {
    let sized = pending.iter().filter_map(|at| {
        let handle = files[*at].handle()?;
        Some((*at, handle, handle.metadata().ok()?.len()))
    });
    let filled: Vec<_> = sized.filter(|(.., size)| *size > 0).collect();
    if how == Match::Prefix && filled.len() > 1 {
        return None;
    }
    let has =
        |(_, handle, size): &&(usize, _, u64)| content.is_copied_in(*handle, *size, how).unwrap_or(false);
    filled.iter().find(has).map(|(at, ..)| *at)
}

fn take_over(
    content: Content,
    original: &Path,
    copy: usize,
    files: &mut [TailedFile],
    pending: &mut Vec<usize>,
    ledger: &LossLedger,
) -> bool {
    pending.retain(|at| *at != copy);
    let (from, read) = (content.least_confirmed(), content.size());
    let file = &mut files[copy];
    match file.take_over(content, original, ledger) {
        Ok(()) => {
            tracing::info!(file = %escaped_path(file.path()), from, read, "a copy made before a truncation: reading goes on in it");
            true
        }
        Err(error) => {
            tracing::warn!(file = %escaped_path(file.path()), %error, "cannot read the copy of a truncated file: it is read as a file of its own");
            file.set_state(ReadState::Active);
            false
        }
    }
}

/// A copy of a file that is not going to be truncated: a file of its own.
fn settle_as_it_is(files: &mut [TailedFile], copy: usize, original: usize) {
    let Ok([copy, original]) = files.get_disjoint_mut([copy, original]) else { return };
    if !copy.was_there_at_start() {
        return;
    }
    // Made while the agent was away: what sinks have of the original, they have of this.
    if let Err(error) = copy.skip_to(|sink| original.content().confirmed(sink)) {
        tracing::warn!(file = %escaped_path(copy.path()), %error, "cannot read it: it is read from its beginning");
    }
}
