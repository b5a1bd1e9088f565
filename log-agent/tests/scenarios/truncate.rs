//! Files that are cut off, rewritten in place, or copied and then cut off.

use std::fs;
use std::io::Write as _;

use testkit::{Process, wait_until};

use crate::rotate::{down, up};
use crate::support::{Receiver, Room, append, metric, status, write, write_numbers};

#[test]
fn truncate_live() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let mut file = append(&room.log("a.log"));
    write_numbers(&mut file, 0..10);
    let _agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(10);
    file.set_len(0).unwrap();
    write_numbers(&mut file, 10..20);
    receiver.expect_numbers(20);
    assert_eq!(receiver.ids().len(), 20, "another content, other ids");
}

#[test]
fn truncate_live_regrown_longer() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "line 0\n");
    let _agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(1);
    // Truncated and written in one go: no look in between ever sees it smaller.
    fs::write(room.log("a.log"), "line 1\nline 2\nline 3\n").unwrap();
    receiver.expect_numbers(4);
}

#[test]
fn truncate_rewrite_same_size() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "line 0\nline 1\n");
    let mut agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(2);
    fs::write(room.log("a.log"), "line 2\nline 3\n").unwrap();
    receiver.expect_numbers(4);
    assert!(agent.terminate().success());
    fs::write(room.log("a.log"), "line 4\nline 5\n").unwrap();
    let _agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(6);
}

#[test]
fn truncate_while_down_regrown() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let header = "#".repeat(2000) + "\n";
    write(&room.log("a.log"), format!("{header}line 0\n"));
    let mut agent = room.agent(&receiver.sink(), &[]);
    receiver.expect(&[header.trim(), "line 0"]);
    assert!(agent.terminate().success());
    // The same inode, the same head, larger than before: only what lies before the position tells.
    fs::write(room.log("a.log"), format!("{header}other\nline 1\nline 2\n")).unwrap();
    let _agent = room.agent(&receiver.sink(), &[]);
    receiver.expect(&[header.trim(), "line 0", header.trim(), "other", "line 1", "line 2"]);
}

#[test]
fn truncation_enters_what_was_never_read_into_the_ledger() {
    let (room, receiver) = (Room::new(), Receiver::start());
    down(&receiver);
    let mut file = append(&room.log("a.log"));
    let more = ["--chunk-size", "1KiB", "--rescan-period", "50ms"];
    let agent = room.agent(&receiver.sink(), &more);
    wait_until("it is followed", || metric(&agent, "log_agent_open_files") > 0.5);
    file.write_all("0123456789\n".repeat(50_000).as_bytes()).unwrap();
    wait_until("its size was seen", || status(&agent)["files"][0]["size"] == 550_000);
    file.set_len(0).unwrap();
    file.write_all(b"after\n").unwrap();
    up(&receiver);
    wait_until("the new content arrives", || receiver.bodies().last().is_some_and(|body| body == "after"));
    let lost = agent.event("the loss", |event| event["reason"] == "truncated_before_read");
    let (from, to) = (lost["from"].as_u64().unwrap(), lost["to"].as_u64().unwrap());
    let shipped = (receiver.records().len() - 1) as u64 * 11;
    assert_eq!((from, to), (shipped, 550_000));
    assert!((metric(&agent, "log_agent_lost_bytes_total") - (to - from) as f64).abs() < 0.5);
}

/// As logrotate does it with `copytruncate`; an agent that runs sees the copy before the truncation.
pub(crate) fn copytruncate(room: &Room, number: usize, agent: Option<&Process>) {
    let copy = room.log(&format!("access.log.{number}"));
    fs::copy(room.log("access.log"), &copy).unwrap();
    if let Some(agent) = agent {
        wait_until("the copy is seen", || {
            status(agent)["files"].to_string().contains(copy.to_str().unwrap())
        });
    }
    append(&room.log("access.log")).set_len(0).unwrap();
}

#[test]
fn copytruncate_live() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let mut file = append(&room.log("access.log"));
    let agent = room.agent(&receiver.sink(), &["--rescan-period", "200ms"]);
    for round in 0..3 {
        write_numbers(&mut file, round * 1000..(round + 1) * 1000);
        receiver.expect_numbers((round + 1) * 1000);
        copytruncate(&room, 3 - round, Some(&agent));
    }
    write_numbers(&mut file, 3000..3010);
    receiver.expect_numbers(3010);
    assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5);
}

