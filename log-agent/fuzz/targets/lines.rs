//! Any bytes as a line, in every format, into every encoding.

#![no_main]

libfuzzer_sys::fuzz_target!(|line: &[u8]| log_agent::fuzz::line(line));
