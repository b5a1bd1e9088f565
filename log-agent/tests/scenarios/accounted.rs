//! Every byte that the agent knew of is delivered, or its loss is entered; and every record has one id, which no other has.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;

use serde_json::Value;
use testkit::{Process, wait_until};

use crate::rotate::{down, up};
use crate::scans::{is_ready, set_mode, that_modes_hold_for};
use crate::support::{Receiver, Room, Verdict, append, metric, status, write, write_numbers};
use crate::truncate::copytruncate;

const QUICK: [&str; 4] = ["--rescan-period", "50ms", "--checkpoint-period", "50ms"];

/// An agent whose sink is down, and whose checkpoint knows 5,000 bytes of `access.log`.
fn stuck_at_5000() -> (Room, Receiver, Process) {
    let (room, receiver) = (Room::new(), Receiver::start());
    down(&receiver);
    write(&room.log("access.log"), "0123456789012345678\n".repeat(250));
    let agent = room.agent(&receiver.sink(), &QUICK);
    wait_until("it is known", || a_checkpoint_says(&room, "\"size\":5000"));
    (room, receiver, agent)
}

fn a_checkpoint_says(room: &Room, what: &str) -> bool {
    let slots = ["checkpoint.0.json", "checkpoint.1.json"].map(|slot| room.state().join(slot));
    slots.iter().any(|slot| fs::read_to_string(slot).is_ok_and(|text| text.contains(what)))
}

fn expect_entered(agent: &Process, from: u64, to: u64) {
    let lost = agent.event("the loss", |event| event["reason"] == "removed_before_delivery");
    assert_eq!((lost["from"].as_u64(), lost["to"].as_u64()), (Some(from), Some(to)), "{lost}");
    assert!(lost["file"].as_str().is_some_and(|file| file.contains("access.log")), "{lost}");
}

#[test]
fn removed_while_the_agent_was_down() {
    let (room, receiver, mut agent) = stuck_at_5000();
    agent.kill();
    fs::remove_file(room.log("access.log")).unwrap();
    up(&receiver);
    let mut agent = room.agent(&receiver.sink(), &QUICK);
    expect_entered(&agent, 0, 5000);
    wait_until("it is counted", || (metric(&agent, "log_agent_lost_bytes_total") - 5000.0).abs() < 0.5);
    assert!(agent.terminate().success());
    // Once is enough.
    let agent = room.agent(&receiver.sink(), &QUICK);
    wait_until("it has looked", || metric(&agent, "log_agent_scan_up") > 0.5);
    assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5);
}

#[test]
fn compressed_by_rotation_while_the_agent_was_down() {
    let (room, _first, mut agent) = stuck_at_5000();
    agent.kill();
    write(&room.log("access.log.1.gz"), b"\x1f\x8b\x08\0\0\0\0\0\0\x03\ncompressed\n");
    fs::remove_file(room.log("access.log")).unwrap();
    write(&room.log("access.log"), "line 0\n");
    // Another receiver: what the dead agent was sending may reach the first one only now.
    let receiver = Receiver::start();
    let agent = room.agent(&receiver.sink(), &QUICK);
    expect_entered(&agent, 0, 5000);
    receiver.expect_numbers(1);
}

#[test]
fn a_drain_says_what_no_next_start_can_ship() {
    let (room, receiver, mut agent) = stuck_at_5000();
    agent.kill();
    let mut agent = room.agent(&receiver.sink(), &[&QUICK[..], &["--shutdown-timeout", "5s"]].concat());
    wait_until("it is followed", || status(&agent)["files"].as_array().is_some_and(|files| files.len() == 1));
    fs::remove_file(room.log("access.log")).unwrap();
    wait_until("it is known to be gone", || status(&agent)["files"][0]["named"] == false);
    assert_eq!(agent.terminate().code(), Some(69));
    expect_entered(&agent, 0, 5000);
    let last = agent.stderr().lines().last().unwrap().to_owned();
    assert!(last.contains("remaining_bytes=0") && last.contains("lost_bytes=5000"), "{last}");
}

#[test]
fn a_loss_is_entered_once_also_where_the_agent_is_killed_after_it() {
    let (room, receiver, mut agent) = stuck_at_5000();
    agent.kill();
    fs::remove_file(room.log("access.log")).unwrap();
    let mut agent = room.agent(&receiver.sink(), &QUICK);
    expect_entered(&agent, 0, 5000);
    wait_until("it is known", || a_checkpoint_says(&room, "\"given_up\":5000"));
    agent.kill();
    let agent = room.agent(&receiver.sink(), &QUICK);
    wait_until("it has looked", || metric(&agent, "log_agent_scan_up") > 0.5);
    assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5, "{}", agent.stderr());
}

