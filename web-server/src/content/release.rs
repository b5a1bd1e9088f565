//! A release as its publisher left it: its name, its directory, when it was published, and what the publisher says of its files.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;

use crate::content::digest::Digest;
use crate::content::dir::Directory;

/// What a release is called: the last segment of what the link points to. For a file-puller's volume that is the content's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReleaseId(Arc<str>);

impl ReleaseId {
    /// The id of the release at this path.
    pub(crate) fn of(target: &Path) -> Self {
        let name = target.file_name().unwrap_or(target.as_os_str());
        Self(name.to_string_lossy().into())
    }

    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which link, as it was made or renamed: a publisher that makes it anew says that there is something to look at, also where it
/// names the same release as before. file-puller does so when it has mended one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkStamp {
    inode: u64,
    changed: (i64, i64),
}

impl LinkStamp {
    /// Of the link itself, not of what it names.
    pub(crate) fn of(link: &Metadata) -> Self {
        Self { inode: link.ino(), changed: (link.ctime(), link.ctime_nsec()) }
    }
}

/// A published release, found and not yet loaded.
#[derive(Debug)]
pub(crate) struct Published {
    /// What the link says.
    pub(crate) release: ReleaseId,
    /// Which link says it.
    pub(crate) link: LinkStamp,
    /// Where the release is. Its manifest and its signature are beside it.
    pub(crate) path: PathBuf,
    /// The directory that the link named.
    pub(crate) directory: Directory,
    /// When the link was made, which is when the release was published.
    pub(crate) since: SystemTime,
    /// The publisher's manifest of it, where there is one: digests that need not be worked out again.
    pub(crate) digests: HashMap<String, (u64, Digest)>,
}

/// What we need of the manifest that file-puller leaves beside a release (docs/contract.md, `sidecar-manifest/1`).
#[derive(Deserialize)]
struct Manifest {
    format: String,
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    path: String,
    size: u64,
    sha256: String,
}

/// Reads the manifest beside a release. None is no error: not every publisher writes one, and digests can be worked out.
pub(crate) fn digests_beside(release: &Path) -> HashMap<String, (u64, Digest)> {
    let mut beside = release.as_os_str().to_owned();
    beside.push(".json");
    let Ok(text) = std::fs::read(&beside) else { return HashMap::new() };
    match serde_json::from_slice::<Manifest>(&text) {
        Ok(manifest) if manifest.format == "sidecar-manifest/1" => manifest
            .files
            .into_iter()
            .filter_map(|file| Some((file.path, (file.size, Digest::from_hex(&file.sha256)?))))
            .collect(),
        Ok(manifest) => {
            tracing::debug!(manifest = %beside.display(), format = manifest.format, "not our format, so files are hashed");
            HashMap::new()
        }
        Err(error) => {
            tracing::warn!(manifest = %beside.display(), %error, "unreadable, so files are hashed");
            HashMap::new()
        }
    }
}
