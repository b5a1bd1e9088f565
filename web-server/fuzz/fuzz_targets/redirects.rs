//! See `web_server::fuzz::redirects`, which an ordinary test holds to the cases in `corpus/redirects`, too.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| web_server::fuzz::redirects(data));
