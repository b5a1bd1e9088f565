//! What fuzzing has found, and what it should begin with: each case in `fuzz/corpus` is held to its target's property, by a plain
//! `cargo test` and without a fuzzer.

#![allow(missing_docs, reason = "the tests' names say what they are about")]
#![allow(clippy::panic, reason = "a panic is how a test fails")]

use std::path::Path;

use web_server::fuzz;

#[track_caller]
fn hold(target: &str, property: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let cases = std::fs::read_dir(&corpus).expect("the corpus is there");
    let mut held = 0;
    for case in cases {
        let path = case.expect("the corpus can be read").path();
        property(&std::fs::read(&path).expect("the case can be read"));
        held += 1;
    }
    assert!(held >= 10, "{held} cases in {}", corpus.display());
}

#[test]
fn paths() {
    hold("path", fuzz::path);
}

#[test]
fn ranges() {
    hold("range", fuzz::range);
}

#[test]
fn redirects() {
    hold("redirects", fuzz::redirects);
}

#[test]
fn preconditions() {
    hold("preconditions", fuzz::preconditions);
}
