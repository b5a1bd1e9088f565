//! Archives for tests: as anybody makes them, and as nobody should.

use std::io::Write as _;

use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use tar::{Builder, EntryType, Header};

use crate::content::Tree;

pub(crate) fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o664);
    header
}

/// An archive with these files, and with what `more` adds.
pub(crate) fn tar_with(files: &Tree, more: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, (mode, content)) in files {
        let mut header = header(EntryType::Regular, content.len() as u64);
        header.set_mode(mode | 0o020);
        builder.append_data(&mut header, path, content.as_slice()).expect("in memory");
    }
    more(&mut builder);
    builder.into_inner().expect("in memory")
}

pub(crate) fn tar(files: &Tree) -> Vec<u8> {
    tar_with(files, |_| {})
}

/// One entry whose name no builder would write.
pub(crate) fn raw_entry(path: &str, kind: EntryType, content: &[u8]) -> Vec<u8> {
    let mut header = header(kind, content.len() as u64);
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_cksum();
    let mut entry = header.as_bytes().to_vec();
    entry.extend(content);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).and_then(|()| encoder.finish()).expect("in memory")
}

pub(crate) fn zstd(data: &[u8]) -> Vec<u8> {
    compress_to_vec(data, CompressionLevel::Fastest)
}
