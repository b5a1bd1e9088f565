//! Repositories whose server changes. `tests/git` follows a real one.

use testkit::{Answer, Upstream};

use crate::puller::{Volume, start_when_asked, try_sync};

/// What a server said of itself, and where it sent us, is asked again once a fetch has failed.
#[test]
fn a_git_server_that_fails_is_asked_anew_what_it_is() {
    let volume = Volume::new();
    let server = Upstream::start(|request| match request.target() {
        "/site.git/info/refs?service=git-upload-pack" => {
            Answer::new(200, "001e# service=git-upload-pack\n0000000eversion 2\n0000")
                .with("Content-Type", "application/x-git-upload-pack-advertisement")
        }
        _ => Answer::new(503, ""),
    });
    let url = format!("git+{}", server.url("/site.git"));
    let commit = "30d74d258442c7c65512eafab474568dd706c430";
    let process = start_when_asked(&url, &volume, &["--ref", commit]);
    try_sync(&process);
    for _ in 0..2 {
        server.forget();
        assert_eq!(try_sync(&process).status(), 502);
        let asked = server.requests();
        let greeted = asked.iter().filter(|request| request.start.starts_with("GET "));
        assert_eq!((greeted.count(), asked.len()), (1, 2), "{asked:?}");
    }
}
