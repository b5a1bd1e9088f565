//! See `web_server::fuzz::path`, which an ordinary test holds to the cases in `corpus/path`, too.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| web_server::fuzz::path(data));
