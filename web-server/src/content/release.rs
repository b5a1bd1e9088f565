//! A release as its publisher left it: its name, its directory, when it was published, and what the publisher says of its files.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::content::digest::Digest;
use crate::content::dir::Directory;

/// The format of manifests that this version reads and writes.
pub(super) const FORMAT: &str = "sidecar-manifest/1";

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

/// Which link, as it was made or renamed: a publisher that makes it again says that there is something to look at, also where it
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

/// A published release.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    /// What the link says.
    pub(crate) id: ReleaseId,
    /// Which link says it.
    pub(crate) link: LinkStamp,
    /// Where the release is. Its manifest and its signature are beside it.
    pub(crate) path: PathBuf,
    /// The directory that the link named.
    pub(crate) directory: Arc<Directory>,
    /// When it was published, which is when the link was made.
    pub(crate) since: SystemTime,
}

impl Release {
    /// Whether it is the same directory, by the same link.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let identity = |release: &Self| (release.link, release.directory.identity());
        self.id == other.id && identity(self) == identity(other)
    }
}

/// The path of what is beside a release: its manifest, and the manifest's signature.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// The manifest that file-puller leaves beside a release (docs/contract.md, `sidecar-manifest/1`).
#[derive(Debug)]
pub(super) struct ManifestBeside(File);

impl ManifestBeside {
    /// The manifest beside a release. None is no error: not every publisher writes one, and digests can be worked out.
    pub(super) fn of(release: &Path) -> Option<Self> {
        File::open(with_suffix(release, ".json")).ok().map(Self)
    }

    /// Tells of each file: its path, size and digest. A manifest that cannot be read says nothing, and the files are hashed.
    pub(super) fn each(self, mut tell: impl FnMut(&str, u64, Digest)) -> io::Result<()> {
        let tell = |file: FileLine| {
            if let Some(digest) = Digest::from_hex(&file.sha256) {
                tell(&file.path, file.size, digest);
            }
        };
        let mut document = Document { format: None, tell };
        let mut reader = serde_json::Deserializer::from_reader(BufReader::new(self.0));
        match reader.deserialize_map(&mut document) {
            Err(error) if error.is_io() => Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "the manifest beside the release is unreadable, so files are hashed");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// Tells of each file of a manifest that is in memory.
///
/// # Errors
/// Where it is none, or of another format.
pub(super) fn each_file(manifest: &[u8], tell: impl FnMut(FileLine)) -> io::Result<()> {
    #[derive(Deserialize)]
    struct Head {
        format: String,
    }
    // Publishers are free in the order of the fields.
    let Head { format } = serde_json::from_slice(manifest)?;
    if format != FORMAT {
        return Err(io::Error::other(format!("its format is {format:?}, not {FORMAT:?}")));
    }
    let mut document = Document { format: Some(format), tell };
    let mut reader = serde_json::Deserializer::from_slice(manifest);
    reader.deserialize_map(&mut document)?;
    Ok(reader.end()?)
}

/// Reads the manifest as a stream: a release of a hundred thousand files has one of thirty megabytes.
struct Document<F> {
    format: Option<String>,
    tell: F,
}

/// What is read of a file.
#[derive(Deserialize)]
pub(super) struct FileLine {
    pub(super) path: String,
    size: u64,
    pub(super) sha256: String,
    pub(super) url: Option<String>,
}

impl<'de, F: FnMut(FileLine)> Visitor<'de> for &mut Document<F> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a manifest and its list of files")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "format" => self.format = Some(map.next_value()?),
                // The format comes first, as file-puller writes it; another one's files are not looked at.
                "files" if self.format.as_deref() == Some(FORMAT) => map.next_value_seed(&mut *self)?,
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut files: A) -> Result<(), A::Error> {
        while let Some(file) = files.next_element()? {
            (self.tell)(file);
        }
        Ok(())
    }
}

/// The list of files.
impl<'de, F: FnMut(FileLine)> DeserializeSeed<'de> for &mut Document<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_file_by_file_and_another_format_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let said = |text: &str| {
            std::fs::write(dir.path().join("r.json"), text).unwrap();
            let mut said = Vec::new();
            let manifest = ManifestBeside::of(&dir.path().join("r")).unwrap();
            manifest.each(|path, size, _| said.push((path.to_owned(), size))).unwrap();
            said
        };
        let file = format!(r#"{{"path": "a", "size": 3, "sha256": "{}", "mode": "0644"}}"#, "0".repeat(64));
        let manifest = format!(r#"{{"format": "sidecar-manifest/1", "created": "now", "files": [{file}]}}"#);
        assert_eq!(said(&manifest), [("a".to_owned(), 3)]);
        assert_eq!(said(&manifest.replace("/1", "/2")), []);
        assert_eq!(said("{"), []);
    }
}
