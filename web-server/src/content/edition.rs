//! An edition: one manifest as it is given out, and the content that it is about (docs/contract.md, `sidecar-manifest/1`).
//!
//! A release that a puller wrote has its manifest beside it, and a mirror gives out exactly those bytes, with the signature
//! that came with them: what was signed upstream stays signed. Of any other content the manifest is written here. Its
//! bytes depend on the content alone, and not on when or where they were made, so that equal content has an equal entity
//! tag.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use serde::Serialize;

use crate::content::digest::Digest;
use crate::content::generation::{FileEntry, Generation};
use crate::content::release::{FORMAT, FileLine, each_file, with_suffix};
use crate::content::representation::{Modified, Representation, Source};
use crate::content::root::Content;
use crate::memory::{Account, Budget, NoRoom, Share};

/// A manifest, and what belongs to it.
#[derive(Debug)]
pub(crate) struct Edition {
    /// The manifest itself.
    pub(crate) manifest: Arc<Representation>,
    /// Its detached signature, where the publisher left one.
    pub(crate) signature: Option<Arc<Representation>>,
    /// What it lists. A mirror keeps it for pullers that are still fetching this edition's files.
    pub(crate) content: Arc<Content>,
    /// How many waiters it was told to at that moment.
    pub(crate) told: u32,
    /// Files that are not found under their own path: the target that the manifest names, and the path in the release.
    elsewhere: HashMap<String, (String, Digest)>,
    /// When they were written, where they are the publisher's own.
    written: Option<Written>,
    /// What `elsewhere` takes; the documents account for themselves.
    _memory: Share,
}

/// When the manifest and its signature were written: another manifest of the same release is renamed into place where the
/// same content was signed again.
type Written = [Option<SystemTime>; 2];

/// A file as it is written.
#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    size: u64,
    sha256: String,
    mode: &'static str,
}

impl Line<'_> {
    /// How many bytes the line of a file takes at most, its separator included.
    fn length_max(path: &str) -> usize {
        const AROUND: &str = r#",_{"path":"","size":18446744073709551615,"sha256":"","mode":"0644"}"#;
        const DIGEST: usize = 64;
        // JSON writes these as an escape, of six bytes at most (RFC 8259 section 7).
        let escaped = path.bytes().filter(|byte| matches!(byte, b'"' | b'\\' | ..0x20)).count();
        AROUND.len() + DIGEST + path.len() + 5 * escaped
    }
}

/// What a file that is found elsewhere takes besides its two names.
const ELSEWHERE: u64 = 250;

impl Edition {
    /// The manifest of a release: the publisher's where there is one, else one of the files that were found. Blocks.
    pub(crate) fn of_release(content: &Arc<Content>, reserved: &[&str]) -> io::Result<Self> {
        let Content::Release(generation) = &**content else {
            return Err(io::Error::other("the content is no release"));
        };
        match Self::beside(content, generation, reserved) {
            Ok(Some(edition)) => Ok(edition),
            Ok(None) => Self::of_listing(content, generation, reserved),
            // One that is written here would be as large.
            Err(error) if NoRoom::is_cause_of(&error) => Err(error),
            Err(error) => {
                let release = generation.release.id.as_str();
                tracing::warn!(release, %error, "the publisher's manifest cannot be used, so one is written here");
                Self::of_listing(content, generation, reserved)
            }
        }
    }

