//! What a published commit leaves behind for the next fetch: [`Known`].
//!
//! The server sends only what a commit has beyond the one that is published. The content of the others is in the release,
//! where it can be linked; missing are the trees that did not change, and which file of the release each of their ids
//! stands for. Both are in one file, `.git-objects/known` on the volume: a few dozen bytes for each file, and no history.
//!
//! It is a cache: whatever is wrong with it, the next fetch brings everything. So it is not synced, and ends with a digest.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::object_id::{ObjectFormat, ObjectId, ObjectKind};
use super::refs::Tip;
use crate::content::{Digest, FileMode, ReleaseId, ReleasePath};
use crate::crash_point::crash_point;
use crate::store::{
    Context as _, Volume, VolumeError, create_file, explained, open_directory, open_file, set_mode, unlink,
};

/// The directory on the volume.
const DIRECTORY_NAME: &str = ".git-objects";
/// The file in it, and the one that will take its place.
const FILE: &str = "known";
const NEXT: &str = "next";
const FORMAT: &str = "file-puller-git/1";

/// Which commit it is about, and under which rules it became which release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Published {
    format: String,
    /// What decides, besides the commit, what a release is: the source and the flags.
    pub(crate) origin: String,
    /// What was asked for: the commit, or an annotated tag. An earlier version has not noted it.
    #[serde(default)]
    wanted: String,
    pub(crate) commit: String,
    pub(crate) release: String,
}

impl Published {
    pub(crate) fn new(origin: &str, tip: &Tip, release: &ReleaseId) -> Self {
        Self {
            format: FORMAT.to_owned(),
            origin: origin.to_owned(),
            wanted: tip.wanted.to_string(),
            commit: tip.commit.to_string(),
            release: release.to_string(),
        }
    }

    /// Whether it is about the commit that this leads to.
    pub(crate) fn is_of(&self, tip: &Tip) -> bool {
        self.wanted == tip.wanted.to_string() || self.commit == tip.commit.to_string()
    }
}

/// The objects of a published commit.
pub(crate) struct Known {
    pub(crate) published: Published,
    volume: Arc<Volume>,
    file: File,
    /// Which trees and targets of symbolic links lie where in the file.
    objects: HashMap<ObjectId, (ObjectKind, u64, u32)>,
    blobs: HashMap<ObjectId, (Digest, u64)>,
    /// Where the release has which content, once that has been asked for.
    paths: OnceCell<HashMap<Digest, ReleasePath>>,
}

impl Known {
    /// Reads what an earlier sync left behind, if that is whole.
    pub(crate) fn load(volume: &Arc<Volume>) -> Option<Self> {
        let directory = open_directory(volume.root(), DIRECTORY_NAME).ok()?;
        let read = Self::read(volume, open_file(&directory, FILE).ok()?);
        if let Err(error) = &read {
            tracing::info!(%error, "{volume}/{DIRECTORY_NAME}/{FILE} cannot be used; the next fetch brings everything");
        }
        read.ok()
    }

    fn read(volume: &Arc<Volume>, file: File) -> io::Result<Self> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged");
        let end = file.metadata()?.len().checked_sub(TRAILER).ok_or_else(bad)?;
        check_digest(&file, end + 2)?;
        let mut length = [0; 2];
        file.read_exact_at(&mut length, end)?;
        let mut header = vec![0; usize::from(u16::from_be_bytes(length))];
        let records = end.checked_sub(header.len() as u64).ok_or_else(bad)?;
        file.read_exact_at(&mut header, records)?;
        let published: Published = serde_json::from_slice(&header)?;
        if published.format != FORMAT {
            return Err(bad());
        }
        (&file).rewind()?;
        let mut input = Counted { input: io::BufReader::new((&file).take(records)), at: 0 };
        let (mut objects, mut blobs) = (HashMap::new(), HashMap::new());
        while input.at < records {
            let [tag] = input.array()?;
            let format = if tag & SHA256 == 0 { ObjectFormat::Sha1 } else { ObjectFormat::Sha256 };
            let mut id = [0; 32];
            let id = &mut id[..format.id_len()];
            input.read_exact(id)?;
            let id = ObjectId::of_bytes(format, id).ok_or_else(bad)?;
            if tag & !SHA256 == FILE_RECORD {
                let digest = Digest::of_bytes(input.array()?);
                blobs.insert(id, (digest, u64::from_be_bytes(input.array()?)));
                continue;
            }
            let kind = if tag & !SHA256 == TREE_RECORD { ObjectKind::Tree } else { ObjectKind::Blob };
            let length = u32::from_be_bytes(input.array()?);
            objects.insert(id, (kind, input.at, length));
            io::copy(&mut (&mut input).take(length.into()), &mut io::sink())?;
        }
        let volume = Arc::clone(volume);
        Ok(Self { published, volume, file, objects, blobs, paths: OnceCell::new() })
    }

    /// Bytes of all its objects.
    pub(super) fn size(&self) -> u64 {
        let objects = self.objects.values().map(|(.., length)| u64::from(*length));
        let blobs = self.blobs.values().map(|(_, size)| *size);
        objects.chain(blobs).fold(0, u64::saturating_add)
    }

    /// The content of a tree, or the target of a symbolic link.
    pub(super) fn object(&self, id: &ObjectId) -> Result<Option<Vec<u8>>, VolumeError> {
        let Some((_, at, length)) = self.objects.get(id) else { return Ok(None) };
        let mut content = vec![0; *length as usize];
        let read = self.file.read_exact_at(&mut content, *at);
        read.context(|| format!("read {}/{DIRECTORY_NAME}/{FILE}", self.volume))?;
        Ok(Some(content))
    }

    /// What kind of object this is, if its content is in the file.
    pub(super) fn kind(&self, id: &ObjectId) -> Option<ObjectKind> {
        self.objects.get(id).map(|(kind, ..)| *kind)
    }

    /// The content of a file of the release, and its size.
    pub(super) fn open(&self, id: &ObjectId) -> Option<(File, u64)> {
        let (digest, size) = self.blob(id)?;
        let release = ReleaseId::parse(&self.published.release)?;
        let paths = self.paths.get_or_init(|| {
            let files = self.volume.manifest(&release).map(|manifest| manifest.files).unwrap_or_default();
            files.into_iter().map(|file| (file.digest, file.path)).collect()
        });
        let tree = self.volume.open_release(&release).ok()?;
        let file = open_file(&tree, paths.get(&digest)?.as_str()).ok()?;
        (file.metadata().ok()?.len() == size).then_some((file, size))
    }

    /// What a file's content is in the release.
    pub(super) fn blob(&self, id: &ObjectId) -> Option<(Digest, u64)> {
        self.blobs.get(id).copied()
    }
}

