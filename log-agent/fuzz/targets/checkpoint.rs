//! Any bytes in the place of both checkpoints: the agent starts, and trusts none that it should not.

#![no_main]

use libfuzzer_sys::fuzz_target;
use log_agent::checkpoint::StateDir;

fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("a directory");
    for slot in ["checkpoint.0.json", "checkpoint.1.json"] {
        std::fs::write(dir.path().join(slot), bytes).expect("a file");
    }
    let Ok(mut state) = StateDir::open(dir.path()) else { panic!("nobody else holds it") };
    let entries = state.load();
    for entry in &entries {
        entry.confirmed_by(&["sink".to_owned()]);
    }
    state.prepare(entries).write().expect("it is written again");
});
