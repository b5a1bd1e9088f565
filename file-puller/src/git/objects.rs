//! The objects of one fetch, while they are put together into a release: [`Objects`].
//!
//! A blob becomes a file on the volume the moment it arrives, hashed for Git and for the release in one pass, and is hard-linked
//! into the release later: it is written once and never held in memory. Trees, commits and tags go one behind another
//! into a scratch file. So memory holds at most 300 bytes for each object, however large it is.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::error::GitError;
use super::known::Known;
use super::object_id::{Hasher, ObjectFormat, ObjectId, ObjectKind};
use crate::content::FileMode;
use crate::fetch::Arrived;
use crate::store::{Context as _, FileNumber, Unpacked, UnpackedWriter, VolumeError};

/// Bytes that are gathered before they are hashed and written.
const BUFFER: usize = 64 * 1024;
/// The largest object besides a blob: a directory of 100,000 files with long names has 29 MB.
const MAX_TREE: u64 = 32 * 1024 * 1024;
/// The largest base of a delta that is read into memory rather than piece by piece.
const HELD: u64 = 256 * 1024;

/// What was fetched, and what is known from before.
pub(super) struct Objects {
    format: ObjectFormat,
    unpacked: Unpacked,
    spool: File,
    spooled: u64,
    stored: Vec<Stored>,
    by_id: HashMap<ObjectId, ObjectIndex>,
    known: Option<Known>,
}

/// Stands for an object that was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectIndex(u32);

#[derive(Debug, Clone, Copy)]
struct Stored {
    kind: ObjectKind,
    size: u64,
    place: Place,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// From this byte of the scratch file on.
    Spool(u64),
    File(FileNumber),
}

/// An object that is being written.
pub(super) struct ObjectWriter {
    kind: ObjectKind,
    size: u64,
    written: u64,
    hasher: Hasher,
    buffer: Vec<u8>,
    /// A blob's file; other objects go into the spool.
    file: Option<UnpackedWriter>,
}

/// What a delta is applied to.
pub(super) enum Base {
    Held(Vec<u8>),
    File(File, u64),
}

impl Objects {
    pub(super) fn new(
        format: ObjectFormat,
        unpacked: Unpacked,
        known: Option<Known>,
    ) -> Result<Self, VolumeError> {
        let spool = unpacked.scratch("objects")?;
        Ok(Self { format, unpacked, spool, spooled: 0, stored: Vec::new(), by_id: HashMap::new(), known })
    }

    pub(super) fn format(&self) -> ObjectFormat {
        self.format
    }

    pub(super) fn into_unpacked(self) -> Unpacked {
        self.unpacked
    }

    /// Begins an object of exactly this size.
    pub(super) fn begin(&mut self, kind: ObjectKind, size: u64) -> Result<ObjectWriter, GitError> {
        if kind != ObjectKind::Blob && size > MAX_TREE {
            return Err(GitError::refused(format!(
                "a {kind:?} object has {size} bytes, more than {MAX_TREE}"
            )));
        }
        let file = if kind == ObjectKind::Blob { Some(self.unpacked.create()?) } else { None };
        let hasher = Hasher::of_object(self.format, kind, size);
        Ok(ObjectWriter { kind, size, written: 0, hasher, buffer: Vec::new(), file })
    }

    pub(super) fn write(&self, writer: &mut ObjectWriter, bytes: &[u8]) -> Result<(), GitError> {
        writer.written += bytes.len() as u64;
        if writer.written > writer.size {
            return Err(GitError::refused("an object is larger than it says".to_owned()));
        }
        writer.buffer.extend_from_slice(bytes);
        if writer.buffer.len() >= BUFFER { self.flush(writer) } else { Ok(()) }
    }

    fn flush(&self, writer: &mut ObjectWriter) -> Result<(), GitError> {
        writer.hasher.update(&writer.buffer);
        if let Some(file) = &mut writer.file {
            file.write(&writer.buffer)?;
        } else {
            let at = self.spooled + writer.written - writer.buffer.len() as u64;
            self.spool.write_all_at(&writer.buffer, at).context(|| self.spool_named("write"))?;
        }
        writer.buffer.clear();
        Ok(())
    }

    /// Makes it an object, now that all of it has been written.
    pub(super) fn finish(&mut self, mut writer: ObjectWriter) -> Result<ObjectIndex, GitError> {
        if writer.written != writer.size {
            return Err(GitError::refused("an object is smaller than it says".to_owned()));
        }
        self.flush(&mut writer)?;
        let ObjectWriter { kind, size, hasher, file, .. } = writer;
        let place = if let Some(file) = file {
            Place::File(self.unpacked.keep(file)?)
        } else {
            let at = self.spooled;
            self.spooled += size;
            Place::Spool(at)
        };
        let id = hasher.id().map_err(|collision| GitError::refused(collision.to_string()))?;
        let too_many = |_| GitError::refused("there are more objects than a pack can have".to_owned());
        let index = ObjectIndex(u32::try_from(self.stored.len()).map_err(too_many)?);
        self.stored.push(Stored { kind, size, place });
        self.by_id.insert(id, index);
        Ok(index)
    }

