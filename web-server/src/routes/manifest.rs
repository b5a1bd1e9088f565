//! The server as content manager: a manifest of its root (docs/contract.md, `sidecar-manifest/1`), as the root is at each
//! request.
//!
//! Every request looks at every file, and reads only those that changed. Requests that arrive while one looks share what the
//! next one sees. The entity tag is that of the manifest's bytes, and nothing in them depends on when or where they were
//! made: as long as the content stays, so does the tag.
//!
//! Hidden files are not listed (an editor's swap file must not be published), nor is what this server could not give out.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use lifecycle::blocking;
use serde::Serialize;
use tokio::sync::Mutex;

use crate::content::coding::Coding;
use crate::content::digest::Digest;
use crate::content::generation::FileEntry;
use crate::content::header_policy::REVALIDATE;
use crate::content::live::LiveDirectory;
use crate::content::representation::{ETag, Modified, Representation, Source};
use crate::content::root::Content;
use crate::content::walk::walk;

/// How often a directory is looked at again that was edited meanwhile.
const ATTEMPTS: usize = 8;

/// Makes manifests, one at a time.
#[derive(Debug)]
pub(crate) struct LiveManifest {
    /// Paths that are answered by something else, which cannot be listed therefore.
    reserved: &'static [&'static str],
    latest: Mutex<Option<(Instant, Arc<Representation>)>>,
}

#[derive(Serialize)]
struct Manifest {
    format: &'static str,
    created: String,
    files: Vec<File>,
}

#[derive(Serialize)]
struct File {
    path: String,
    size: u64,
    sha256: String,
    mode: &'static str,
}

impl LiveManifest {
    /// Where it is served.
    pub(crate) const PATH: &'static str = "/manifest.json";

    /// With nothing that other routes would answer.
    pub(crate) fn new(reserved: &'static [&'static str]) -> Self {
        Self { reserved, latest: Mutex::default() }
    }

    /// The manifest of a site, as it is now or was later than this call.
    ///
    /// # Errors
    /// Where the site cannot be read, or is edited faster than it can be.
    pub(crate) async fn current(&self, site: Arc<Content>) -> io::Result<Arc<Representation>> {
        let asked = Instant::now();
        let mut latest = self.latest.lock().await;
        if let Some((looked, manifest)) = &*latest
            && *looked >= asked
        {
            return Ok(Arc::clone(manifest));
        }
        let (looked, reserved) = (Instant::now(), self.reserved);
        let manifest = Arc::new(blocking(move || make(&site, reserved)).await?);
        *latest = Some((looked, Arc::clone(&manifest)));
        Ok(manifest)
    }
}

fn make(site: &Content, reserved: &[&str]) -> io::Result<Representation> {
    let mut listed = match site {
        Content::Waiting(reason) => return Err(io::Error::new(io::ErrorKind::NotFound, reason.clone())),
        Content::Release(generation) => generation.listing().collect(),
        Content::Live(live) => look(live)?,
    };
    listed.retain(|file| {
        let target = format!("/{}", file.path);
        let shadowed = target == LiveManifest::PATH || reserved.contains(&target.as_str());
        if shadowed {
            tracing::warn!(path = file.path, "left out of the manifest: that path is this server's own");
        }
        !shadowed
    });
    listed.sort_unstable_by(|a, b| a.path.cmp(&b.path));

    // The newest change, not the present: the bytes must not depend on when they were made.
    let modified =
        listed.iter().map(|file| file.modified).max().unwrap_or(Modified::at(std::time::UNIX_EPOCH));
    let files = listed
        .into_iter()
        .map(|FileEntry { path, size, digest, executable, .. }| File {
            path,
            size,
            sha256: digest.to_hex(),
            // Only these two: whether it can be run is content, the author's umask is not.
            mode: if executable { "0755" } else { "0644" },
        })
        .collect();
    let manifest = Manifest { format: "sidecar-manifest/1", created: modified.to_rfc3339(), files };
    let mut json = serde_json::to_vec_pretty(&manifest).map_err(io::Error::other)?;
    json.push(b'\n');
    Ok(Representation {
        etag: ETag::of(Digest::of(&json)),
        modified,
        last_modified: modified.header(),
        cache_control: REVALIDATE,
        content_type: HeaderValue::from_static("application/json"),
        content: Source::Memory(json.into()),
        coding: Coding::Identity,
        alternatives: Vec::new(),
    })
}

fn look(live: &LiveDirectory) -> io::Result<Vec<FileEntry>> {
    for _ in 0..ATTEMPTS {
        if let Some(listed) = look_once(live)? {
            return Ok(listed);
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "the root is edited faster than it can be read"))
}

/// `None` where a file was changed between being found and being read.
fn look_once(live: &LiveDirectory) -> io::Result<Option<Vec<FileEntry>>> {
    let mut listed = Vec::new();
    for (path, inspected) in walk(live.directory())?.files {
        let Some(digest) = live.digest(&path, inspected.stamp)? else { return Ok(None) };
        listed.push(FileEntry {
            path,
            size: inspected.stamp.size,
            digest,
            executable: inspected.executable,
            modified: Modified::at(inspected.stamp.last_change()),
        });
    }
    Ok(Some(listed))
}
