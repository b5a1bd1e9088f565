//! The manifest: what a release consists of, as the content manager says it and as the volume remembers it.
//!
//! [`Manifest::parse`] and [`Manifest::read`] are the only doors for a content manager's word, and they let nothing through that
//! breaks a rule of `docs/contract.md`: the format's name, every field's form, paths, limits. Their errors name the field. What they
//! return is checked, so the modules behind them never look at a raw field again.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Display;
use std::io::{self, Read};
use std::time::SystemTime;

use lifecycle::escape::escaped;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::content::Limits;
use crate::content::path::{ReleasePath, disjoint};
use crate::content::{Digest, FileMode, ReleaseId, Site, timestamp};

/// The format that this version reads and writes.
pub(crate) const FORMAT: &str = "sidecar-manifest/1";

/// From this size on a manifest is not held in memory as text while it is read.
pub(crate) const LARGE_MANIFEST: u64 = 4 * 1024 * 1024;

/// Bytes of its text that are read at a time.
const PIECE: usize = 64 * 1024;

/// What the process takes without a manifest.
const BASE_MEMORY: u64 = 14 * 1024 * 1024;

/// A checked manifest.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    /// When the content manager made it. No part of the release's identity.
    pub(crate) created: SystemTime,
    /// The site that it is meant for, if its publisher says so. No part of the release's identity either.
    pub(crate) site: Option<Site>,
    /// In the order in which they were listed.
    pub(crate) files: Vec<ManifestFile>,
}

/// One file of a release.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(expecting = "an object with path, size, sha256 and mode")]
pub(crate) struct ManifestFile {
    /// Where it lies in the release.
    #[serde(deserialize_with = "path", serialize_with = "text")]
    pub(crate) path: ReleasePath,
    /// Its length in bytes.
    pub(crate) size: u64,
    /// The SHA-256 of its content.
    #[serde(rename = "sha256", deserialize_with = "digest", serialize_with = "text")]
    pub(crate) digest: Digest,
    #[serde(deserialize_with = "mode", serialize_with = "text")]
    pub(crate) mode: FileMode,
    /// Where to fetch it, relative to the manifest, if not at its path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<Box<str>>,
}

/// Why a manifest was refused: the field, and what is wrong with it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("manifest refused: {0}")]
pub(crate) struct ManifestError(String);

/// The JSON as it is on the wire. Each file is checked as it is read, so that no second list of them is ever in memory.
#[derive(Deserialize)]
#[serde(expecting = "an object with format, created and files")]
struct Wire {
    format: String,
    created: String,
    site: Option<String>,
    files: Vec<ManifestFile>,
}

/// A string of the JSON: copied only where it has escapes.
#[derive(Deserialize)]
struct Text<'t>(#[serde(borrow)] Cow<'t, str>);

fn path<'de, D: Deserializer<'de>>(field: D) -> Result<ReleasePath, D::Error> {
    let Text(text) = Text::deserialize(field)?;
    ReleasePath::parse(&text)
        .map_err(|error| D::Error::custom(format!("\"{}\" is refused: {error}", escaped(&text))))
}

fn digest<'de, D: Deserializer<'de>>(field: D) -> Result<Digest, D::Error> {
    let Text(text) = Text::deserialize(field)?;
    Digest::parse(&text).ok_or_else(|| D::Error::custom("it is not 64 lower-case hexadecimal digits"))
}

fn mode<'de, D: Deserializer<'de>>(field: D) -> Result<FileMode, D::Error> {
    let Text(text) = Text::deserialize(field)?;
    let rule =
        || D::Error::custom(format!("\"{}\" is not four octal digits from 0400 to 0777", escaped(&text)));
    FileMode::parse(&text).ok_or_else(rule)
}

fn text<S: Serializer>(value: &impl Display, field: S) -> Result<S::Ok, S::Error> {
    field.collect_str(value)
}

impl ManifestFile {
    /// What is in it, and what may be done with it: two files that have this in common can be one.
    pub(crate) fn content(&self) -> (Digest, FileMode) {
        (self.digest, self.mode)
    }
}

impl Manifest {
    /// Reads and checks a manifest.
    pub(crate) fn parse(json: &[u8], limits: &Limits) -> Result<Self, ManifestError> {
        check(serde_json::from_slice(json).map_err(|_| Self::malformed(json))?, limits)
    }

