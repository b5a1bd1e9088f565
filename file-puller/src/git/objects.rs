//! The objects of one fetch, while they are put together into a release: [`Objects`].
//!
//! A blob becomes a file on the volume the moment it arrives, hashed for Git and for the release in one pass, and is moved into the
//! release later: it is written once and never held in memory. All other objects go one behind another into a scratch file.
//!
//! Where only a part of the repository is followed, the server sends all of it nevertheless. Then a small blob goes into the
//! scratch file as well, and becomes a file when the release asks for it: to make a file and to remove it again costs more.
//!
//! Memory holds at most 300 bytes for each object, however large it is.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::error::GitError;
use super::known::Known;
use super::object_id::{Hasher, ObjectFormat, ObjectId, ObjectKind};
use crate::content::FileMode;
use crate::fetch::Arrived;
use crate::store::{Context as _, FileNumber, Unpacked, UnpackedWriter, VolumeError};

/// What the scratch file is called.
const SPOOL: &str = "objects";
/// Bytes that are gathered before they are hashed and written.
const BUFFER: usize = 64 * 1024;
/// The largest object besides a blob: a directory of 100,000 files with long names has 29 MB.
const MAX_TREE: u64 = 32 * 1024 * 1024;
/// The largest blob that goes into the scratch file where only a part is followed.
pub(super) const SMALL: u64 = 4 * 1024;
/// The largest base of a delta that is read into memory rather than piece by piece.
const HELD: u64 = 256 * 1024;

/// What was fetched, and what is known from before.
pub(super) struct Objects {
    format: ObjectFormat,
    unpacked: Unpacked,
    spool: File,
    spooled: u64,
    /// The largest blob that goes there.
    small: u64,
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
    /// From this byte of the scratch file on. A blob there is a file as well once the release has asked for it.
    Spool(u64, Option<FileNumber>),
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
    /// Blobs up to the size `small` go into the scratch file.
    pub(super) fn new(
        format: ObjectFormat,
        unpacked: Unpacked,
        known: Option<Known>,
        small: u64,
    ) -> Result<Self, VolumeError> {
        let spool = unpacked.scratch(SPOOL)?;
        Ok(Self {
            format,
            unpacked,
            spool,
            spooled: 0,
            small,
            stored: Vec::new(),
            by_id: HashMap::new(),
            known,
        })
    }

    pub(super) fn format(&self) -> ObjectFormat {
        self.format
    }

    /// The files. All else goes: its space is needed for the release, and its bytes are not to be synced with that.
    pub(super) fn into_unpacked(self) -> Unpacked {
        self.unpacked.remove_scratch(SPOOL);
        self.unpacked
    }

