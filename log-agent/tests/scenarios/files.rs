//! Which files are followed, and from where.

use std::fs;

use testkit::{Process, wait_until};

use crate::support::{Receiver, Room, append, metric, status, write, write_numbers};

#[test]
fn tail_live() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let mut file = append(&room.log("access.log"));
    let _agent = room.agent(&receiver.sink(), &[]);
    for batch in 0..10 {
        write_numbers(&mut file, batch * 10..(batch + 1) * 10);
        receiver.expect_numbers((batch + 1) * 10);
    }
    let record = &receiver.records()[0];
    assert_eq!(record["log.file.path"], room.log("access.log").to_str().unwrap());
    assert!(record["id"].as_str().unwrap().ends_with(":0"), "{record}");
    assert!(receiver.records()[1]["id"].as_str().unwrap().ends_with(":7"));
}

#[test]
fn read_from_head() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write_numbers(&mut append(&room.log("access.log")), 0..5000);
    let _agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(5000);
}

#[test]
fn many_files() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let name = |file: usize| room.log(&format!("f{file:03}.log"));
    for file in 0..200 {
        write(&name(file), format!("{file} a\n{file} b\n"));
    }
    let _agent = room.agent(&receiver.sink(), &[]);
    wait_until("all first lines arrive", || receiver.records().len() == 400);
    for file in 0..200 {
        write(&name(file), format!("{file} c\n"));
    }
    wait_until("all last lines arrive", || receiver.records().len() == 600);
    let bodies = receiver.bodies();
    for file in 0..200 {
        let prefix = format!("{file} ");
        let of_file: Vec<_> = bodies.iter().filter_map(|body| body.strip_prefix(&prefix)).collect();
        assert_eq!(of_file, ["a", "b", "c"], "file {file}");
    }
}

#[test]
fn glob_and_exclude() {
    let (room, receiver) = (Room::new(), Receiver::start());
    fs::create_dir_all(room.log("deep/er")).unwrap();
    write(&room.log("a.log"), "a\n");
    write(&room.log("a.log.gz"), "excluded\n");
    write(&room.log("b.txt"), "not included\n");
    write(&room.log("deep/c.log"), "not by a star\n");
    let exclude = room.log("*.gz");
    let _agent = room.agent(&receiver.sink(), &["--exclude", exclude.to_str().unwrap()]);
    receiver.expect(&["a"]);
    write(&room.log("b.log"), "b\n");
    receiver.expect(&["a", "b"]);
}

#[test]
fn glob_through_directories() {
    let (room, receiver) = (Room::new(), Receiver::start());
    fs::create_dir_all(room.log("one/two")).unwrap();
    write(&room.log("one/two/a.log"), "a\n");
    let _agent = Process::start_command(room.command("logs/**/*.log", &[&receiver.sink()], &[]));
    receiver.expect(&["a"]);
    fs::create_dir_all(room.log("new")).unwrap();
    write(&room.log("new/b.log"), "b\n");
    receiver.expect(&["a", "b"]);
}

#[test]
fn file_appears_later() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let agent = Process::start_command(room.command(
        "later/app/*.log",
        &[&receiver.sink()],
        &["--rescan-period", "1h"],
    ));
    agent.event("waiting for the directory", |event| {
        event["message"].as_str().is_some_and(|text| text.contains("does not exist yet"))
    });
    fs::create_dir_all(room.path("later/app")).unwrap();
    write(&room.path("later/app/a.log"), "first\n");
    receiver.expect(&["first"]);
    write(&room.path("later/app/a.log"), "second\n");
    receiver.expect(&["first", "second"]);
}

#[test]
fn directory_is_removed_and_made_again() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "a\n");
    let _agent = room.agent(&receiver.sink(), &["--rescan-period", "300ms"]);
    receiver.expect(&["a"]);
    fs::remove_dir_all(room.path("logs")).unwrap();
    fs::create_dir(room.path("logs")).unwrap();
    write(&room.log("a.log"), "b\n");
    receiver.expect(&["a", "b"]);
}

#[test]
fn poll_only() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let _agent = room.agent(&receiver.sink(), &["--watch", "poll", "--rescan-period", "100ms"]);
    let mut file = append(&room.log("access.log"));
    write_numbers(&mut file, 0..10);
    receiver.expect_numbers(10);
    fs::rename(room.log("access.log"), room.log("access.log.1")).unwrap();
    write_numbers(&mut file, 10..20);
    receiver.expect_numbers(20);
    write_numbers(&mut append(&room.log("access.log")), 20..30);
    receiver.expect_numbers(30);
}