    /// Reads and checks a manifest of any size. The text of a large one is given back piece by piece on the way.
    pub(crate) fn consume(json: Vec<u8>, limits: &Limits) -> Result<Self, ManifestError> {
        if json.len() as u64 > LARGE_MANIFEST {
            Self::read(Pieces::of(json), limits)
        } else {
            Self::parse(&json, limits)
        }
    }

    /// Reads a manifest that is too large to be in memory as text and as what it says at the same time. Slower than
    /// [`Manifest::parse`].
    pub(crate) fn read(json: impl Read, limits: &Limits) -> Result<Self, ManifestError> {
        let mut reader = serde_json::Deserializer::from_reader(io::BufReader::with_capacity(PIECE, json));
        let wire = serde_path_to_error::deserialize(&mut reader).map_err(named)?;
        reader.end().map_err(|error| ManifestError(error.to_string()))?;
        check(wire, limits)
    }

    /// Refuses a manifest of so many bytes where it would take more memory than the process may have. What was parsed takes up to
    /// one and a quarter of the text; while a release is planned, an earlier one's manifest is in memory as well.
    pub(crate) fn check_memory(json: u64, limit: Option<u64>) -> Result<(), ManifestError> {
        let need = (json / 2).saturating_mul(5).saturating_add(BASE_MEMORY);
        match limit {
            Some(limit) if need > limit => {
                let [json, need, limit] = [json, need, limit].map(bytesize::ByteSize);
                Err(ManifestError(format!(
                    "it has {json}, and following it takes about {need} of memory, more than this container's limit of \
                     {limit}; raise that limit, or split the content"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Reads it again, this time keeping track of where it is: a good manifest should not pay for that.
    fn malformed(json: &[u8]) -> ManifestError {
        let mut reader = serde_json::Deserializer::from_slice(json);
        match serde_path_to_error::deserialize::<_, Wire>(&mut reader) {
            Ok(_) => {
                let error = reader.end().err();
                ManifestError(error.map_or_else(|| "it is not JSON".to_owned(), |error| error.to_string()))
            }
            Err(error) => named(error),
        }
    }

    /// The release that these files are.
    pub(crate) fn id(&self) -> ReleaseId {
        ReleaseId::of(self.files.iter().map(|file| (file.digest, file.mode, &file.path)))
    }

    pub(crate) fn total_size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Every directory that the files lie in, each after the one that holds it.
    pub(crate) fn directories(&self) -> Vec<&str> {
        let all: HashSet<&str> = self.files.iter().flat_map(|file| file.path.ancestors()).collect();
        let mut sorted: Vec<&str> = all.into_iter().collect();
        sorted.sort_unstable();
        sorted
    }

    /// Refuses what has more directories than a release may have.
    pub(crate) fn check_directories(&self, limits: &Limits) -> Result<(), String> {
        let mut found = HashSet::new();
        for directory in self.files.iter().flat_map(|file| file.path.ancestors()) {
            if found.insert(directory) && found.len() > limits.directories {
                let limit = limits.directories;
                return Err(format!("they lie in more than --max-directories {limit} directories"));
            }
        }
        Ok(())
    }

    /// Writes it as JSON, one file a line, for people who read or compare it.
    pub(crate) fn write(&self, mut out: impl std::io::Write) -> std::io::Result<()> {
        let created = humantime::format_rfc3339_micros(self.created);
        write!(out, "{{\"format\": \"{FORMAT}\", \"created\": \"{created}\", ")?;
        if let Some(site) = &self.site {
            out.write_all(b"\"site\": ")?;
            serde_json::to_writer(&mut out, site.as_str())?;
            out.write_all(b", ")?;
        }
        out.write_all(b"\"files\": [")?;
        for (index, file) in self.files.iter().enumerate() {
            out.write_all(if index == 0 { b"\n" } else { b",\n" })?;
            serde_json::to_writer(&mut out, file)?;
        }
        out.write_all(b"\n]}\n")
    }
}

/// Text whose memory is given back while it is read. In one piece it would stay in the process even after it is dropped: the C
/// library gives back only what lies at the end of its heap, and the values that were read lie behind it.
struct Pieces {
    /// The first one last.
    pieces: Vec<Vec<u8>>,
    /// How much of it was read.
    read: usize,
}

impl Pieces {
    fn of(mut text: Vec<u8>) -> Self {
        let mut pieces = Vec::new();
        while !text.is_empty() {
            pieces.push(text.split_off((text.len() - 1) / PIECE * PIECE));
            text.shrink_to_fit();
        }
        Self { pieces, read: 0 }
    }
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.pieces.last() else { return Ok(0) };
        let count = (&piece[self.read..]).read(out)?;
        self.read += count;
        if self.read == piece.len() {
            self.pieces.pop();
            self.read = 0;
        }
        Ok(count)
    }
}

/// Why JSON is no manifest: the field, and what is wrong with it.
fn named(error: serde_path_to_error::Error<serde_json::Error>) -> ManifestError {
    let field = error.path().to_string();
    let why = error.into_inner().to_string();
    match field.as_str() {
        "." => ManifestError(escaped(&why).to_string()),
        // A key of the publisher's can be part of the field's name.
        _ => ManifestError(escaped(&format!("{field}: {why}")).to_string()),
    }
}

fn check(wire: Wire, limits: &Limits) -> Result<Manifest, ManifestError> {
    let refusal = |field: &str, rule: String| ManifestError(format!("{field}: {rule}"));
    if wire.format != FORMAT {
        return Err(refusal(
            "format",
            format!("it is \"{}\", and this version reads {FORMAT:?}", escaped(&wire.format)),
        ));
    }
    let created = timestamp::parse(&wire.created)
        .map_err(|why| refusal("created", format!("\"{}\" is refused: {why}", escaped(&wire.created))))?;
    let site = wire.site.as_deref().map(Site::parse).transpose().map_err(|why| refusal("site", why))?;
    if wire.files.is_empty() {
        // A content manager that lost its content must not take ours.
        return Err(refusal("files", "it is empty, and an empty release is never published".to_owned()));
    }
    if wire.files.len() > limits.files {
        return Err(refusal(
            "files",
            format!("{} are more than --max-files {}", wire.files.len(), limits.files),
        ));
    }
    let mut total: u64 = 0;
    for (index, file) in wire.files.iter().enumerate() {
        limits
            .check_size(&file.path, file.size)
            .map_err(|rule| refusal(&format!("files[{index}].size"), rule))?;
        total = total.saturating_add(file.size);
    }
    if total > limits.size {
        return Err(refusal(
            "files",
            format!("{total} bytes together are more than --max-size {}", limits.size),
        ));
    }
    let files = wire.files;
    if let Err((index, conflict)) = disjoint(&files, |file| &file.path) {
        return Err(refusal(&format!("files[{index}].path"), format!("{} {conflict}", files[index].path)));
    }
    let manifest = Manifest { created, site, files };
    manifest.check_directories(limits).map_err(|rule| refusal("files", rule))?;
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { manifest: 1 << 20, files: 3, directories: 3, file_size: 100, size: 150, min_free: 0 };
    const SHA: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn with(files: &str) -> String {
        format!(r#"{{"format":"sidecar-manifest/1","created":"2026-11-23T18:00:00Z","files":[{files}]}}"#)
    }

    fn file(path: &str, size: u64) -> String {
        format!(r#"{{"path":"{path}","size":{size},"sha256":"{SHA}","mode":"0644"}}"#)
    }

    fn refusal(json: &str) -> String {
        Manifest::parse(json.as_bytes(), &LIMITS).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let manifest =
            Manifest::parse(with(&[file("a/b", 1), file("ü \\\"", 2)].join(",")).as_bytes(), &LIMITS);
        // A quotation mark is fine in a path, a backslash is only its JSON escape.
        let manifest = manifest.unwrap();
        let mut json = Vec::new();
        manifest.write(&mut json).unwrap();
        let again = Manifest::parse(&json, &LIMITS).unwrap();
        assert_eq!(again.id(), manifest.id());
        assert_eq!(again.created, manifest.created);
        assert_eq!(again.files[1].path.as_str(), "ü \"");
        assert_eq!(again.total_size(), 3);
        assert_eq!(again.directories(), ["a"]);
    }

    #[test]
    fn every_refusal_names_the_field() {
        for (json, field) in [
            (String::new(), "EOF"),
            ("[]".to_owned(), "expected an object with format"),
            (r#"{"format":"sidecar-manifest/1"}"#.to_owned(), "created"),
            (with("").replace("manifest/1", "manifest/2"), "format: it is \"sidecar-manifest/2\""),
            (with("").replace("18:00", "25:00"), "created: "),
            (with(""), "files: it is empty"),
            (with(&file("a", 1)) + "x", "trailing"),
            (with(&file("../a", 1)), "files[0].path: \"../a\" is refused: it has a '.' or '..' segment"),
            (with(&[file("a", 1), file("b", 101)].join(",")), "files[1].size: b has 101 bytes"),
            (with(&[file("a", 1), file("a", 1)].join(",")), "files[1].path: a is listed twice"),
            (with(&[file("a", 1), file("a/b", 1)].join(",")), "files[1].path: a/b lies beneath"),
            (with(&[file("a", 80), file("b", 80)].join(",")), "files: 160 bytes together"),
            (with(&file("a/b/c/d/e", 1)), "files: they lie in more than --max-directories 3"),
            (with(&["a", "b", "c", "d"].map(|path| file(path, 1)).join(",")), "files: 4 are more"),
            (with(&file("a", 1)).replace(SHA, &SHA[1..]), "files[0].sha256: "),
            (with(&file("a", 1)).replace("0644", "4644"), "files[0].mode: \"4644\" is not four octal digits"),
            (with(&file("a", 1)).replace(":1,", ":-1,"), "files[0].size: "),
            (with(&file("a", 1)).replace(":1,", ":\"1\","), "files[0].size: "),
            (with(&file("a", 1)).replace("sha256", "sha1"), "files[0]"),
        ] {
            let refusal = refusal(&json);
            assert!(refusal.starts_with("manifest refused: "), "{refusal}");
            assert!(refusal.contains(field), "{refusal:?} should name {field:?}");
        }
    }

    #[test]
    fn what_does_not_fit_into_memory_is_refused_by_name() {
        const MIB: u64 = 1 << 20;
        assert_eq!(Manifest::check_memory(u64::MAX, None), Ok(()));
        assert_eq!(Manifest::check_memory(18 * MIB, Some(64 * MIB)), Ok(()));
        let refusal = Manifest::check_memory(32 * MIB, Some(64 * MIB)).unwrap_err().to_string();
        for said in ["manifest refused", "32.0 MiB", "limit of 64.0 MiB", "raise"] {
            assert!(refusal.contains(said), "{said} is missing in {refusal}");
        }
    }

    #[test]
    fn a_manifest_that_is_read_is_the_one_that_is_parsed() {
        let json = with(&[file("a/b", 1), file("c", 2)].join(","));
        let [read, parsed] =
            [Manifest::read(json.as_bytes(), &LIMITS), Manifest::parse(json.as_bytes(), &LIMITS)];
        assert_eq!(read.unwrap().id(), parsed.unwrap().id());
        let wrong = [with(&file("../a", 1)), with(&file("a", 1)) + "x", "{}".to_owned(), String::new()];
        for json in wrong {
            let refusals =
                [Manifest::read(json.as_bytes(), &LIMITS), Manifest::parse(json.as_bytes(), &LIMITS)];
            let [read, parsed] = refusals.map(|refusal| refusal.unwrap_err().to_string());
            // Where they end a value, the two count differently.
            let why = |refusal: &str| refusal.split(" at line").next().map(str::to_owned);
            assert_eq!(why(&read), why(&parsed));
        }
    }

    #[test]
    fn the_pieces_of_a_text_are_the_text() {
        for size in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 7] {
            let text: Vec<u8> = (0..=250).cycle().take(size).collect();
            let pieces = Pieces::of(text.clone());
            assert!(pieces.pieces.iter().all(|piece| piece.capacity() <= PIECE));
            let mut read = Vec::new();
            io::BufReader::with_capacity(7, pieces).read_to_end(&mut read).unwrap();
            assert_eq!(read, text);
        }
    }

    #[test]
    fn a_huge_total_does_not_overflow() {
        let limits = Limits { file_size: u64::MAX, ..LIMITS };
        let json = with(&[file("a", u64::MAX), file("b", u64::MAX)].join(","));
        assert!(Manifest::parse(json.as_bytes(), &limits).is_err());
    }
}
