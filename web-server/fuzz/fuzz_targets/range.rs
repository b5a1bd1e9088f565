//! See `web_server::fuzz::range`, which an ordinary test holds to the cases in `corpus/range`, too.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| web_server::fuzz::range(data));
