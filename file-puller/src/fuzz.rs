//! What the fuzz targets call: one function for each, which panics where a promise is broken.

use std::io::Cursor;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use crate::content::{Limits, Manifest, Selection};
use crate::fetch::{Rules, Unpacking, unpack};
use crate::source::Compression;
use crate::store::{Clear, DirectoryOptions, Volume, clear};

const LIMITS: Limits = Limits {
    manifest: 1 << 20,
    files: 1000,
    directories: 1000,
    file_size: 1 << 20,
    size: 1 << 22,
    min_free: 0,
};
const UNPACKING: Unpacking = Unpacking { max_archive_size: 1 << 20, max_expansion: 100 };

static ABOVE: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("a temporary directory"));
static VOLUME: LazyLock<Arc<Volume>> = LazyLock::new(|| {
    let volume = Volume::open(&ABOVE.path().join("volume"), DirectoryOptions::default());
    Arc::new(volume.expect("a volume"))
});

/// Reading a manifest neither panics nor lets a path through that leaves the release; and what was read once is the same
/// release when it is written and read again.
///
/// # Panics
/// Where that is not so.
pub fn manifest(json: &[u8]) {
    let Ok(manifest) = Manifest::parse(json, &LIMITS) else { return };
    for file in &manifest.files {
        assert!(!file.path.as_str().starts_with('/'));
        assert!(file.path.segments().all(|segment| !matches!(segment, "" | "." | "..")));
    }
    let mut written = Vec::new();
    manifest.write(&mut written).expect("memory takes everything");
    let again = Manifest::parse(&written, &LIMITS).expect("what is written can be read");
    assert_eq!(again.id(), manifest.id());
}

/// Unpacking an archive neither panics nor writes anything but files and directories beneath the private directory; and its
/// manifest is one that a content manager might have written. The first byte chooses the compression.
///
/// # Panics
/// Where that is not so.
pub fn archive(data: &[u8]) {
    let Some((form, archive)) = data.split_first() else { return };
    let compression = match form % 3 {
        0 => Compression::None,
        1 => Compression::Gzip,
        _ => Compression::Zstd,
    };
    let archive = Cursor::new(archive.to_vec());
    let rules = Rules { selection: Selection::default(), limits: LIMITS, unpacking: UNPACKING };
    if let Ok((contents, manifest)) = unpack(Arc::clone(&VOLUME), archive, compression, Arc::new(rules)) {
        let mut written = Vec::new();
        manifest.write(&mut written).expect("memory takes everything");
        Manifest::parse(&written, &LIMITS).expect("its paths are a release's");
        drop(contents);
    }
    only_files(&ABOVE.path().join("volume/.staging"));
    let beside = std::fs::read_dir(ABOVE.path()).expect("it is there").count();
    assert_eq!(beside, 1, "something is beside the volume");
    clear(&VOLUME, Clear::All).expect("it is ours");
}

fn only_files(directory: &Path) {
    for entry in std::fs::read_dir(directory).expect("it is there").flatten() {
        let kind = entry.file_type().expect("it is there");
        assert!(kind.is_dir() || kind.is_file(), "{}", entry.path().display());
        if kind.is_dir() {
            only_files(&entry.path());
        }
    }
}
