//! See `web_server::fuzz::preconditions`, which an ordinary test holds to the cases in `corpus/preconditions`, too.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| web_server::fuzz::preconditions(data));