    /// The manifest of these files, which `content` has, sorted by path.
    pub(crate) fn of_files<'a>(
        content: &Arc<Content>,
        budget: &Arc<Budget>,
        files: impl Iterator<Item = FileEntry<'a>> + Clone,
        reserved: &[&str],
    ) -> io::Result<Self> {
        let is_reserved = |path: &str| reserved.iter().any(|target| target.strip_prefix('/') == Some(path));
        // The newest change, not the present: the bytes must not depend on when they were made.
        let listed = files.clone().filter(|file| !is_reserved(file.path));
        let modified = listed.map(|file| file.modified).max().unwrap_or(Modified::at(SystemTime::UNIX_EPOCH));
        let created = modified.to_rfc3339();
        let head = format!(r#"{{"format": "{FORMAT}", "created": "{created}", "files": ["#);
        let tail = b"\n]}\n";
        // Taken at once: memory that grows is copied again and again, and for a moment there are two of it.
        let lines: usize = files.clone().map(|file| Line::length_max(file.path)).sum();
        let length_max = head.len() + lines + tail.len();
        let mut share = Share::new(budget, Account::Manifest);
        share.grow(length_max as u64)?;
        let mut json = Vec::with_capacity(length_max);
        json.extend_from_slice(head.as_bytes());
        let mut separator: &[u8] = b"\n";
        for file in files {
            if is_reserved(file.path) {
                tracing::warn!(path = file.path, "left out of the manifest: that path is this server's own");
                continue;
            }
            let line = Line {
                path: file.path,
                size: file.size,
                sha256: file.digest.to_hex(),
                // Only these two: whether it can be run is content, the author's umask is not.
                mode: if file.executable { "0755" } else { "0644" },
            };
            // One file a line, for people who read or compare it.
            json.extend_from_slice(std::mem::replace(&mut separator, b",\n"));
            serde_json::to_writer(&mut json, &line)?;
        }
        json.extend_from_slice(tail);
        debug_assert!(json.len() <= length_max, "a line is longer than was reckoned");
        Ok(Self {
            manifest: document(share.hold(json), modified, "application/json"),
            signature: None,
            content: Arc::clone(content),
            told: 0,
            elsewhere: HashMap::new(),
            written: None,
            _memory: Share::new(budget, Account::Manifest),
        })
    }

    /// The manifest of a release whose publisher left none.
    fn of_listing(content: &Arc<Content>, generation: &Generation, reserved: &[&str]) -> io::Result<Self> {
        let mut entries: Vec<_> = generation.index.entries().collect();
        entries.sort_unstable_by_key(|entry| entry.path());
        let files = entries.into_iter().map(FileEntry::of);
        Self::of_files(content, generation.budget(), files, reserved)
    }

    /// `None` where the publisher left no manifest.
    fn beside(
        content: &Arc<Content>,
        generation: &Generation,
        reserved: &[&str],
    ) -> io::Result<Option<Self>> {
        let path = with_suffix(&generation.release.path, ".json");
        // Before the bytes are read: what is written in between is then found to be another at the next look.
        let written = written(generation);
        let budget = generation.budget();
        let Some(json) = read(&path, budget)? else { return Ok(None) };
        let modified = generation.published;
        let signature = read(&with_suffix(&path, ".sig"), budget)?;
        let mut elsewhere = HashMap::new();
        let mut memory = Share::new(budget, Account::Manifest);
        let mut add = |FileLine { path, sha256, url, .. }| -> io::Result<()> {
            let target = url.as_deref().map_or_else(|| path.clone(), decoded_target);
            if reserved.iter().any(|reserved| reserved.strip_prefix('/') == Some(&target)) {
                tracing::warn!(path, "listed, and cannot be fetched here: that path is this server's own");
            }
            if url.is_some() || generation.file(&path).is_none() {
                let digest = Digest::from_hex(&sha256)
                    .ok_or_else(|| io::Error::other(format!("{path}: {sha256:?} is no SHA-256")))?;
                memory.grow(ELSEWHERE + (target.len() + path.len()) as u64)?;
                elsewhere.insert(target, (path, digest));
            }
            Ok(())
        };
        let mut added = Ok(());
        each_file(&json, |file| {
            if added.is_ok() {
                added = add(file);
            }
        })?;
        added?;
        Ok(Some(Self {
            manifest: document(json, modified, "application/json"),
            signature: signature.map(|bytes| document(bytes, modified, "text/plain; charset=utf-8")),
            content: Arc::clone(content),
            told: 0,
            elsewhere,
            written: Some(written),
            _memory: memory,
        }))
    }

    /// Whether the publisher has replaced the manifest or the signature since. Blocks.
    pub(crate) fn is_replaced(&self) -> bool {
        match (&*self.content, self.written) {
            (Content::Release(generation), Some(known)) => written(generation) != known,
            _ => false,
        }
    }

    /// Whether it says what another one says.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        let signature = |edition: &Self| edition.signature.as_ref().map(|signature| signature.etag.clone());
        self.manifest.etag == other.manifest.etag
            && signature(self) == signature(other)
            && Arc::ptr_eq(&self.content, &other.content)
    }

    /// The file that a request target stands for where that is not the file's own path: the manifest names another `url`,
    /// or the name is one that this server gives out to pullers alone. Blocks.
    pub(crate) fn elsewhere(&self, path_and_query: &str) -> io::Result<Option<Representation>> {
        let path = self.elsewhere.get(&decoded_target(path_and_query));
        match (path, &*self.content) {
            (Some((path, digest)), Content::Release(generation)) => generation.any_file(path, *digest),
            _ => Ok(None),
        }
    }

    /// Whether [`Edition::elsewhere`] has an answer, which is worth a thread then.
    pub(crate) fn has_elsewhere(&self, path_and_query: &str) -> bool {
        !self.elsewhere.is_empty() && self.elsewhere.contains_key(&decoded_target(path_and_query))
    }
}

