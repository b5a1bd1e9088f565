//! Whatever an archive holds, unpacking it neither panics nor writes anything but files and directories beneath the private
//! directory; and its manifest is one that a content manager might have written.
#![no_main]

use std::io::Cursor;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use file_puller::archive::unpack;
use file_puller::config::{Limits, Unpacking};
use file_puller::inflate::Compression;
use file_puller::manifest::Manifest;
use file_puller::volume::Volume;
use tempfile::TempDir;

const LIMITS: Limits = Limits { manifest: 1 << 20, files: 100, file_size: 1 << 20, size: 1 << 22, min_free: 0 };
const UNPACKING: Unpacking = Unpacking { strip_components: 0, max_archive_size: 1 << 20, max_expansion: 100 };

static ABOVE: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary directory"));
static VOLUME: LazyLock<Arc<Volume>> =
    LazyLock::new(|| Arc::new(Volume::open(&ABOVE.path().join("volume")).expect("a volume")));

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((form, archive)) = data.split_first() else { return };
    let compression = match form % 3 {
        0 => Compression::None,
        1 => Compression::Gzip,
        _ => Compression::Zstd,
    };
    let archive = Cursor::new(archive.to_vec());
    if let Ok((incoming, manifest)) = unpack(Arc::clone(&VOLUME), archive, compression, &LIMITS, &UNPACKING) {
        let mut written = Vec::new();
        manifest.write(&mut written).expect("memory takes everything");
        Manifest::parse(&written, &LIMITS).expect("its paths are a release's");
        drop(incoming);
    }
    only_files(&ABOVE.path().join("volume/.staging"));
    let beside = std::fs::read_dir(ABOVE.path()).expect("it is there").count();
    assert_eq!(beside, 1, "something is beside the volume");
});

fn only_files(directory: &Path) {
    for entry in std::fs::read_dir(directory).expect("it is there").flatten() {
        let kind = entry.file_type().expect("it is there");
        assert!(kind.is_dir() || kind.is_file(), "{}", entry.path().display());
        if kind.is_dir() {
            only_files(&entry.path());
        }
    }
}
