//! Flags, admin port, and the ways to be told no.

use rustix::process::Signal;
use testkit::http::get;
use testkit::process::run;
use testkit::{Process, wait_until};

use crate::support::{Receiver, Room, append, binary, metric, status, write, write_numbers};

#[test]
fn wrong_flags_are_one_line() {
    let room = Room::new();
    let state = room.state();
    let state = state.to_str().unwrap();
    let cases: [(&[&str], &str); 9] = [
        (&[], "--include"),
        (&["--include", "x", "--state-dir", state, "--sink", "kafka://x"], "otlp+http(s)://"),
        (&["--include", "[", "--state-dir", state, "--sink", "stdout:"], "--include"),
        (&["--include", "x", "--state-dir", state, "--sink", "stdout:,stdout:"], "twice"),
        (&["--include", "/logs/*", "--state-dir", state, "--sink", "file:/logs/out"], "--exclude"),
        (&["--include", "x", "--state-dir", state, "--sink", "stdout:", "--label", "x"], "name=value"),
        (
            &[
                "--include",
                "x",
                "--state-dir",
                state,
                "--sink",
                "stdout:",
                "--parse",
                "raw",
                "--redact-field",
                "password",
            ],
            "--parse raw",
        ),
        (&["--include", "x", "--state-dir", state, "--sink", "stdout:", "--max-line", "1"], "--max-line"),
        (
            &[
                "--include",
                "x",
                "--state-dir",
                state,
                "--sink",
                "stdout:",
                "--sink-timeout",
                "18446744073709551615s",
            ],
            "too long",
        ),
    ];
    for (args, named) in cases {
        let (code, stdout, stderr) = run(binary(), args);
        assert_eq!((code, stdout.as_str()), (64, ""), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(named), "{args:?}: {stderr}");
    }
}

/// A pattern with a slip in it looks like a file without lines: it is named, also beside another that is right.
#[test]
fn a_pattern_without_a_file_is_named_at_the_end() {
    let room = Room::new();
    write(&room.log("a.log"), "line 0\n");
    let (right, wrong) = (room.log("*.log"), room.log("*.lgo"));
    let include = format!("{},{}", right.display(), wrong.display());
    let state = room.state();
    let arguments = ["--include", &include, "--state-dir", state.to_str().unwrap(), "--sink", "stdout:"];
    let (code, stdout, stderr) =
        run(binary(), arguments.into_iter().chain(["--admin-addr", "127.0.0.1:0", "--exit-at-eof"]));
    assert_eq!((code, stdout.lines().count()), (0, 1), "{stderr}");
    let warned: Vec<&str> = stderr.lines().filter(|line| line.contains("WARN")).collect();
    let named = |path: &std::path::Path| warned.iter().any(|line| line.contains(path.to_str().unwrap()));
    assert!(warned.len() == 1 && named(&wrong) && !named(&right), "{stderr}");
}

#[test]
fn the_readme_has_all_flags() {
    let readme = include_str!("../../README.md");
    for command in [&[][..], &["replay"]] {
        testkit::process::assert_documents_all_flags(readme, env!("CARGO_BIN_EXE_log-agent"), command);
    }
}

#[test]
fn a_state_directory_that_cannot_be() {
    let room = Room::new();
    write(&room.path("file"), "");
    let state = room.path("file/state");
    let args = ["--include", "x", "--sink", "stdout:", "--admin-addr", "127.0.0.1:0", "--state-dir"];
    let (code, _, stderr) = run(binary(), args.into_iter().chain([state.to_str().unwrap()]));
    assert_eq!(code, 74, "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.contains("--state-dir") && last.contains(state.to_str().unwrap()), "{last}");
}

#[test]
fn flags_from_the_environment() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "line 0\n");
    let mut command = std::process::Command::new(binary());
    command
        .env("LOG_AGENT_INCLUDE", format!("{},{}", room.log("none").display(), room.log("*.log").display()));
    command.env("LOG_AGENT_STATE_DIR", room.state()).env("LOG_AGENT_SINK", receiver.sink());
    let _agent = Process::start_command(command);
    receiver.expect_numbers(1);
}

#[test]
fn the_admin_port_tells_how_it_is_going() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write_numbers(&mut append(&room.log("a.log")), 0..10);
    let agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(10);
    let addr = agent.addr("admin");
    assert_eq!(get(addr, "/livez").status(), 200);
    assert_eq!(get(addr, "/readyz").status(), 200);
    wait_until("the records are counted", || {
        (metric(&agent, "log_agent_confirmed_records_total") - 10.0).abs() < 0.1
    });
    wait_until("the status knows", || {
        let status = status(&agent);
        status["files"][0]["confirmed"][receiver.sink()] == 70 && status["files"][0]["size"] == 70
    });
    let status = status(&agent);
    let sink = &status["sinks"][0];
    let counted = ["confirmed_records", "refused_records", "unconfirmed_bytes", "lost_bytes"]
        .map(|name| sink[name].clone());
    assert_eq!(counted, [10, 0, 0, 0], "{status}");
    let (code, _, stderr) = run(binary(), ["healthcheck", "--admin-addr", &addr.to_string()]);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn hangup_rescans() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let agent = room.agent(&receiver.sink(), &["--watch", "poll", "--rescan-period", "1h"]);
    wait_until("it answers", || testkit::http::try_get(agent.addr("admin"), "/livez").is_ok());
    write(&room.log("a.log"), "line 0\n");
    agent.signal(Signal::HUP);
    receiver.expect_numbers(1);
}
