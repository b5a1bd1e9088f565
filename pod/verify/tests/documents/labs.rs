//! `deploy/verify labs` itself.

use std::process::Command;

#[test]
fn a_page_that_fails_is_exit_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page.md");
    for (shown, code, tally) in [("what it says", 0, "1 passed, 0 failed"), ("else", 1, "0 passed, 1 failed")]
    {
        std::fs::write(&page, format!("```console\n$ echo what it says\n{shown}\n```\n")).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_labs")).arg(&page).output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(stdout.contains(tally), "{stdout}");
    }
}
