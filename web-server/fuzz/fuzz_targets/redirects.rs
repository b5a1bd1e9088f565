//! See `properties::redirects`, which an ordinary test holds to the cases in `corpus/redirects`, too.
#![no_main]

#[path = "../properties.rs"]
#[allow(dead_code, reason = "the others have targets of their own")]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::redirects(data));
