//! Whatever an archive holds: see `file_puller::fuzz::archive`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| file_puller::fuzz::archive(data));