#[test]
fn a_drain_says_what_is_lost_of_a_file_that_was_truncated() {
    let (room, receiver, mut agent) = stuck_at_5000();
    agent.kill();
    let more = [&QUICK[..], &["--shutdown-timeout", "2s"]].concat();
    let mut agent = room.agent(&receiver.sink(), &more);
    agent.event("it is under way", |event| event["attempts"] == 1);
    append(&room.log("access.log")).set_len(0).unwrap();
    wait_until("it is seen", || status(&agent)["files"][0]["size"] == 0);
    assert_eq!(agent.terminate().code(), Some(69), "{}", agent.stderr());
    expect_entered(&agent, 0, 5000);
    let last = agent.stderr().lines().last().unwrap().to_owned();
    assert!(last.contains("remaining_bytes=0") && last.contains("lost_bytes=5000"), "{last}");
}

/// Of every record that came: no id names two, and no numbered line has two.
fn expect_ids_that_hold(receiver: &Receiver) {
    let (mut bodies, mut ids) = (BTreeMap::<String, Value>::new(), BTreeMap::<String, Value>::new());
    for record in receiver.records() {
        let (id, body) = (record["id"].clone(), record["body"].clone());
        let known = bodies.entry(id.to_string()).or_insert_with(|| body.clone());
        assert_eq!(*known, body, "{id} names two records");
        if body.as_str().is_some_and(|body| body.starts_with("line ")) {
            let known = ids.entry(body.to_string()).or_insert_with(|| id.clone());
            assert_eq!(*known, id, "{body} has two ids");
        }
    }
}

#[test]
fn ids_after_copytruncate_with_a_constant_first_line() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let mut file = append(&room.log("access.log"));
    let agent = room.agent(&receiver.sink(), &QUICK);
    for round in 0..3 {
        file.write_all(b"# the same\n").unwrap();
        write_numbers(&mut file, round * 10..round * 10 + 10);
        wait_until("they arrive", || receiver.count() == (round + 1) * 11);
        copytruncate(&room, 9 - round, Some(&agent));
    }
    expect_ids_that_hold(&receiver);
}

#[test]
fn ids_after_a_kill_with_nothing_confirmed_since_a_truncation() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let mut file = append(&room.log("access.log"));
    let mut agent = room.agent(&receiver.sink(), &QUICK);
    file.write_all(b"# the same\n").unwrap();
    write_numbers(&mut file, 0..10);
    wait_until("they arrive", || receiver.count() == 11);
    // What comes now arrives, and is not confirmed.
    receiver.change(|_| Verdict::LoseTheAnswer);
    file.set_len(0).unwrap();
    file.write_all(b"# the same\n").unwrap();
    write_numbers(&mut file, 10..20);
    wait_until("the last one arrives", || receiver.bodies().iter().any(|body| body == "line 19"));
    agent.kill();
    receiver.change(|_| Verdict::Confirm);
    let _agent = room.agent(&receiver.sink(), &QUICK);
    let before = receiver.count();
    wait_until("they come again", || receiver.bodies()[before..].iter().any(|body| body == "line 19"));
    expect_ids_that_hold(&receiver);
}

#[test]
fn new_ids_after_the_loss_of_the_state_directory() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write_numbers(&mut append(&room.log("access.log")), 0..10);
    let mut agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(10);
    assert!(agent.terminate().success());
    fs::remove_dir_all(room.state()).unwrap();
    let agent = room.agent(&receiver.sink(), &[]);
    wait_until("they come again", || receiver.count() == 20);
    assert_eq!(receiver.ids().len(), 20);
    agent.event("it says so", |event| {
        event["message"].as_str().is_some_and(|text| text.contains("a new state directory"))
    });
}

#[test]
fn a_bigger_file_over_a_smaller_one_is_no_loss() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let agent = room.agent(&receiver.sink(), &QUICK);
    write(&room.log("a.log"), "line 0\n");
    receiver.expect_numbers(1);
    for round in 0..5 {
        let text: String = (0..100).map(|number| format!("line {}\n", 1 + round * 100 + number)).collect();
        fs::write(room.log("a.log"), text).unwrap();
        receiver.expect_numbers(101 + round * 100);
    }
    assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5);
}