    /// How many were fetched.
    pub(super) fn count(&self) -> usize {
        self.stored.len()
    }

    /// The object with this id, if it was fetched.
    pub(super) fn fetched(&self, id: &ObjectId) -> Option<ObjectIndex> {
        self.by_id.get(id).copied()
    }

    /// An object as the base of a delta: its kind, its size and its content. It may be one that was published before.
    pub(super) fn base_of(&self, id: &ObjectId) -> Result<(ObjectKind, u64, Base), GitError> {
        if let Some(index) = self.fetched(id) {
            return self.base(index);
        }
        let Some(known) = &self.known else { return Err(GitError::Missing(*id)) };
        if let (Some(kind), Some(content)) = (known.kind(id), known.object(id)?) {
            return Ok((kind, content.len() as u64, Base::Held(content)));
        }
        let (file, size) = known.open(id).ok_or(GitError::Missing(*id))?;
        Ok((ObjectKind::Blob, size, Base::File(file, 0)))
    }

    /// An object that was fetched, as the base of a delta.
    pub(super) fn base(&self, index: ObjectIndex) -> Result<(ObjectKind, u64, Base), GitError> {
        let Stored { kind, size, place } = *self.stored(index);
        let (file, at) = match place {
            Place::Spool(at) => (self.spool.try_clone().context(|| self.spool_named("open"))?, at),
            Place::File(file) => (self.unpacked.open(file)?, 0),
        };
        let base = Base::File(file, at);
        if size > HELD {
            return Ok((kind, size, base));
        }
        let mut held = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        base.read_at(&mut held, 0).context(|| self.spool_named("read"))?;
        Ok((kind, size, Base::Held(held)))
    }

    /// The content of an object of this kind: a commit, a tag or a tree.
    pub(super) fn read(&self, id: &ObjectId, kind: ObjectKind) -> Result<Vec<u8>, GitError> {
        if let Some(index) = self.fetched(id) {
            let Stored { kind: is, size, place } = *self.stored(index);
            let Place::Spool(at) = place else {
                return Err(GitError::refused(format!("object {id} is a {is:?}, not a {kind:?}")));
            };
            if is != kind {
                return Err(GitError::refused(format!("object {id} is a {is:?}, not a {kind:?}")));
            }
            let mut content = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
            self.spool.read_exact_at(&mut content, at).context(|| self.spool_named("read"))?;
            return Ok(content);
        }
        let known = self.known.as_ref().filter(|_| kind == ObjectKind::Tree);
        match known.and_then(|known| known.object(id).transpose()) {
            Some(content) => Ok(content?),
            None => Err(GitError::Missing(*id)),
        }
    }

    /// Which kind an object has that was fetched.
    pub(super) fn kind_of(&self, id: &ObjectId) -> Option<ObjectKind> {
        self.fetched(id).map(|index| self.stored(index).kind)
    }

    /// A file of this mode, as a release needs it.
    pub(super) fn file(&self, id: &ObjectId, mode: FileMode) -> Result<Arrived, GitError> {
        if let Some(index) = self.fetched(id) {
            let Stored { size, place: Place::File(file), .. } = *self.stored(index) else {
                return Err(GitError::refused(format!("object {id} is not a file's content")));
            };
            return Ok(Arrived { size, digest: self.unpacked.digest(file), mode, file: Some(file) });
        }
        let known = self.known.as_ref().and_then(|known| known.blob(id));
        known.map(|(digest, size)| Arrived { size, digest, mode, file: None }).ok_or(GitError::Missing(*id))
    }

    /// The whole of a small blob: the target of a symbolic link, or what may be a pointer to a large file.
    pub(super) fn small_blob(&self, id: &ObjectId, limit: u64) -> Result<Option<Vec<u8>>, GitError> {
        let Some(index) = self.fetched(id) else {
            let known = self.known.as_ref().map(|known| known.object(id)).transpose()?.flatten();
            return known.map(Some).ok_or(GitError::Missing(*id));
        };
        match self.base(index)? {
            (_, size, Base::Held(content)) if size <= limit => Ok(Some(content)),
            _ => Ok(None),
        }
    }

    fn stored(&self, index: ObjectIndex) -> &Stored {
        &self.stored[index.0 as usize]
    }

    fn spool_named(&self, verb: &str) -> String {
        format!("{verb} fetched objects on {}", self.unpacked.volume())
    }
}

impl Base {
    pub(super) fn read_at(&self, buffer: &mut [u8], at: u64) -> std::io::Result<()> {
        match self {
            Self::Held(content) => {
                let start = usize::try_from(at).unwrap_or(usize::MAX);
                let piece = start.checked_add(buffer.len()).and_then(|end| content.get(start..end));
                buffer.copy_from_slice(piece.ok_or(std::io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            Self::File(file, start) => file.read_exact_at(buffer, start + at),
        }
    }
}