    /// Begins an object of exactly this size.
    pub(super) fn begin(&mut self, kind: ObjectKind, size: u64) -> Result<ObjectWriter, GitError> {
        if kind != ObjectKind::Blob && size > MAX_TREE {
            return Err(GitError::refused(format!(
                "a {kind:?} object has {size} bytes, more than {MAX_TREE}"
            )));
        }
        let is_file = kind == ObjectKind::Blob && size > self.small;
        let file = if is_file { Some(self.unpacked.create()?) } else { None };
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
            Place::Spool(at, None)
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

    /// Bytes of all that a delta can build on without its being fetched.
    pub(super) fn published_size(&self) -> u64 {
        self.known.as_ref().map_or(0, Known::size)
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
        if let Place::Spool(at, _) = place
            && size <= HELD
        {
            return Ok((kind, size, Base::Held(self.spooled_at(at, size)?)));
        }
        let (file, at) = match place {
            Place::Spool(at, _) => (self.spool.try_clone().context(|| self.spool_named("open"))?, at),
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
            return match place {
                Place::Spool(at, _) if is == kind => self.spooled_at(at, size),
                _ => Err(GitError::refused(format!("object {id} is a {is:?}, not a {kind:?}"))),
            };
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
    pub(super) fn file(&mut self, id: &ObjectId, mode: FileMode) -> Result<Arrived, GitError> {
        let Some(index) = self.fetched(id) else {
            let known = self.known.as_ref().and_then(|known| known.blob(id));
            let known = known.map(|(digest, size)| Arrived { size, digest, mode, file: None });
            return known.ok_or(GitError::Missing(*id));
        };
        let Stored { kind, size, place } = *self.stored(index);
        let file = match place {
            _ if kind != ObjectKind::Blob => return Err(no_content(id)),
            Place::File(file) | Place::Spool(_, Some(file)) => file,
            Place::Spool(at, None) => {
                let content = self.spooled_at(at, size)?;
                let mut writer = self.unpacked.create_for_later(size)?;
                writer.write(&content)?;
                let file = self.unpacked.keep(writer)?;
                self.stored[index.0 as usize].place = Place::Spool(at, Some(file));
                file
            }
        };
        Ok(Arrived { size, digest: self.unpacked.digest(file), mode, file: Some(file) })
    }

    /// The whole of a small blob: the target of a symbolic link, or what may be a pointer to a large file.
    pub(super) fn small_blob(&self, id: &ObjectId, limit: u64) -> Result<Option<Vec<u8>>, GitError> {
        let Some(index) = self.fetched(id) else {
            let known = self.known.as_ref().filter(|known| known.kind(id) == Some(ObjectKind::Blob));
            let known = known.map(|known| known.object(id)).transpose()?.flatten();
            return known.map(Some).ok_or(GitError::Missing(*id));
        };
        let Stored { kind, size, .. } = *self.stored(index);
        if kind != ObjectKind::Blob {
            return Err(no_content(id));
        }
        match self.base(index)? {
            (.., Base::Held(content)) if size <= limit => Ok(Some(content)),
            _ => Ok(None),
        }
    }

    fn spooled_at(&self, at: u64, size: u64) -> Result<Vec<u8>, GitError> {
        let mut content = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        self.spool.read_exact_at(&mut content, at).context(|| self.spool_named("read"))?;
        Ok(content)
    }

    fn stored(&self, index: ObjectIndex) -> &Stored {
        &self.stored[index.0 as usize]
    }

    fn spool_named(&self, verb: &str) -> String {
        format!("{verb} fetched objects on {}", self.unpacked.volume())
    }
}

fn no_content(id: &ObjectId) -> GitError {
    GitError::refused(format!("object {id} is not a file's content"))
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::content::Digest;
    use crate::store::{DirectoryOptions, Volume};

    /// Objects, and the volume on which they arrive.
    struct Fetch {
        above: tempfile::TempDir,
        objects: Objects,
    }

    impl Fetch {
        fn new(small: u64) -> Self {
            let above = tempfile::tempdir().unwrap();
            let volume = Volume::open(&above.path().join("volume"), DirectoryOptions::default()).unwrap();
            let unpacked = Unpacked::begin(Arc::new(volume)).unwrap();
            let objects = Objects::new(ObjectFormat::Sha1, unpacked, None, small).unwrap();
            Self { above, objects }
        }

        fn add(&mut self, kind: ObjectKind, content: &[u8]) -> ObjectId {
            let mut writer = self.objects.begin(kind, content.len() as u64).unwrap();
            self.objects.write(&mut writer, content).unwrap();
            self.objects.finish(writer).unwrap();
            let mut hasher = Hasher::of_object(ObjectFormat::Sha1, kind, content.len() as u64);
            hasher.update(content);
            hasher.id().unwrap()
        }

        /// How many blobs are files.
        fn files(&self) -> usize {
            fn count(directory: &Path) -> usize {
                let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
                entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
            }
            // Two locks and the scratch file.
            count(&self.above.path().join("volume/.staging")) - 3
        }
    }

    #[test]
    fn a_small_blob_is_a_file_once_the_release_asks_for_it() {
        let mut fetch = Fetch::new(SMALL);
        let contents = [vec![b'x'; 4096], Vec::new(), b"short".to_vec()];
        let ids = contents.each_ref().map(|content| fetch.add(ObjectKind::Blob, content));
        assert_eq!(fetch.files(), 0);
        for (number, (id, content)) in ids.iter().zip(&contents).enumerate() {
            let plain = fetch.objects.file(id, FileMode::PLAIN).unwrap();
            let program = fetch.objects.file(id, FileMode::EXECUTABLE).unwrap();
            assert_eq!((plain.file, fetch.files()), (program.file, number + 1), "it is one file");
            let digest = Digest::of(Sha256::new_with_prefix(content));
            assert_eq!((plain.size, plain.digest), (content.len() as u64, digest));
            assert_eq!(fetch.objects.small_blob(id, 4096).unwrap().as_ref(), Some(content));
        }
        fetch.add(ObjectKind::Blob, &[b'x'; 4097]);
        assert_eq!(fetch.files(), 4, "a larger one is a file as it arrives");
    }

    #[test]
    fn a_blob_is_a_file_as_it_arrives_where_all_are_followed() {
        let mut fetch = Fetch::new(0);
        let id = fetch.add(ObjectKind::Blob, b"short");
        assert_eq!(fetch.files(), 1);
        assert_eq!(fetch.objects.small_blob(&id, 4096).unwrap().unwrap(), b"short");
        fetch.objects.file(&id, FileMode::PLAIN).unwrap();
        assert_eq!(fetch.files(), 1);
    }

    #[test]
    fn an_object_is_not_taken_for_one_of_another_kind() {
        let mut fetch = Fetch::new(SMALL);
        let (blob, tree) = (fetch.add(ObjectKind::Blob, b"text"), fetch.add(ObjectKind::Tree, b"tree"));
        let error = fetch.objects.read(&blob, ObjectKind::Tree).unwrap_err().to_string();
        assert!(error.ends_with("is a Blob, not a Tree"), "{error}");
        let no_content = format!("object {tree} is not a file's content");
        for error in [
            fetch.objects.file(&tree, FileMode::PLAIN).unwrap_err(),
            fetch.objects.small_blob(&tree, 4096).unwrap_err(),
        ] {
            assert!(error.to_string().ends_with(&no_content), "{error}");
        }
    }
}