/// A target as it is looked up: without `.` and `..`, decoded. A puller resolves a manifest's `url` as a browser does, and what it
/// then asks for has to be found by the `url` as it is written.
fn decoded_target(target: &str) -> String {
    let target = target.split_once('#').map_or(target, |(target, _fragment)| target);
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut segments = Vec::new();
    for segment in path.trim_start_matches(['/', '\\']).split(['/', '\\']) {
        match &*percent_decode_str(segment).decode_utf8_lossy() {
            "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment.to_owned()),
        }
    }
    let mut decoded = segments.join("/");
    if let Some(query) = query {
        decoded.push('?');
        decoded.push_str(&percent_decode_str(query).decode_utf8_lossy());
    }
    decoded
}

fn document(bytes: Bytes, modified: Modified, content_type: &'static str) -> Arc<Representation> {
    let content_type = HeaderValue::from_static(content_type);
    Arc::new(Representation::new(Digest::of(&bytes), modified, content_type, Source::Memory(bytes)))
}

/// A file, if there is memory for all of it.
fn read(path: &Path, budget: &Arc<Budget>) -> io::Result<Option<Bytes>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let size = file.metadata()?.len();
    let mut share = Share::new(budget, Account::Manifest);
    // One byte more would show a file that is growing.
    share.grow(size + 1)?;
    let mut bytes = Vec::with_capacity(usize::try_from(size + 1).unwrap_or_default());
    file.take(size + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != size {
        return Err(io::Error::other(format!("{} is being changed", path.display())));
    }
    Ok(Some(share.hold(bytes)))
}

fn written(generation: &Generation) -> Written {
    [".json", ".json.sig"].map(|suffix| {
        let beside = with_suffix(&generation.release.path, suffix);
        beside.metadata().and_then(|metadata| metadata.modified()).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_longer_than_the_memory_that_is_taken_for_it() {
        for path in ["index.html", "a/\u{1}\n\"\\\u{1f}/\u{7f}", "\u{85}\u{2028}\u{1f600}"] {
            let line = Line { path, size: u64::MAX, sha256: Digest::of(b"").to_hex(), mode: "0755" };
            let written = ",\n".len() + serde_json::to_vec(&line).unwrap().len();
            assert!(written <= Line::length_max(path), "{path:?}: {written} bytes");
        }
    }

    #[test]
    fn a_url_is_looked_up_as_it_is_asked_for() {
        let base = url::Url::parse("http://mirror:9876/").unwrap();
        for (written, looked_up) in [
            ("a%20b/c?v=%31", "a b/c?v=1"),
            ("a b/ü?v=ü x", "a b/ü?v=ü x"),
            ("./blobs/x", "blobs/x"),
            ("/blobs/x", "blobs/x"),
            ("blobs/./../x#part", "x"),
            ("a/%2e%2E/../../blobs/%2e/x", "blobs/x"),
            ("blobs\\x", "blobs/x"),
            ("a//b", "a//b"),
        ] {
            assert_eq!(decoded_target(written), looked_up, "{written}");
            let asked = base.join(written).unwrap();
            let target = &asked[url::Position::BeforePath..url::Position::AfterQuery];
            assert_eq!(decoded_target(target), looked_up, "{written}, asked for as {target}");
        }
    }
}
