//! See `properties::path`, which an ordinary test holds to the cases in `corpus/path`, too.
#![no_main]

#[path = "../properties.rs"]
#[allow(dead_code, reason = "the others have targets of their own")]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::path(data));
