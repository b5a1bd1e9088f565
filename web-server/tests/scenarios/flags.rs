//! What is wrong at the start is said at the start, in one line, with an exit code that means something.

use testkit::process::run;

use crate::support::{BINARY, Server, Volume};

#[track_caller]
fn fails(args: &[&str], code: i32, says: &[&str]) {
    let ports = ["--listen", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"];
    let (got, stdout, stderr) = run(BINARY, args.iter().chain(&ports));
    assert_eq!((got, stdout.as_str()), (code, ""), "{stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    for part in says {
        assert!(last.contains(part), "{part:?} is not in: {last}");
    }
}

#[test]
fn a_wrong_start_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (dir, file) = (dir.path().to_str().unwrap(), file.to_str().unwrap());
    fails(&[], 64, &["--root"]);
    fails(&["--rot", dir], 64, &["--rot", "--root"]);
    fails(&["--root", dir, "--cache-size", "much"], 64, &["--cache-size", "64KiB"]);
    fails(&["--root", file], 78, &[file, "--root"]);
    let missing = format!("{dir}/absent/access.log");
    fails(
        &["--root", dir, "--access-log", &missing],
        74,
        &[&missing, &format!("{dir}/absent"), "--access-log"],
    );
    let under_a_file = format!("{file}/access.log");
    fails(&["--root", dir, "--access-log", &under_a_file], 74, &[&under_a_file, file]);
}

#[test]
fn a_taken_port_is_named() {
    let volume = Volume::new();
    let server = Server::start(&volume.root(), &[]);
    let (root, addr) = (volume.root(), server.addr.to_string());
    let args = ["--root", root.to_str().unwrap(), "--listen", &addr, "--admin-addr", "127.0.0.1:0"];
    let (code, _, stderr) = run(BINARY, args);
    assert_eq!(code, 69);
    assert!(stderr.lines().last().unwrap().contains(&addr) && stderr.contains("--listen"), "{stderr}");
}

#[test]
fn healthcheck_asks_readyz() {
    let volume = Volume::new();
    let server = Server::start(&volume.root(), &[]);
    let admin = server.admin.to_string();
    let (code, _, stderr) = run(BINARY, ["healthcheck", "--admin-addr", &admin]);
    assert_eq!(code, 69);
    assert!(stderr.contains("no content yet"), "{stderr}");
    volume.publish("one", &[("index.html", "one")]);
    server.wait_for("/", "one");
    assert_eq!(run(BINARY, ["healthcheck", "--admin-addr", &admin]).0, 0);
}