#[test]
fn copytruncate_twice_with_the_sink_down() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let mut file = append(&room.log("access.log"));
    down(&receiver);
    let agent = room.agent(&receiver.sink(), &[&QUICK[..], &["--chunk-size", "100"]].concat());
    for round in 0..3 {
        write_numbers(&mut file, round * 100..round * 100 + 100);
        let size = fs::metadata(room.log("access.log")).unwrap().len();
        wait_until("it is seen", || {
            status(&agent)["files"]
                .as_array()
                .is_some_and(|files| files.iter().any(|file| file["size"] == size))
        });
        copytruncate(&room, 9 - round, Some(&agent));
    }
    write_numbers(&mut file, 300..310);
    up(&receiver);
    receiver.expect_numbers(310);
    assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5);
}

#[test]
fn what_cannot_be_opened_after_a_restart_is_not_gone() {
    let (room, receiver, mut agent) = stuck_at_5000();
    agent.kill();
    set_mode(&room.log("access.log"), 0);
    up(&receiver);
    let agent = that_modes_hold_for(&room, &receiver.sink());
    agent.event("it is said", |event| {
        event["message"].as_str().is_some_and(|text| text.starts_with("cannot read it"))
    });
    set_mode(&room.log("access.log"), 0o644);
    wait_until("all lines arrive", || receiver.count() >= 250);
    assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5, "{}", agent.stderr());
}

#[test]
fn a_drain_says_what_may_be_in_a_file_that_cannot_be_opened() {
    let (room, receiver, mut agent) = stuck_at_5000();
    agent.kill();
    set_mode(&room.log("access.log"), 0);
    up(&receiver);
    let mut agent = that_modes_hold_for(&room, &receiver.sink());
    agent.event("it is said", |event| {
        event["message"].as_str().is_some_and(|text| text.starts_with("cannot read it"))
    });
    assert_eq!(is_ready(&agent), Some(true), "the file may be another program's");
    assert_eq!(agent.terminate().code(), Some(69), "{}", agent.stderr());
    let last = agent.stderr().lines().last().unwrap().to_owned();
    assert!(last.contains("perhaps more: 5000 bytes of") && last.contains("access.log"), "{last}");
    set_mode(&room.log("access.log"), 0o644);
    let mut agent = that_modes_hold_for(&room, &receiver.sink());
    wait_until("all lines arrive", || receiver.count() >= 250);
    assert!(agent.terminate().success(), "{}", agent.stderr());
}

#[test]
fn what_was_renamed_and_cannot_be_opened_after_a_restart_is_not_gone() {
    let (room, receiver, mut agent) = stuck_at_5000();
    agent.kill();
    fs::rename(room.log("access.log"), room.log("other.log")).unwrap();
    set_mode(&room.log("other.log"), 0);
    up(&receiver);
    let agent = that_modes_hold_for(&room, &receiver.sink());
    agent.event("it is said", |event| {
        event["message"].as_str().is_some_and(|text| text.starts_with("cannot read it"))
    });
    set_mode(&room.log("other.log"), 0o644);
    wait_until("all lines arrive", || receiver.count() >= 250);
    assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5, "{}", agent.stderr());
}

/// A directory may be listed and nothing in it be looked at.
#[test]
fn what_cannot_be_looked_at_after_a_restart_is_not_gone() {
    let (room, receiver, mut agent) = stuck_at_5000();
    agent.kill();
    set_mode(&room.path("logs"), 0o444);
    up(&receiver);
    let agent = that_modes_hold_for(&room, &receiver.sink());
    wait_until("it is not ready", || is_ready(&agent) == Some(false));
    assert_eq!(agent.stderr().matches("cannot look at all names").count(), 1, "{}", agent.stderr());
    set_mode(&room.path("logs"), 0o755);
    wait_until("all lines arrive", || receiver.count() >= 250);
    assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5, "{}", agent.stderr());
    wait_until("it is ready", || is_ready(&agent) == Some(true));
    // Nor is what is followed.
    set_mode(&room.path("logs"), 0o444);
    wait_until("it is not ready", || is_ready(&agent) == Some(false));
    assert_eq!(status(&agent)["files"][0]["named"], true, "{}", agent.stderr());
    set_mode(&room.path("logs"), 0o755);
    wait_until("it is ready", || is_ready(&agent) == Some(true));
}
