//! What lies at a source's URL: a manifest, or an archive, and how that is compressed; or a git repository or an image, which
//! the URL's scheme says.
//!
//! `--kind` says it, or the ending of the URL's path, or the first bytes of the answer, in this order. How an archive is
//! compressed is always told by its bytes, because many servers and proxies change that on the way.
//!
//! SECURITY: the kind decides which rules hold. A signature is of a manifest and a pinned digest of an archive, so with
//! `--public-key` bytes are never read as an archive, whatever they look like, and with `--digest` never as a manifest. And a
//! source that was of one kind does not become one of the other kind: an attacker who could do that would get past the rules that
//! an operator thinks of.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many first bytes are looked at: the header of a tar's first entry.
pub(crate) const PREFIX: usize = 512;

/// What a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The list of a release's files
    Manifest,
    /// All of them in one
    Archive,
    /// A git repository, over its smart HTTP protocol: `git+https://`
    #[value(skip)]
    Repository,
    /// An image or an artifact in an OCI registry: `oci://`
    #[value(skip)]
    Image,
}

/// What an answer's first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Manifest,
    Archive(Compression),
}

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not at all: `.tar`.
    None,
    /// `.tar.gz`, `.tgz`.
    Gzip,
    /// `.tar.zst`.
    Zstd,
}

/// Which kind is expected, and what says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// `--kind`.
    Flag(Kind),
    /// `--public-key`, which is for manifests.
    PublicKey,
    /// `--digest`, which is for archives.
    Digest,
    /// The URL: the ending of its path, or its scheme.
    Ending(Kind),
    /// An earlier answer.
    Seen(Kind),
}

/// An answer of another kind than is expected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WrongKind {
    pub(crate) found: Kind,
    pub(crate) expected: Expected,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Manifest => "a manifest",
            Self::Archive => "an archive",
            Self::Repository => "a git repository",
            Self::Image => "an image",
        })
    }
}

impl Kind {
    /// The value of `--kind`, which is also the noun.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Archive => "archive",
            Self::Repository => "repository",
            Self::Image => "image",
        }
    }

    /// What the ending of a URL's path says.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        let path = path.to_ascii_lowercase();
        let endings = [
            (".json", Self::Manifest),
            (".tar", Self::Archive),
            (".tar.gz", Self::Archive),
            (".tgz", Self::Archive),
            (".tar.zst", Self::Archive),
        ];
        endings.into_iter().find(|(ending, _)| path.ends_with(ending)).map(|(_, kind)| kind)
    }
}

impl Expected {
    /// What the command line says, the strongest first; and why it contradicts itself, where it does.
    pub(crate) fn from_flags(
        flag: Option<Kind>,
        ending: Option<Kind>,
        has_public_key: bool,
        has_digest: bool,
    ) -> Result<Option<Self>, &'static str> {
        if let Some(Kind::Repository | Kind::Image) = ending {
            if has_public_key {
                return Err(
                    "--public-key is for manifests; a git repository is held to --ref COMMIT, an image to name@sha256:…",
                );
            }
            if has_digest {
                return Err(
                    "--digest is for archives; a git repository is held to --ref COMMIT, an image to name@sha256:…",
                );
            }
            if flag.is_some() {
                return Err("--kind is for http:// and https://; git+https:// and oci:// say what they are");
            }
        }
        let said = flag.or(ending);
        if has_public_key && (said == Some(Kind::Archive) || has_digest) {
            return Err("--public-key is for manifests; an archive is held to --digest");
        }
        if has_digest && said == Some(Kind::Manifest) {
            return Err("--digest is for archives; a manifest is held to --public-key");
        }
        let demanded = has_public_key.then_some(Self::PublicKey).or(has_digest.then_some(Self::Digest));
        Ok(flag.map(Self::Flag).or(demanded).or(ending.map(Self::Ending)))
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::PublicKey => Kind::Manifest,
            Self::Digest => Kind::Archive,
            Self::Flag(kind) | Self::Ending(kind) | Self::Seen(kind) => kind,
        }
    }

    /// Holds an answer to it.
    pub(crate) fn admit(self, found: Kind) -> Result<(), WrongKind> {
        if found == self.kind() { Ok(()) } else { Err(WrongKind { found, expected: self }) }
    }
}

impl fmt::Display for WrongKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { found, expected } = self;
        match expected {
            Expected::Flag(kind) => write!(out, "it is {found}, and --kind says {}", kind.name()),
            Expected::PublicKey => {
                write!(out, "it is {found}, and --public-key accepts nothing but a signed manifest")
            }
            Expected::Digest => write!(out, "it is {found}, and --digest accepts nothing but that archive"),
            Expected::Ending(_) => {
                write!(
                    out,
                    "it is {found}, whatever its ending says; if that is right, add --kind {}",
                    found.name()
                )
            }
            Expected::Seen(kind) => write!(
                out,
                "it was {kind} before and is {found} now; if that is right, start again with --kind {}",
                found.name()
            ),
        }
    }
}

