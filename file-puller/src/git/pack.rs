//! A pack (`gitformat-pack(5)`), unpacked while it arrives.
//!
//! Every object is complete when the next one begins: the base of a delta comes before it, or is known from the published commit, so a delta is applied as its
//! instructions arrive, with the base read from the volume. One pass, and no object is ever held in memory.
//!
//! SECURITY: a pack is another party's program for our disk. Each size is checked before its bytes are written, all
//! of them count against the limits, and an instruction can copy from within its base only. A delta of a few bytes
//! may well be for a large published file, so what a pack expands to is held against what has arrived and the published objects that
//! deltas build on. These never count for more than all published objects have, however many deltas build on one of them.

use std::io::{self, BufRead, BufReader, Read};

use flate2::{Decompress, FlushDecompress, Status};
use lifecycle::cgroup::memory_limit;

use super::error::GitError;
use super::object_id::{Hasher, ObjectId, ObjectKind};
use super::objects::{Base, ObjectIndex, Objects};
use crate::fetch::Expansion;
use crate::store::Context as _;

/// Bytes that are inflated or copied at a time.
const CHUNK: usize = 32 * 1024;

/// What the process takes without a pack.
const BASE_MEMORY: u64 = 11 * 1024 * 1024;
/// Bytes that are in memory for each object, measured right after its tables have grown: what it is and where, and its places by
/// id and by offset.
pub(super) const OBJECT: u64 = 300;

