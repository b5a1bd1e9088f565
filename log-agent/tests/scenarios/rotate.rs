//! Rotation, removal, truncation: nothing lost, nothing twice, old before new.

use std::fs;

use testkit::{Answer, Process, wait_until};

use crate::support::{Receiver, Room, Verdict, append, metric, status, write, write_numbers};

/// Rotates as logrotate does without `copytruncate`: `.1` becomes `.2`, the log becomes `.1`.
fn rotate(room: &Room) {
    for number in (1..9).rev() {
        let from = room.log(&format!("access.log.{number}"));
        if from.exists() {
            fs::rename(from, room.log(&format!("access.log.{}", number + 1))).unwrap();
        }
    }
    fs::rename(room.log("access.log"), room.log("access.log.1")).unwrap();
}

pub(crate) fn down(receiver: &Receiver) {
    receiver.change(|_| Verdict::Refuse(Answer::new(503, "")));
}

pub(crate) fn up(receiver: &Receiver) {
    receiver.change(|_| Verdict::Confirm);
}

#[test]
fn rotate_live() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let mut old = append(&room.log("access.log"));
    let _agent = room.agent(&receiver.sink(), &[]);
    write_numbers(&mut old, 0..100);
    rotate(&room);
    // The server has not reopened its log yet.
    write_numbers(&mut old, 100..200);
    receiver.expect_numbers(200);
    let mut new = append(&room.log("access.log"));
    write_numbers(&mut new, 200..300);
    receiver.expect_numbers(300);
}

#[test]
fn rotate_under_load() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let _agent = room.agent(&receiver.sink(), &[]);
    for round in 0..8 {
        let mut file = append(&room.log("access.log"));
        write_numbers(&mut file, round * 1000..round * 1000 + 990);
        rotate(&room);
        write_numbers(&mut file, round * 1000 + 990..(round + 1) * 1000);
    }
    receiver.expect_numbers(8000);
}

#[test]
fn rotate_while_down() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let mut agent = room.agent(&receiver.sink(), &[]);
    write_numbers(&mut append(&room.log("access.log")), 0..10);
    receiver.expect_numbers(10);
    assert!(agent.terminate().success());
    for round in 1..4 {
        write_numbers(&mut append(&room.log("access.log")), round * 10..round * 10 + 10);
        rotate(&room);
    }
    write_numbers(&mut append(&room.log("access.log")), 40..50);
    let _agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(50);
}

#[test]
fn double_rotate_behind() {
    let (room, receiver) = (Room::new(), Receiver::start());
    down(&receiver);
    let _agent = room.agent(&receiver.sink(), &[]);
    for round in 0..3 {
        write_numbers(&mut append(&room.log("access.log")), round * 1000..(round + 1) * 1000);
        if round < 2 {
            rotate(&room);
        }
    }
    wait_until("it was tried", || !receiver.upstream.requests().is_empty());
    up(&receiver);
    receiver.expect_numbers(3000);
}

#[test]
fn rotate_out_of_glob() {
    let (room, receiver) = (Room::new(), Receiver::start());
    down(&receiver);
    let mut old = append(&room.log("access.log"));
    write_numbers(&mut old, 0..100);
    let more = ["--rotate-wait", "1s", "--rescan-period", "200ms"];
    let agent = Process::start_command(room.command("logs/*.log", &[&receiver.sink()], &more));
    wait_until("it is followed", || status(&agent)["files"].as_array().is_some_and(|files| files.len() == 1));
    fs::create_dir(room.path("archive")).unwrap();
    fs::rename(room.log("access.log"), room.path("archive/old")).unwrap();
    write_numbers(&mut old, 100..200);
    write_numbers(&mut append(&room.log("access.log")), 200..300);
    up(&receiver);
    receiver.expect_numbers(300);
    wait_until("the old one is closed", || metric(&agent, "log_agent_open_files") < 1.5);
}

