//! A git repository as a source, without a git program: one commit of one ref, without its history.
//!
//! - [`remote`]: the server: which commit a ref names, and the request for it; [`refs`] and [`pkt_line`] are its language
//! - [`pack`]: what the server sends, unpacked while it arrives; [`objects`]: where that is until the release is put together
//! - [`tree`]: from the commit to the list of its files
//! - [`known`]: what is left on the volume, so that the next fetch brings only what has changed
//!
//! The protocol's client and the reader of packs are our own, and not those of the `gix` crates: see `docs/decisions`, "Git without
//! a git library".

mod error;
mod known;
mod object_id;
mod objects;
mod pack;
mod pkt_line;
mod refs;
mod remote;
mod tree;

use std::io::Read;
use std::sync::Arc;

pub(crate) use self::error::GitError;
pub(crate) use self::known::{Known, KnownWriter, Published};
pub(crate) use self::object_id::ObjectId;
use self::objects::{Objects, SMALL};
use self::pack::PackError;
pub(crate) use self::refs::{GitRef, Tip};
pub(crate) use self::remote::{Answer, Remote, RemoteError};
pub(crate) use self::tree::GitLfs;
use crate::content::Manifest;
use crate::fetch::{Contents, Rules};
use crate::store::{Unpacked, Volume};

/// What is followed of a repository, and how.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Git")]
pub(crate) struct GitOptions {
    /// Branch, tag or full commit id to follow; without it, the remote's HEAD
    #[arg(long = "ref", value_name = "NAME", default_value = "HEAD", hide_default_value = true)]
    pub(crate) follow: GitRef,

    /// What to do with files that are kept in Git LFS
    #[arg(long, value_name = "WHAT", default_value = "refuse")]
    pub(crate) git_lfs: GitLfs,
}

/// A commit that has arrived.
pub(crate) struct Commit {
    /// What was asked for, and the commit that it is.
    pub(crate) tip: Tip,
    pub(crate) contents: Contents,
    pub(crate) manifest: Manifest,
    /// What is kept for the next fetch once the release is in place.
    pub(crate) known: KnownWriter,
}

/// Unpacks the answer to a fetch.
pub(crate) fn unpack(
    volume: Arc<Volume>,
    input: impl Read,
    answer: &Answer,
    tip: &Tip,
    known: Option<Known>,
    (rules, lfs): (&Rules, GitLfs),
) -> Result<Commit, GitError> {
    let unpacked = Unpacked::begin(volume)?;
    let mut known_writer = KnownWriter::begin(unpacked.volume())?;
    let small = if rules.selection.is_everything() { 0 } else { SMALL };
    let mut objects = Objects::new(tip.wanted.format(), unpacked, known, small)?;
    let input = answer.pack(input).map_err(|error| answer.failed(&error))?;
    // Trees and excluded files come on top of the release's own.
    pack::unpack(input, &mut objects, rules.expansion()).map_err(|error| match error {
        PackError::Input(error) => answer.failed(&error).into(),
        PackError::Git(error) => error,
    })?;
    let (commit, listing, names) = tree::list(&mut objects, &tip.wanted, rules, lfs, &mut known_writer)?;
    if listing.is_empty() {
        let why = format!("commit {commit} has no file that is published, and an empty release never is");
        return Err(GitError::Refused(why));
    }
    let resolved = Contents::new(objects.into_unpacked(), listing, &rules.limits, names);
    let (contents, manifest) = resolved.map_err(|error| GitError::refused(error.to_string()))?;
    Ok(Commit { tip: Tip { commit, ..*tip }, contents, manifest, known: known_writer })
}