#[test]
fn symlink_swap() {
    let (room, receiver) = (Room::new(), Receiver::start());
    fs::create_dir(room.path("real")).unwrap();
    write(&room.path("real/one"), "line 0\n");
    std::os::unix::fs::symlink(room.path("real/one"), room.log("link.log")).unwrap();
    let _agent = room.agent(&receiver.sink(), &["--rescan-period", "1h", "--follow-symlinks"]);
    receiver.expect_numbers(1);
    write(&room.path("real/one"), "line 1\n");
    receiver.expect_numbers(2);
    write(&room.path("real/two"), "line 2\n");
    std::os::unix::fs::symlink(room.path("real/two"), room.log("next")).unwrap();
    fs::rename(room.log("next"), room.log("link.log")).unwrap();
    receiver.expect_numbers(3);
}

#[test]
fn hard_links_are_one_file() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "line 0\n");
    fs::hard_link(room.log("a.log"), room.log("b.log")).unwrap();
    let _agent = room.agent(&receiver.sink(), &[]);
    write(&room.log("b.log"), "line 1\n");
    receiver.expect_numbers(2);
}

#[test]
fn what_is_no_file_is_left_alone() {
    let (room, receiver) = (Room::new(), Receiver::start());
    fs::create_dir(room.log("dir.log")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, room.log("fifo.log"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    std::os::unix::fs::symlink("nowhere", room.log("dangling.log")).unwrap();
    write(&room.log("a.log"), "line 0\n");
    let _agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(1);
}

/// Between a rotation and the next line there is no file of the log's own name.
#[test]
fn rotated_files_of_a_log_that_is_away_are_one_log() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("w.log.1"), "line 3\n");
    write(&room.log("w.log.10"), "line 0\nline 1\n");
    write(&room.log("w.log.2"), "line 2\n");
    let _agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(4);
}

#[test]
fn a_file_that_was_compressed_is_read_once_it_holds_lines() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let log = room.log("a.log");
    write(&log, b"\x1f\x8b\x08\0\0\0\0\0\0\x03\ncompressed\n");
    let agent = room.agent(&receiver.sink(), &["--rescan-period", "50ms"]);
    agent.event("it is left out", |event| {
        event["message"].as_str().is_some_and(|message| message.starts_with("compressed"))
    });
    fs::write(&log, "line 0\n").unwrap();
    receiver.expect_numbers(1);
    // And compressed again, with another content than the first.
    fs::write(&log, b"\x1f\x8b\x08\0\0\0\0\0\0\x03\nother\n").unwrap();
    wait_until("it is left out again", || agent.stderr().matches("compressed, so not read").count() == 2);
    fs::write(&log, "line 1\n").unwrap();
    receiver.expect_numbers(2);
    assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5);
}

#[test]
fn the_agents_own_files_do_not_feed_it() {
    let (room, elsewhere) = (Room::new(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(room.path("logs"), elsewhere.path().join("link")).unwrap();
    let sink = format!("file:{}/link/out.log", elsewhere.path().display());
    let more = ["--rescan-period", "50ms", "--checkpoint-period", "50ms"];
    let mut file = append(&room.log("a.log"));
    write_numbers(&mut file, 0..10);
    // That has the state directory in it, too.
    let agent = Process::start_command(room.command("**", &[&sink], &more));
    let written = || fs::read_to_string(room.log("out.log")).unwrap_or_default().lines().count();
    wait_until("the lines are written", || written() == 10);
    wait_until("and remembered", || room.checkpointed(&sink) == 70);
    write_numbers(&mut file, 10..11);
    wait_until("and one more", || written() == 11);
    let said = |name: &str| {
        let stderr = agent.stderr();
        stderr.lines().filter(|line| line.contains("the agent itself") && line.contains(name)).count()
    };
    wait_until("its own files are named", || said("out.log") > 0 && said("checkpoint.0.json") > 0);
    assert_eq!(status(&agent)["files"].as_array().unwrap().len(), 1);
    assert_eq!(written(), 11);
    // Some of them come and go.
    let temporary = room.state().join("instance.tmp");
    for round in 0..3 {
        fs::write(&temporary, "").unwrap();
        fs::write(room.log(&format!("{round}-with.log")), "line\n").unwrap();
        wait_until("a scan has seen it", || said("instance.tmp") > 0 && written() == 12 + 2 * round);
        fs::remove_file(&temporary).unwrap();
        fs::write(room.log(&format!("{round}-without.log")), "line\n").unwrap();
        wait_until("a scan has not seen it", || written() == 13 + 2 * round);
    }
    assert_eq!(said("instance.tmp"), 1, "{}", agent.stderr());
}