#[test]
#[expect(non_snake_case, reason = "the unit is a name")]
fn unlink_with_50MB_unread() {
    let (room, receiver) = (Room::new(), Receiver::start());
    down(&receiver);
    let filler = "x".repeat(10_000);
    let text: String = (0..5000).map(|number| format!("{number} {filler}\n")).collect();
    assert!(text.len() > 50_000_000);
    write(&room.log("access.log"), text);
    let agent = room.agent(&receiver.sink(), &["--rotate-wait", "300ms"]);
    wait_until("it is followed", || status(&agent)["files"].as_array().is_some_and(|files| files.len() == 1));
    fs::remove_file(room.log("access.log")).unwrap();
    up(&receiver);
    wait_until("all arrive", || receiver.count() == 5000);
    let numbers = receiver.bodies();
    let numbers = numbers.iter().map(|body| body.split_once(' ').unwrap().0.parse::<usize>().unwrap());
    assert!(numbers.eq(0..5000));
    agent.event("drained and closed", |event| event["message"] == "drained and closed");
    let held = fs::read_dir(format!("/proc/{}/fd", agent.id()))
        .unwrap()
        .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
        .filter(|target| target.to_string_lossy().contains("access.log"));
    assert_eq!(held.count(), 0, "the disk space of a removed file is given back");
}

#[test]
#[expect(non_snake_case, reason = "the unit is a name")]
fn same_header_4KiB() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let header = "#".repeat(4096) + "\n";
    write(&room.log("a.log"), format!("{header}line 1\n"));
    let mut agent = room.agent(&receiver.sink(), &[]);
    receiver.expect(&[header.trim(), "line 1"]);
    assert!(agent.terminate().success());
    fs::remove_file(room.log("a.log")).unwrap();
    write(&room.log("a.log"), format!("{header}line 1\nline 2\n"));
    let _agent = room.agent(&receiver.sink(), &[]);
    receiver.expect(&[header.trim(), "line 1", header.trim(), "line 1", "line 2"]);
}

/// Removes and writes anew until the file system gives out the same inode again.
fn recreate_with_the_same_inode(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::MetadataExt as _;
    let inode = fs::metadata(path).unwrap().ino();
    fs::remove_file(path).unwrap();
    for attempt in 0..1000 {
        fs::write(path, text).unwrap();
        if fs::metadata(path).unwrap().ino() == inode {
            return;
        }
        // Kept under another name, so that the next one is not given the same wrong inode.
        fs::rename(path, path.with_file_name(format!("decoy{attempt}"))).unwrap();
    }
    // Other tests share the file system, and one of them may have been given it. Then this is a new file like any other.
    println!("another inode: what was to be shown was not tried");
    fs::write(path, text).unwrap();
}

#[test]
fn delete_recreate_same_inode() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "line 0\nline 1\n");
    let mut agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(2);
    assert!(agent.terminate().success());
    recreate_with_the_same_inode(&room.log("a.log"), "line 2\nline 3\nline 4\n");
    let _agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(5);
}

#[test]
fn tail_twin() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "same\nsame\n");
    let mut agent = room.agent(&receiver.sink(), &[]);
    receiver.expect(&["same", "same"]);
    assert!(agent.terminate().success());
    recreate_with_the_same_inode(&room.log("a.log"), "same\nsame\nlarger\n");
    let _agent = room.agent(&receiver.sink(), &[]);
    receiver.expect(&["same", "same", "same", "same", "larger"]);
}

#[test]
fn rotated_to_gz() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("access.log"), "line 0\n");
    let agent = room.agent(&receiver.sink(), &["--rotate-wait", "300ms"]);
    receiver.expect_numbers(1);
    rotate(&room);
    write(&room.log("access.log"), "line 1\n");
    receiver.expect_numbers(2);
    // What gzip writes, with a line break in it for good measure.
    write(&room.log("access.log.1.gz"), b"\x1f\x8b\x08\0\0\0\0\0\0\x03\ncompressed\n");
    fs::remove_file(room.log("access.log.1")).unwrap();
    agent.event("it says so", |event| {
        event["message"].as_str().is_some_and(|text| text.starts_with("compressed"))
    });
    write(&room.log("access.log"), "line 2\n");
    receiver.expect_numbers(3);
}