impl Content {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Manifest => Kind::Manifest,
            Self::Archive(_) => Kind::Archive,
        }
    }

    /// What bytes begin like, or `None` where they begin like neither.
    pub(crate) fn of(first: &[u8]) -> Option<Self> {
        if first.starts_with(&[0x1f, 0x8b]) {
            return Some(Self::Archive(Compression::Gzip));
        }
        if is_zstd(first) {
            return Some(Self::Archive(Compression::Zstd));
        }
        if is_tar(first) {
            return Some(Self::Archive(Compression::None));
        }
        // RFC 8259 allows white space before the object, and parsers a byte order mark.
        let text = first.strip_prefix("\u{feff}".as_bytes()).unwrap_or(first);
        text.trim_ascii_start().starts_with(b"{").then_some(Self::Manifest)
    }
}

/// A frame, or a skippable one before it (RFC 8878, section 3.1).
fn is_zstd(first: &[u8]) -> bool {
    match first {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => true,
        [magic, 0x2a, 0x4d, 0x18, ..] => magic & 0xf0 == 0x50,
        _ => false,
    }
}

/// The checksum of a tar's first header is right, or the tar is empty. Formats older than POSIX have no magic number.
fn is_tar(first: &[u8]) -> bool {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    let Some(header) = first.get(..PREFIX) else { return false };
    if header.iter().all(|byte| *byte == 0) {
        return true;
    }
    let written = std::str::from_utf8(&header[CHECKSUM])
        .ok()
        .and_then(|digits| u32::from_str_radix(digits.trim_matches(['\0', ' ']), 8).ok());
    // The field itself counts as spaces.
    let sum = header
        .iter()
        .enumerate()
        .map(|(at, byte)| u32::from(if CHECKSUM.contains(&at) { b' ' } else { *byte }));
    written == Some(sum.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(set_format: fn() -> tar::Header) -> Vec<u8> {
        let mut header = set_format();
        header.set_path("index.html").unwrap();
        header.set_size(5);
        header.set_mode(0o644);
        header.set_cksum();
        let mut tar = tar::Builder::new(Vec::new());
        tar.append(&header, &b"hello"[..]).unwrap();
        tar.into_inner().unwrap()
    }

    #[test]
    fn an_archive_is_known_by_its_first_bytes() {
        for format in [tar::Header::new_gnu, tar::Header::new_ustar, tar::Header::new_old] {
            assert_eq!(Content::of(&tar(format)), Some(Content::Archive(Compression::None)));
        }
        assert_eq!(Content::of(&[0; 1024]), Some(Content::Archive(Compression::None)), "an empty one");
        assert_eq!(Content::of(&[0x1f, 0x8b, 8]), Some(Content::Archive(Compression::Gzip)));
        assert_eq!(Content::of(&[0x28, 0xb5, 0x2f, 0xfd]), Some(Content::Archive(Compression::Zstd)));
        assert_eq!(Content::of(&[0x5c, 0x2a, 0x4d, 0x18]), Some(Content::Archive(Compression::Zstd)));
    }

    #[test]
    fn a_manifest_is_a_json_object() {
        for json in ["{}", " \r\n\t{\"format\"", "\u{feff}{"] {
            assert_eq!(Content::of(json.as_bytes()), Some(Content::Manifest));
        }
    }

    #[test]
    fn everything_else_is_neither() {
        let mut wrong_checksum = tar(tar::Header::new_gnu);
        wrong_checksum[0] ^= 1;
        for other in
            [&b""[..], b"<!doctype html>", b"[]", b"PK\x03\x04", b"BZh9", &[0xfd, b'7'], &wrong_checksum]
        {
            assert_eq!(Content::of(other), None);
        }
        assert_eq!(Content::of(&tar(tar::Header::new_gnu)[..511]), None);
    }

    #[test]
    fn the_strongest_word_counts() {
        let (manifest, archive) = (Some(Kind::Manifest), Some(Kind::Archive));
        let repository = Some(Kind::Repository);
        let of = Expected::from_flags;
        assert_eq!(of(None, None, false, false), Ok(None));
        assert_eq!(of(None, archive, false, false), Ok(Some(Expected::Ending(Kind::Archive))));
        assert_eq!(of(None, repository, false, false), Ok(Some(Expected::Ending(Kind::Repository))));
        assert_eq!(of(archive, manifest, false, false), Ok(Some(Expected::Flag(Kind::Archive))));
        assert_eq!(of(None, manifest, true, false), Ok(Some(Expected::PublicKey)));
        assert_eq!(of(archive, manifest, false, true), Ok(Some(Expected::Flag(Kind::Archive))));
        for wrong in [
            of(None, archive, true, false),
            of(archive, manifest, true, false),
            of(None, None, true, true),
            of(None, manifest, false, true),
            of(manifest, archive, false, true),
            of(None, repository, true, false),
            of(None, repository, false, true),
            of(archive, repository, false, false),
        ] {
            assert!(wrong.is_err());
        }
    }

    #[test]
    fn an_ending_says_it_too() {
        assert_eq!(Kind::of_path("/site/manifest.JSON"), Some(Kind::Manifest));
        for path in ["/a.tar", "/a.tar.gz", "/a.TGZ", "/archive/main.tar.zst"] {
            assert_eq!(Kind::of_path(path), Some(Kind::Archive));
        }
        assert_eq!(Kind::of_path("/repos/o/r/tarball/main"), None);
    }
}
