//! Repositories whose server changes, and one that is real. `tests/git` follows real ones through all that can happen to them.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use testkit::http::Message;
use testkit::{Answer, Upstream};

use crate::puller::{Volume, start_when_asked, try_sync};

/// A repository that git itself gives out.
pub(crate) struct Repository {
    directory: TempDir,
    pub(crate) server: Upstream,
}

impl Repository {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        git(directory.path(), &["init", "--quiet"], b"");
        let path = directory.path().to_owned();
        Self { directory, server: Upstream::start(move |request| upload_pack(&path, request)) }
    }

    pub(crate) fn url(&self) -> String {
        format!("git+{}", self.server.url("/site.git"))
    }

    /// Commits a file with this content.
    pub(crate) fn commit(&self, path: &str, content: &str) {
        fs::write(self.directory.path().join(path), content).expect("a file");
        git(self.directory.path(), &["add", "--all"], b"");
        git(self.directory.path(), &["commit", "--quiet", "--message", content], b"");
    }
}

/// Answers as smart HTTP does.
fn upload_pack(repository: &Path, request: &Message) -> Answer {
    let serve = ["upload-pack", "--stateless-rpc", "."];
    if request.start.starts_with("GET ") {
        let mut answer = b"001e# service=git-upload-pack\n0000".to_vec();
        answer.extend(git(repository, &[&serve[..2], &["--advertise-refs", "."]].concat(), b""));
        return Answer::new(200, answer).with("Content-Type", "application/x-git-upload-pack-advertisement");
    }
    let answer = git(repository, &serve, &request.body);
    Answer::new(200, answer).with("Content-Type", "application/x-git-upload-pack-result")
}

/// Runs git in a repository, whatever this machine's configuration is.
fn git(repository: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("git");
    command.current_dir(repository).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_SYSTEM", "/dev/null")]);
    command.env("GIT_PROTOCOL", "version=2");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "a").env(format!("GIT_{who}_EMAIL"), "a@example.com");
    }
    let mut child = command.spawn().expect("git can be started");
    child.stdin.take().expect("it is piped").write_all(input).expect("git reads all of it");
    let done = child.wait_with_output().expect("git runs");
    assert!(done.status.success(), "git {arguments:?}");
    done.stdout
}

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
