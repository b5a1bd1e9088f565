//! Whatever a manifest says: see `file_puller::fuzz::manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|json: &[u8]| file_puller::fuzz::manifest(json));