/// Why a pack was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackError {
    /// The input, or the server in the middle of it.
    #[error(transparent)]
    Input(#[from] io::Error),
    #[error(transparent)]
    Git(#[from] GitError),
}

/// Unpacks all objects of a pack.
pub(super) fn unpack(input: impl Read, objects: &mut Objects, limits: Expansion) -> Result<(), PackError> {
    let input = PackInput {
        input: BufReader::with_capacity(CHUNK, input),
        hasher: Hasher::new(objects.format()),
        consumed: 0,
    };
    let mut reader = PackReader {
        input,
        zlib: Decompress::new(true),
        inflated: 0,
        built_on: 0,
        published: objects.published_size(),
        limits,
        by_offset: Vec::new(),
        chunk: vec![0; CHUNK],
    };
    let mut header = [0; 12];
    reader.input.read_exact(&mut header)?;
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if &header[..4] != b"PACK" || !matches!(number(4), 2 | 3) {
        return Err(refused("it is not a pack"));
    }
    check_memory(number(8), memory_limit())?;
    for _ in 0..number(8) {
        reader.entry(objects)?;
    }
    reader.check_end(objects)
}

/// Refuses more objects than the process has memory for, whether the commit needs them or not.
fn check_memory(objects: u32, limit: Option<u64>) -> Result<(), GitError> {
    match limit {
        Some(limit) if BASE_MEMORY + u64::from(objects) * OBJECT > limit => {
            let limit = bytesize::ByteSize(limit);
            Err(GitError::refused(format!(
                "its {objects} objects take more memory than this container's limit of {limit}; raise that limit, or split the repository"
            )))
        }
        _ => Ok(()),
    }
}

fn refused(why: impl Into<String>) -> PackError {
    GitError::refused(why).into()
}

/// The bytes of a pack, hashed as they are used.
struct PackInput<R> {
    input: BufReader<R>,
    hasher: Hasher,
    consumed: u64,
}

struct PackReader<R> {
    input: PackInput<R>,
    /// Made once: its window alone is 32 KiB.
    zlib: Decompress,
    inflated: u64,
    /// Bytes of the published objects that deltas build on.
    built_on: u64,
    /// Bytes of all published objects: the most that `built_on` can be.
    published: u64,
    limits: Expansion,
    /// Where each object began, in ascending order.
    by_offset: Vec<(u64, ObjectIndex)>,
    chunk: Vec<u8>,
}

impl<R: Read> PackReader<R> {
    fn entry(&mut self, objects: &mut Objects) -> Result<(), PackError> {
        let offset = self.input.consumed;
        let (kind, size) = self.input.entry_header()?;
        let index = match kind {
            6 => {
                let back = self.input.offset()?;
                let base = offset.checked_sub(back).and_then(|base| self.at_offset(base));
                let base = base.ok_or_else(|| refused("a delta's base is nowhere before it"))?;
                let base = objects.base(base)?;
                self.delta(objects, base, size)?
            }
            7 => {
                let mut id = [0; 32];
                let id = &mut id[..objects.format().id_len()];
                self.input.read_exact(id)?;
                let id = ObjectId::of_bytes(objects.format(), id);
                let id = id.ok_or_else(|| refused("a delta names no base"))?;
                let base @ (_, base_size, _) = objects.base_of(&id)?;
                if objects.fetched(&id).is_none() {
                    self.built_on = self.built_on.saturating_add(base_size).min(self.published);
                }
                self.delta(objects, base, size)?
            }
            kind => {
                let kind = ObjectKind::of_number(kind)
                    .ok_or_else(|| refused(format!("an object has type {kind}")))?;
                self.whole(objects, kind, size)?
            }
        };
        self.by_offset.push((offset, index));
        Ok(())
    }

    fn at_offset(&self, offset: u64) -> Option<ObjectIndex> {
        let at = self.by_offset.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        Some(self.by_offset[at].1)
    }

    /// An object that is stored as it is.
    fn whole(
        &mut self,
        objects: &mut Objects,
        kind: ObjectKind,
        size: u64,
    ) -> Result<ObjectIndex, PackError> {
        self.inflated = self.inflated.saturating_add(size);
        self.limits.check_total(self.inflated).map_err(refused)?;
        let mut writer = objects.begin(kind, size)?;
        let mut inflater = Inflater::begin(&mut self.zlib);
        let mut produced = 0;
        loop {
            let read = inflater.read(&mut self.input, &mut self.chunk)?;
            if read == 0 {
                return Ok(objects.finish(writer)?);
            }
            produced += read as u64;
            // Their sizes were counted when the objects began, so this one's rest is not there yet.
            let packed = self.input.consumed.saturating_add(self.built_on);
            self.limits.check_ratio(self.inflated - size + produced, packed).map_err(refused)?;
            objects.write(&mut writer, &self.chunk[..read])?;
        }
    }

    /// An object that is stored as its difference from another.
    fn delta(
        &mut self,
        objects: &mut Objects,
        (kind, base_size, content): (ObjectKind, u64, Base),
        size: u64,
    ) -> Result<ObjectIndex, PackError> {
        let mut delta = Delta {
            inflater: Inflater::begin(&mut self.zlib),
            input: &mut self.input,
            buffer: vec![0; 4096],
            at: 0,
            filled: 0,
            left: size,
        };
        if delta.varint()? != base_size {
            return Err(refused("a delta is for another base"));
        }
        let size = delta.varint()?;
        self.inflated = self.inflated.saturating_add(size);
        self.limits.check_total(self.inflated).map_err(refused)?;
        let packed = delta.input.consumed.saturating_add(self.built_on);
        self.limits.check_ratio(self.inflated, packed).map_err(refused)?;
        let mut writer = objects.begin(kind, size)?;
        while let Some(instruction) = delta.instruction()? {
            match instruction {
                Instruction::Copy { from, length } => {
                    let end = from.checked_add(length).filter(|end| *end <= base_size);
                    let end = end.ok_or_else(|| refused("a delta copies from beyond its base"))?;
                    let mut at = from;
                    while at < end {
                        let length = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
                        let read = content.read_at(&mut self.chunk[..length], at);
                        read.context(|| "read the base of a delta".to_owned()).map_err(GitError::from)?;
                        objects.write(&mut writer, &self.chunk[..length])?;
                        at += length as u64;
                    }
                }
                Instruction::Insert(length) => {
                    for _ in 0..length {
                        let byte = delta.byte()?;
                        objects.write(&mut writer, &[byte])?;
                    }
                }
            }
        }
        Ok(objects.finish(writer)?)
    }

    /// A pack ends with the hash of all that it holds.
    fn check_end(self, objects: &Objects) -> Result<(), PackError> {
        let PackInput { mut input, hasher, .. } = self.input;
        let mut trailer = [0; 32];
        let trailer = &mut trailer[..objects.format().id_len()];
        input.read_exact(trailer)?;
        let expected = hasher.id().map_err(|collision| refused(collision.to_string()))?;
        if expected.as_bytes() != trailer {
            return Err(refused("the pack's checksum is another than that of its content"));
        }
        match input.fill_buf()? {
            [] => Ok(()),
            _ => Err(refused("there is something after the pack's end")),
        }
    }
}

impl<R: Read> PackInput<R> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// The type and the inflated size of an entry.
    fn entry_header(&mut self) -> Result<(u8, u64), PackError> {
        let mut byte = self.byte()?;
        let (kind, mut size, mut shift) = (byte >> 4 & 7, u64::from(byte & 15), 4);
        while byte & 0x80 != 0 {
            byte = self.byte()?;
            if shift > 53 {
                return Err(refused("an object's size is beyond all bounds"));
            }
            size |= u64::from(byte & 0x7f) << shift;
            shift += 7;
        }
        Ok((kind, size))
    }

    /// How far before a delta its base begins.
    fn offset(&mut self) -> Result<u64, PackError> {
        let mut byte = self.byte()?;
        let mut offset = u64::from(byte & 0x7f);
        while byte & 0x80 != 0 {
            byte = self.byte()?;
            if offset > u64::MAX >> 8 {
                return Err(refused("a delta's base is beyond all bounds"));
            }
            offset = (offset + 1) << 7 | u64::from(byte & 0x7f);
        }
        Ok(offset)
    }
}

