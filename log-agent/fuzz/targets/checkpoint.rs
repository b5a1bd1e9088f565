//! Any bytes in the place of a checkpoint, and as the content of one whose checksum is right: the agent starts, trusts none that it should
//! not, and writes what it trusts so that it trusts it again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use log_agent::checkpoint::StateDir;

fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("a directory");
    let checksum = format!("\n{:08x}\n", crc32fast::hash(bytes));
    std::fs::write(dir.path().join("checkpoint.0.json"), bytes).expect("a file");
    std::fs::write(dir.path().join("checkpoint.1.json"), [bytes, checksum.as_bytes()].concat())
        .expect("a file");
    let Ok(mut state) = StateDir::open(dir.path()) else { panic!("nobody else holds it") };
    let entries = state.load();
    for entry in &entries {
        entry.confirmed_by(&["sink".to_owned()]);
    }
    let known = entries.len();
    state.prepare(entries).write().expect("it is written again");
    assert_eq!(state.load().len(), known);
});
