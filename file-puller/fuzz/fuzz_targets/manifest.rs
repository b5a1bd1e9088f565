//! Whatever a manifest says, reading it neither panics nor lets a path through that leaves the release; and what was read once
//! is the same release when it is written and read again.
#![no_main]

use file_puller::config::Limits;
use file_puller::manifest::Manifest;

const LIMITS: Limits =
    Limits { manifest: 1 << 20, files: 1000, file_size: 1 << 40, size: 1 << 41, min_free: 0 };

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    let Ok(manifest) = Manifest::parse(json, &LIMITS) else { return };
    for file in &manifest.files {
        assert!(!file.path.as_str().starts_with('/'));
        assert!(file.path.segments().all(|segment| !matches!(segment, "" | "." | "..")));
    }
    let mut written = Vec::new();
    manifest.write(&mut written).expect("memory takes everything");
    let again = Manifest::parse(&written, &LIMITS).expect("what is written can be read");
    assert_eq!(again.id(), manifest.id());
});
