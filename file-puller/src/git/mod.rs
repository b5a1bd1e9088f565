//! A git repository as a source, without a git program: one commit of one ref, without its history.
//!
//! - [`remote`]: the server: which commit a ref names, and the request for it; [`refs`] and [`pkt_line`] are its language
//! - [`pack`]: what the server sends, unpacked while it arrives; [`objects`]: where that is until the release is put together
//! - [`tree`]: from the commit to the list of its files
//! - [`known`]: what is left on the volume, so that the next fetch brings only what has changed
//!
//! The protocol's client and the reader of packs are our own, and not those of the `gix` crates: see `docs/decisions`, "Git without
//! a git library".

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

use lifecycle::escape::escaped;

use self::known::KnownWriter;
pub(crate) use self::known::{Known, Published};
pub(crate) use self::object_id::ObjectId;
use self::objects::Objects;
use self::pack::{PackError, PackLimits};
pub(crate) use self::refs::{GitRef, Tip};
pub(crate) use self::remote::{Answer, Remote, RemoteError};
pub(crate) use self::tree::GitLfs;
use self::tree::TreeError;
use crate::content::{Limits, Manifest, Selection};
use crate::fetch::{Contents, Unpacking};
use crate::store::{Unpacked, Volume, VolumeError};

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

/// Why a commit is not a release.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    /// The server, or the connection to it.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// What the commit has breaks a rule.
    #[error("repository refused: {}", escaped(.0))]
    Refused(String),
    /// Something is neither in what was sent nor on the volume.
    #[error("repository refused: the server did not send object {0}, which its commit names")]
    Missing(ObjectId),
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

/// A commit that has arrived.
pub(crate) struct Commit {
    pub(crate) contents: Contents,
    pub(crate) manifest: Manifest,
    pub(crate) trace: Trace,
    id: ObjectId,
}

impl Commit {
    /// Which commit it is.
    pub(crate) fn id(&self) -> ObjectId {
        self.id
    }
}

/// What is kept for the next fetch once the release is in place.
pub(crate) struct Trace(KnownWriter);

impl Trace {
    pub(crate) fn keep(self, published: &Published) -> Result<(), VolumeError> {
        self.0.finish(published)
    }
}

/// What a fetch is held to.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) selection: Selection,
    pub(crate) lfs: GitLfs,
    pub(crate) limits: Limits,
    pub(crate) unpacking: Unpacking,
}

/// Unpacks the answer to a fetch.
pub(crate) fn unpack(
    volume: Arc<Volume>,
    input: impl Read,
    answer: &Answer,
    tip: &Tip,
    known: Option<Known>,
    rules: &Rules,
) -> Result<Commit, GitError> {
    let unpacked = Unpacked::begin(volume)?;
    let mut known_writer = KnownWriter::begin(unpacked.volume())?;
    let mut objects = Objects::new(tip.wanted.format(), unpacked, known)?;
    let limits = PackLimits {
        // Trees and excluded files come on top of the release's own.
        inflated: rules.limits.size.saturating_mul(2).saturating_add(pack::HARMLESS),
        expansion: rules.unpacking.max_expansion,
    };
    let input = answer.pack(input).map_err(|error| answer.failed(&error))?;
    pack::unpack(input, &mut objects, limits).map_err(|error| match error {
        PackError::Input(error) => answer.failed(&error).into(),
        PackError::Refused(why) => GitError::Refused(why),
        PackError::Missing(id) => GitError::Missing(id),
        PackError::Volume(error) => error.into(),
    })?;
    let Rules { selection, lfs, limits, .. } = rules;
    let listed = tree::list(&objects, &tip.wanted, selection, *lfs, limits, &mut known_writer);
    let (commit, listing) = listed.map_err(|error| match error {
        TreeError::Refused(why) => GitError::Refused(why),
        TreeError::Missing(id) => GitError::Missing(id),
        TreeError::Volume(error) => error.into(),
    })?;
    if listing.is_empty() {
        let why = format!("commit {commit} has no file that is published, and an empty release never is");
        return Err(GitError::Refused(why));
    }
    let resolved = Contents::new(objects.into_unpacked(), listing, limits);
    let (contents, manifest) = resolved.map_err(|error| GitError::Refused(error.to_string()))?;
    Ok(Commit { contents, manifest, trace: Trace(known_writer), id: commit })
}
