//! SIGTERM: everything that is there is shipped, or named.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use testkit::{Answer, wait_until};

use crate::support::{Receiver, Room, Verdict, append, drained, status, write, write_numbers};

#[test]
fn sigterm_drain() {
    for round in 0..10 {
        let (room, receiver) = (Room::new(), Receiver::start());
        let mut file = append(&room.log("a.log"));
        let mut agent = room.agent(&receiver.sink(), &[]);
        write_numbers(&mut file, 0..1);
        receiver.expect_numbers(1);
        write_numbers(&mut file, 1..100 + round);
        assert!(agent.terminate().success(), "{}", agent.stderr());
        assert_eq!(drained(&agent), 0);
        receiver.expect_numbers(100 + round);
    }
}

#[test]
fn sigterm_drain_of_a_file_that_just_appeared() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let mut agent = room.agent(&receiver.sink(), &["--watch", "poll", "--rescan-period", "1h"]);
    agent.addr("admin");
    wait_until("it answers", || testkit::http::try_get(agent.addr("admin"), "/livez").is_ok());
    write(&room.log("a.log"), "line 0\n");
    assert!(agent.terminate().success());
    receiver.expect_numbers(1);
}

/// What is written between the drain's look at the names and its end is found by its end.
#[test]
fn sigterm_drain_of_a_long_line_that_is_written_meanwhile() {
    let (room, is_open) = (Room::new(), Arc::new(AtomicBool::new(false)));
    let opened = Arc::clone(&is_open);
    let receiver = Receiver::that(move |_| {
        wait_until("the receiver may answer", || opened.load(Ordering::SeqCst));
        Verdict::Confirm
    });
    write(&room.log("a.log"), "line 0\n");
    // Neither a scan nor a checkpoint wakes the reader.
    let more = ["--watch", "poll", "--rescan-period", "1h", "--checkpoint-period", "1h"];
    let mut agent = room.agent(&receiver.sink(), &more);
    wait_until("it is under way", || !receiver.upstream.requests().is_empty());
    write(&room.log("a.log"), "line 1\n");
    agent.signal(Signal::TERM);
    wait_until("the drain has looked", || status(&agent)["files"][0]["size"] == 14);
    write(&room.log("a.log"), [&vec![b'x'; 24 << 20][..], b"\nline 2\n"].concat());
    is_open.store(true, Ordering::SeqCst);
    assert!(agent.wait().success(), "{}", agent.stderr());
    assert_eq!(drained(&agent), 0);
    assert_eq!(receiver.bodies().last().unwrap(), "line 2");
}

#[test]
fn sigterm_sink_down() {
    let (room, receiver) = (Room::new(), Receiver::that(|_| Verdict::Refuse(Answer::new(503, ""))));
    write_numbers(&mut append(&room.log("a.log")), 0..100);
    let termination = room.path("termination-log");
    std::fs::write(&termination, "").unwrap();
    let more = ["--shutdown-timeout", "2s", "--termination-log", termination.to_str().unwrap()];
    let mut agent = room.agent(&receiver.sink(), &more);
    wait_until("it was tried", || !receiver.upstream.requests().is_empty());
    let asked = Instant::now();
    assert_eq!(agent.terminate().code(), Some(69));
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    let size = std::fs::metadata(room.log("a.log")).unwrap().len();
    assert_eq!(drained(&agent), size);
    let file = room.log("a.log");
    agent.event("the file is named", |event| {
        event["file"] == file.to_str().unwrap() && event["bytes"] == size
    });
    let message = std::fs::read_to_string(&termination).unwrap();
    assert!(message.contains(&format!("remaining_bytes={size}")), "{message}");
    receiver.change(|_| Verdict::Confirm);
    let mut agent = room.agent(&receiver.sink(), &more);
    receiver.expect_numbers(100);
    assert!(agent.terminate().success());
    assert_eq!(std::fs::read_to_string(&termination).unwrap(), "drained remaining_bytes=0\n");
}

#[test]
fn a_disk_that_does_not_answer_is_not_waited_for() {
    let (room, receiver) = (Room::new(), Receiver::start());
    std::fs::create_dir(room.state()).unwrap();
    // To open a FIFO for writing takes as long as it takes until somebody reads from it.
    let hangs = room.state().join("checkpoint.tmp");
    assert!(std::process::Command::new("mkfifo").arg(&hangs).status().unwrap().success());
    let termination = room.path("termination-log");
    std::fs::write(&termination, "").unwrap();
    let more = [
        "--checkpoint-period",
        "50ms",
        "--shutdown-timeout",
        "1s",
        "--termination-log",
        termination.to_str().unwrap(),
    ];
    let mut file = append(&room.log("a.log"));
    write_numbers(&mut file, 0..10);
    let mut agent = room.agent(&receiver.sink(), &more);
    receiver.expect_numbers(10);
    write_numbers(&mut file, 10..20);
    receiver.expect_numbers(20);
    let asked = Instant::now();
    assert!(agent.terminate().success(), "all is delivered: {}", agent.stderr());
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    let message = std::fs::read_to_string(&termination).unwrap();
    assert!(message.contains("remaining_bytes=0") && message.contains("did not answer in time"), "{message}");
    std::fs::remove_file(&hangs).unwrap();
    let _agent = room.agent(&receiver.sink(), &[]);
    // Under other ids, since none was ever kept.
    wait_until("they come again", || receiver.count() == 40);
    assert_eq!(receiver.ids().len(), 40);
}