impl<R: Read> Read for PackInput<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let read = available.len().min(buffer.len());
        buffer[..read].copy_from_slice(&available[..read]);
        self.consume(read);
        Ok(read)
    }
}

impl<R: Read> BufRead for PackInput<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, used: usize) {
        self.hasher.update(&self.input.buffer()[..used]);
        self.consumed += used as u64;
        self.input.consume(used);
    }
}

/// One zlib stream of a pack.
struct Inflater<'z> {
    zlib: &'z mut Decompress,
    ended: bool,
}

impl<'z> Inflater<'z> {
    fn begin(zlib: &'z mut Decompress) -> Self {
        zlib.reset(true);
        Self { zlib, ended: false }
    }

    /// The next bytes, or 0 at the stream's end, which the input then stands behind.
    fn read(&mut self, input: &mut impl BufRead, output: &mut [u8]) -> io::Result<usize> {
        while !self.ended {
            let available = input.fill_buf()?;
            if available.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (consumed, produced) = (self.zlib.total_in(), self.zlib.total_out());
            let status = self.zlib.decompress(available, output, FlushDecompress::None)?;
            // Both differences are no more than the slices' lengths.
            let used = usize::try_from(self.zlib.total_in() - consumed).unwrap_or(usize::MAX);
            let read = usize::try_from(self.zlib.total_out() - produced).unwrap_or(usize::MAX);
            input.consume(used);
            self.ended = status == Status::StreamEnd;
            if read > 0 {
                return Ok(read);
            }
        }
        Ok(0)
    }
}

/// The instructions of a delta, as they arrive.
struct Delta<'d, R> {
    inflater: Inflater<'d>,
    input: &'d mut PackInput<R>,
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
    /// Bytes that are still to come.
    left: u64,
}

enum Instruction {
    Copy { from: u64, length: u64 },
    Insert(u8),
}

impl<R: Read> Delta<'_, R> {
    fn next(&mut self) -> Result<Option<u8>, PackError> {
        if self.at == self.filled {
            self.filled = self.inflater.read(self.input, &mut self.buffer)?;
            self.at = 0;
            if self.filled == 0 {
                return if self.left == 0 {
                    Ok(None)
                } else {
                    Err(refused("a delta is smaller than it says"))
                };
            }
            self.left = self
                .left
                .checked_sub(self.filled as u64)
                .ok_or_else(|| refused("a delta is larger than it says"))?;
        }
        self.at += 1;
        Ok(Some(self.buffer[self.at - 1]))
    }

    fn byte(&mut self) -> Result<u8, PackError> {
        self.next()?.ok_or_else(|| refused("a delta ends within an instruction"))
    }

    /// A size, its lowest seven bits first.
    fn varint(&mut self) -> Result<u64, PackError> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            if shift > 56 {
                return Err(refused("an object's size is beyond all bounds"));
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
            shift += 7;
        }
    }

    fn instruction(&mut self) -> Result<Option<Instruction>, PackError> {
        let Some(code) = self.next()? else { return Ok(None) };
        if code == 0 {
            return Err(refused("a delta has an unknown instruction"));
        }
        if code & 0x80 == 0 {
            return Ok(Some(Instruction::Insert(code)));
        }
        let (mut from, mut length) = (0, 0);
        for bit in 0..4 {
            if code & 1 << bit != 0 {
                from |= u64::from(self.byte()?) << (8 * bit);
            }
        }
        for bit in 0..3 {
            if code & 0x10 << bit != 0 {
                length |= u64::from(self.byte()?) << (8 * bit);
            }
        }
        Ok(Some(Instruction::Copy { from, length: if length == 0 { 0x1_0000 } else { length } }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_objects_than_there_is_memory_for_are_refused() {
        let limit = Some(64 << 20);
        assert!(check_memory(180_000, limit).is_ok() && check_memory(u32::MAX, None).is_ok());
        let error = check_memory(190_000, limit).unwrap_err().to_string();
        assert!(error.contains("its 190000 objects") && error.contains("64.0 MiB"), "{error}");
        assert!(check_memory(u32::MAX, limit).is_err());
    }
}