/// The content of a tree.
const TREE_RECORD: u8 = 0;
/// The digest and the size of a file.
const FILE_RECORD: u8 = 2;
/// The target of a symbolic link.
const LINK_RECORD: u8 = 4;
/// Set where the id that follows is a SHA-256.
const SHA256: u8 = 1;
/// Behind the header: its length, and the digest of all before.
const TRAILER: u64 = 2 + 32;

/// Writes what the next fetch will know, while the release is listed: records, then the header, which is known last.
#[derive(Debug)]
pub(crate) struct KnownWriter {
    out: Hashed<BufWriter<File>>,
    directory: OwnedFd,
    volume: Arc<Volume>,
}

impl KnownWriter {
    pub(super) fn begin(volume: &Arc<Volume>) -> Result<Self, VolumeError> {
        let directory = volume.closed_directory(DIRECTORY_NAME)?;
        let file = new_file(&directory, volume.closed_file_mode())
            .map_err(|error| explained(error, directory.as_fd()));
        let file = file.context(|| writing(volume))?;
        crash_point();
        let out = Hashed { out: BufWriter::new(file), hasher: Sha256::new() };
        Ok(Self { out, directory, volume: Arc::clone(volume) })
    }

    pub(super) fn tree(&mut self, id: &ObjectId, content: &[u8]) -> Result<(), VolumeError> {
        self.content(TREE_RECORD, id, content)
    }

    pub(super) fn link(&mut self, id: &ObjectId, target: &[u8]) -> Result<(), VolumeError> {
        self.content(LINK_RECORD, id, target)
    }

    fn content(&mut self, tag: u8, id: &ObjectId, content: &[u8]) -> Result<(), VolumeError> {
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        self.record(tag, id, &[&length.to_be_bytes(), content])
    }

    /// Notes what a file's content is.
    pub(super) fn blob(&mut self, id: &ObjectId, digest: &Digest, size: u64) -> Result<(), VolumeError> {
        self.record(FILE_RECORD, id, &[digest.as_bytes(), &size.to_be_bytes()])
    }

    fn record(&mut self, tag: u8, id: &ObjectId, parts: &[&[u8]]) -> Result<(), VolumeError> {
        let tag = if id.format() == ObjectFormat::Sha256 { tag | SHA256 } else { tag };
        let written =
            [&[tag], id.as_bytes()].iter().chain(parts).try_for_each(|part| self.out.write_all(part));
        written.context(|| writing(&self.volume))
    }

    /// Puts it in place, now that the release is.
    pub(crate) fn finish(self, published: &Published) -> Result<(), VolumeError> {
        let Self { mut out, directory, volume } = self;
        let mut end = || -> io::Result<()> {
            let header = serde_json::to_vec(published)?;
            let length = u16::try_from(header.len()).map_err(io::Error::other)?;
            out.write_all(&header)?;
            out.write_all(&length.to_be_bytes())?;
            let digest = out.hasher.clone().finalize();
            out.write_all(&digest)?;
            out.flush()?;
            rustix::fs::renameat(&directory, NEXT, &directory, FILE)?;
            Ok(())
        };
        end().context(|| writing(&volume))?;
        crash_point();
        Ok(())
    }
}

fn writing(volume: &Volume) -> String {
    format!("write {volume}/{DIRECTORY_NAME}/{FILE}")
}

/// Makes the file anew: the one that a process has left behind may be another user's.
fn new_file(directory: &OwnedFd, mode: FileMode) -> io::Result<File> {
    unlink(directory, NEXT)?;
    let file = File::from(create_file(directory, NEXT)?);
    set_mode(&file, mode)?;
    Ok(file)
}

fn check_digest(mut file: &File, content: u64) -> io::Result<()> {
    let mut hashed = Hashed { out: io::sink(), hasher: Sha256::new() };
    io::copy(&mut Read::by_ref(&mut file).take(content), &mut hashed)?;
    let mut expected = [0; 32];
    file.read_exact_at(&mut expected, content)?;
    if hashed.hasher.finalize()[..] != expected {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is damaged"));
    }
    Ok(())
}

#[derive(Debug)]
struct Hashed<W> {
    out: W,
    hasher: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Knows how far it has been read.
struct Counted<R> {
    input: R,
    at: u64,
}

impl<R: Read> Counted<R> {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut array = [0; N];
        self.read_exact(&mut array)?;
        Ok(array)
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}
