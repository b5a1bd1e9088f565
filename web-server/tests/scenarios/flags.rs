//! What is wrong at the start is said at the start, in one line, with an exit code that means something.

use std::process::Command;

use testkit::Process;
use testkit::http::{Connection, get};
use testkit::process::run;
use testkit::terminal::{AtTerminal, Stdout};
use testkit::wait_until;

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
    fails(&["--root", dir, "--cache-control", "*.css"], 64, &["*.css", "GLOB=VALUE"]);
    fails(&["--root", dir, "--header", "ETag: x"], 64, &["etag", "--header"]);
    fails(&["--root", dir, "--threads", "0"], 64, &["--threads"]);
    fails(&["--root", dir, "--max-connections", "0"], 64, &["--max-connections"]);
    for flag in ["--rescan", "--header-timeout", "--send-timeout"] {
        fails(&["--root", dir, flag, "0s"], 64, &[flag]);
    }
    fails(&["--root", dir, "--rescan", "18446744073709551615s"], 64, &["--rescan", "too long"]);
    fails(&["--root", dir, "--memory-limit", "1MiB"], 64, &["--memory-limit", "11 MiB at least"]);
    let under_a_file = format!("{file}/access.log");
    fails(&["--root", dir, "--access-log", &under_a_file], 74, &[&under_a_file, file]);
}

/// The log of every container is written by `lifecycle`.
#[test]
fn the_log_has_colours_where_the_person_wants_them() {
    let volume = Volume::new();
    for (no_color, coloured) in [("", true), ("1", false)] {
        let mut command = Command::new(BINARY);
        command.args(["--listen", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", "--root"]).arg(volume.root());
        command.env("NO_COLOR", no_color);
        let terminal = AtTerminal::start(command, 300, Stdout::Null);
        terminal.shows("INFO");
        assert_eq!(terminal.is_coloured(), coloured, "NO_COLOR={no_color:?}");
    }
}

#[test]
fn the_readme_has_all_flags() {
    let readme = include_str!("../../README.md");
    testkit::process::assert_documents_all_flags(readme, env!("CARGO_BIN_EXE_web-server"), &[]);
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
fn no_more_connections_than_there_are_descriptors_for() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let mut command = std::process::Command::new("/bin/sh");
    let script = r#"ulimit -n 128; exec "$@""#;
    command.args(["-c", script, "sh", BINARY, "--listen", "127.0.0.1:0", "--root"]).arg(volume.root());
    let server = Server::of(Process::start_command(command));
    server.process.event("it says so", |event| {
        event["level"] == "WARN" && event["affordable"] == 96 && event["wanted"] == 8192
    });
    let mut connections: Vec<_> = (0..96).map(|_| Connection::open(server.addr)).collect();
    for connection in &mut connections {
        connection.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!(connection.receive("GET").unwrap().text(), "hello");
    }
    // One more is served, and one that rests is closed for it.
    let mut one_more = Connection::open(server.addr);
    one_more.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!(one_more.receive("GET").unwrap().text(), "hello");
    wait_until("it is counted", || {
        get(server.admin, "/metrics").text().contains("web_server_connections_evicted_total 1\n")
    });
    assert_eq!(get(server.admin, "/readyz").status(), 200);
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
