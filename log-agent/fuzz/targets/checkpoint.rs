//! Any bytes in the place of a checkpoint, and as the content of one whose checksum is right.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("a directory");
    log_agent::fuzz::checkpoint(bytes, dir.path());
});