#[test]
fn copytruncate_before_a_second_sink_has_read_anything() {
    let (room, one, other) = (Room::new(), Receiver::start(), Receiver::start());
    let mut file = append(&room.log("access.log"));
    write_numbers(&mut file, 0..1);
    // The first line is with the one; the other is stuck with it.
    let mut agent = room.agent(&one.sink(), &[]);
    one.expect_numbers(1);
    assert!(agent.terminate().success());
    copytruncate(&room, 1, None);
    // As long as the line that it takes the place of.
    write_numbers(&mut file, 1..2);
    let sinks = [one.sink(), other.sink()];
    let mut command = room.command("logs/*.log*", &[&sinks[0], &sinks[1]], &[]);
    command.arg("--exit-at-eof");
    let mut agent = Process::start_command(command);
    assert!(agent.wait().success(), "{}", agent.stderr());
    one.expect_numbers(2);
    other.expect_numbers(2);
}

#[test]
fn copytruncate_that_is_noticed_before_its_copy() {
    let (room, receiver) = (Room::new(), Receiver::start());
    down(&receiver);
    let mut file = append(&room.log("access.log"));
    write_numbers(&mut file, 0..5000);
    // No scan that anybody else asks for: the agent meets the truncation when it reads on.
    let more = ["--chunk-size", "1KiB", "--watch", "poll", "--rescan-period", "1h"];
    let agent = room.agent(&receiver.sink(), &more);
    wait_until("it was tried", || receiver.upstream.requests().len() > 1);
    copytruncate(&room, 1, None);
    write_numbers(&mut file, 5000..5010);
    up(&receiver);
    receiver.expect_each_number(5010);
    assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5, "the copy had it");
}

#[test]
fn copytruncate_of_what_was_not_read_yet() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let mut file = append(&room.log("access.log"));
    let agent = room.agent(&receiver.sink(), &["--chunk-size", "1KiB", "--rescan-period", "200ms"]);
    write_numbers(&mut file, 0..10);
    receiver.expect_numbers(10);
    down(&receiver);
    write_numbers(&mut file, 10..5000);
    wait_until("it was tried", || receiver.upstream.requests().len() > 1);
    copytruncate(&room, 1, Some(&agent));
    write_numbers(&mut file, 5000..5010);
    up(&receiver);
    receiver.expect_each_number(5010);
    assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5, "the copy had it");
}

#[test]
fn copytruncate_while_down() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let mut file = append(&room.log("access.log"));
    write_numbers(&mut file, 0..10);
    let mut agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(10);
    assert!(agent.terminate().success());
    write_numbers(&mut file, 10..20);
    copytruncate(&room, 1, None);
    write_numbers(&mut file, 20..30);
    let agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(30);
    assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5);
}

#[test]
fn exit_at_eof_settles_what_may_be_a_copy() {
    let (room, receiver) = (Room::new(), Receiver::start());
    down(&receiver);
    write_numbers(&mut append(&room.log("access.log")), 0..10);
    let more = ["--exit-at-eof", "--rotate-wait", "300ms", "--rescan-period", "50ms", "--chunk-size", "30"];
    let mut agent = room.agent(&receiver.sink(), &more);
    wait_until("it was tried", || !receiver.upstream.requests().is_empty());
    // Copied, and never truncated: a file like any other, after a while.
    let copy = room.log("access.log.1");
    fs::copy(room.log("access.log"), &copy).unwrap();
    wait_until("the copy is seen", || status(&agent)["files"].to_string().contains(copy.to_str().unwrap()));
    up(&receiver);
    assert!(agent.wait().success(), "{}", agent.stderr());
    assert_eq!(receiver.count(), 20);
}

#[test]
fn a_copy_that_was_made_while_the_agent_was_away_is_not_sent_again() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write_numbers(&mut append(&room.log("access.log")), 0..10);
    assert!(room.agent(&receiver.sink(), &["--exit-at-eof"]).wait().success());
    fs::copy(room.log("access.log"), room.log("access.log.1")).unwrap();
    write_numbers(&mut append(&room.log("access.log")), 10..20);
    assert!(room.agent(&receiver.sink(), &["--exit-at-eof"]).wait().success());
    receiver.expect_numbers(20);
}
