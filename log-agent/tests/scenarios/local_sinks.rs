//! Sinks that stay on this machine: standard output and files.

use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use testkit::wait_until;

use crate::support::{Room, append, write, write_numbers};

#[test]
fn stdout_sink() {
    let room = Room::new();
    write_numbers(&mut append(&room.log("a.log")), 0..2000);
    let mut agent = room.agent("stdout:", &["--exit-at-eof"]);
    assert!(agent.wait().success());
    let lines = agent.stdout_lines();
    let bodies =
        lines.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["body"].clone());
    assert!(bodies.eq((0..2000).map(|number| serde_json::Value::from(format!("line {number}")))));
}

#[test]
fn file_sink() {
    let room = Room::new();
    let out = room.path("out.ndjson");
    let mut file = append(&room.log("a.log"));
    let mut agent = room.agent(&format!("file:{}", out.display()), &[]);
    let numbers = |path: &std::path::Path| -> Vec<usize> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let records = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        records.filter_map(|record| crate::support::number(record["body"].as_str().unwrap())).collect()
    };
    write_numbers(&mut file, 0..100);
    wait_until("they are in the file", || numbers(&out).len() == 100);
    std::fs::rename(&out, room.path("out.1")).unwrap();
    write_numbers(&mut file, 100..200);
    assert!(agent.terminate().success());
    assert!(numbers(&room.path("out.1")).into_iter().chain(numbers(&out)).eq(0..200));
}

/// What lines say is looked at only where something of it is left out.
#[test]
fn raw_sinks_get_lines_as_they_were_written_whatever_the_format() {
    let combined = "127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 5\n";
    let cri =
        "2016-10-06T00:17:09.669794202Z stdout P with a \0\n2016-10-06T00:17:09.669794202Z stdout F end\n";
    for (lines, more) in
        [(combined, ["combined", "--max-line", "1000"]), (cri, ["cri", "--max-line", "1MiB"])]
    {
        let room = Room::new();
        write(&room.log("a.log"), lines);
        let out = room.path("out");
        let more = ["--exit-at-eof", "--parse"].into_iter().chain(more).collect::<Vec<_>>();
        let mut agent = room.agent(&format!("raw+file:{}", out.display()), &more);
        assert!(agent.wait().success());
        assert_eq!(std::fs::read_to_string(out).unwrap(), lines);
    }
}

#[test]
fn file_sink_that_cannot_be_written() {
    let room = Room::new();
    let out = room.path("later/out.ndjson");
    write(&room.log("a.log"), "line 0\n");
    let agent = room.agent(&format!("file:{}", out.display()), &[]);
    agent.event("it says so", |event| {
        event["reason"].as_str().is_some_and(|reason| reason.contains("later/out"))
    });
    std::fs::create_dir(room.path("later")).unwrap();
    wait_until("it is in the file", || {
        std::fs::read_to_string(&out).is_ok_and(|text| text.contains("line 0"))
    });
}

#[test]
fn stdout_that_nobody_reads() {
    let room = Room::new();
    let mut command = room.command("logs/*.log", &["stdout:"], &["--shutdown-timeout", "300ms"]);
    command.args(["--admin-addr", "127.0.0.1:0", "--log-format", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // More than a pipe holds.
    write_numbers(&mut append(&room.log("a.log")), 0..50_000);
    let mut first = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let asked = Instant::now();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = testkit::eventually("it leaves though its write is stuck", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(69));
    assert!(asked.elapsed() < Duration::from_secs(5));
}

#[test]
fn stdout_is_closed() {
    let room = Room::new();
    let mut command = room.command("logs/*.log", &["stdout:"], &["--shutdown-timeout", "300ms"]);
    command.args(["--admin-addr", "127.0.0.1:0", "--log-format", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    write(&room.log("a.log"), "line 0\n");
    let mut said = String::new();
    let stderr = child.stderr.as_mut().unwrap();
    while !said.contains("does not confirm") {
        let mut part = [0; 1024];
        let read = stderr.read(&mut part).unwrap();
        assert!(read > 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&part[..read]));
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(69), "what was not taken is not confirmed");
}

#[test]
fn raw_copy() {
    let room = Room::new();
    let text = b"{\"a\": 1}\ncaf\xe9\n\n  x\ncr\r\n\r\n";
    write(&room.log("a.log"), [&text[..], b"no end"].concat());
    let out = room.path("copy");
    let sink = format!("raw+file:{}", out.display());
    let mut agent = room.agent(&sink, &["--exit-at-eof"]);
    assert!(agent.wait().success());
    assert_eq!(std::fs::read(&out).unwrap(), [&text[..], b"no end\n"].concat());
    // And on from there, in several chunks, with a line that is longer than what is read at once.
    let long = "y".repeat(500_000);
    let more = format!("{}{long}\n{}", "line\n".repeat(100_000), "end\n".repeat(10));
    write(&room.log("a.log"), format!("\n{more}"));
    let mut agent = room.agent(&sink, &["--exit-at-eof"]);
    assert!(agent.wait().success());
    let copied = std::fs::read(&out).unwrap();
    let expected = [&text[..], b"no end\n\n", more.as_bytes()].concat();
    assert!(copied == expected, "{} bytes in the place of {}", copied.len(), expected.len());
}

#[test]
fn raw_copy_without_what_is_left_out() {
    let room = Room::new();
    write(&room.log("a.log"), "{\"url.path\":\"/health\"}\n{\"url.path\":\"/\",\"user\":\"me\"}\nplain\r\n");
    let out = room.path("copy");
    let more = ["--exit-at-eof", "--drop", "url.path=/health", "--redact-field", "user"];
    let mut agent = room.agent(&format!("raw+file:{}", out.display()), &more);
    assert!(agent.wait().success());
    let expected = "{\"url.path\":\"/\",\"user\":\"REDACTED\"}\nplain\r\n";
    assert_eq!(std::fs::read_to_string(out).unwrap(), expected);
}

#[test]
fn raw_copy_of_a_file_that_is_written_anew_meanwhile() {
    let room = Room::new();
    let text = |word: &str| (0..400_000).map(|number| format!("{word} {number:06}\n")).collect::<String>();
    let (old, new) = (text("old"), text("new"));
    write(&room.log("a.log"), &old);
    let mut command = room.command("logs/*.log", &["raw+stdout:"], &["--exit-at-eof"]);
    let mut child = command.args(["--admin-addr", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
    // Its pipe is full, so that it is somewhere in the middle of the file, and stays there.
    let mut copied = vec![0];
    child.stdout.as_mut().unwrap().read_exact(&mut copied).unwrap();
    // The same inode, the same size, other content from the first byte on.
    std::fs::write(room.log("a.log"), &new).unwrap();
    child.stdout.as_mut().unwrap().read_to_end(&mut copied).unwrap();
    assert!(child.wait().unwrap().success());
    let begun = copied.len() - new.len();
    assert!(
        begun < old.len() && copied[..begun] == old.as_bytes()[..begun],
        "{begun} bytes of the old content"
    );
    assert!(copied[..begun].ends_with(b"\n") && copied[begun..] == *new.as_bytes(), "and all of the new");
}
