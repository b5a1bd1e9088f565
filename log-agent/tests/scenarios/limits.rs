//! A kernel that has no more watches, events or disk for the agent, and memory that the agent has to do with.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use testkit::process::anonymous_bytes;
use testkit::{Answer, Process, wait_until};

use crate::forward;
use crate::support::{MEMORY, Receiver, Room, Verdict, append, binary, status, write, write_numbers};

/// An agent whose shell does something first.
fn after(shell: &str, wrapper: &[&str], room: &Room, sink: &str, more: &[&str]) -> Process {
    let mut words = wrapper.iter().copied().chain(["sh", "-c"]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).arg(format!("{shell} && exec \"$0\" \"$@\"")).arg(binary());
    command.arg("--include").arg(room.path("logs/*.log*")).arg("--state-dir").arg(room.state());
    command.args(["--sink", sink]).args(more);
    Process::start_command(command)
}

#[test]
fn inotify_limit() {
    // Limits of a user namespace of the test's own, so that nobody else runs into them. Where the kernel gives none to
    // this user, `poll_only` is what is left to show.
    let namespace = ["unshare", "--user", "--map-root-user"];
    let can = Command::new("unshare").args(["--user", "--map-root-user", "true"]).status();
    let shells: &[&str] = match can {
        Ok(status) if status.success() => {
            &["echo 0 >/proc/sys/user/max_inotify_instances", "echo 0 >/proc/sys/user/max_inotify_watches"]
        }
        _ => {
            println!("no user namespace for this user: not tried");
            return;
        }
    };
    for shell in shells {
        let (room, receiver) = (Room::new(), Receiver::start());
        write_numbers(&mut append(&room.log("a.log")), 0..10);
        let agent = after(shell, &namespace, &room, &receiver.sink(), &["--rescan-period", "100ms"]);
        agent.event("it says so", |event| {
            event["message"].as_str().is_some_and(|text| text.contains("no file events"))
        });
        write_numbers(&mut append(&room.log("a.log")), 10..20);
        receiver.expect_numbers(20);
        std::fs::rename(room.log("a.log"), room.log("a.log.1")).unwrap();
        write_numbers(&mut append(&room.log("a.log")), 20..30);
        receiver.expect_numbers(30);
    }
}

#[test]
fn inotify_overflow() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write_numbers(&mut append(&room.log("a.log")), 0..10);
    // No scan but the one that the overflow itself asks for.
    let agent = room.agent(&receiver.sink(), &["--rescan-period", "1h"]);
    receiver.expect_numbers(10);
    agent.signal(Signal::STOP);
    // More than the kernel's queue holds (16,384 by default); equal events in a row would become one.
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let mut noise = ["x", "y"].map(|name| append(&room.path("logs").join(name)));
    for _ in 0..limit.trim().parse::<usize>().unwrap() {
        for file in &mut noise {
            file.write_all(b".").unwrap();
        }
    }
    // Nobody hears of this one.
    write_numbers(&mut append(&room.log("a.log")), 10..20);
    std::fs::rename(room.log("a.log"), room.log("a.log.1")).unwrap();
    write_numbers(&mut append(&room.log("a.log")), 20..30);
    agent.signal(Signal::CONT);
    receiver.expect_numbers(30);
}

#[test]
fn checkpoint_disk_full() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write_numbers(&mut append(&room.log("a.log")), 0..10);
    // A file that may not grow is what a full disk is: the write fails in the middle.
    let shell = "trap '' XFSZ && ulimit -S -f 0";
    let mut agent = after(shell, &[], &room, &receiver.sink(), &["--checkpoint-period", "50ms"]);
    receiver.expect_numbers(10);
    agent.event("it says so", |event| {
        event["message"].as_str().is_some_and(|text| text.contains("cannot write the checkpoint"))
    });
    write_numbers(&mut append(&room.log("a.log")), 10..20);
    receiver.expect_numbers(20);
    agent.kill();
    let mut agent = after(shell, &[], &room, &receiver.sink(), &["--checkpoint-period", "50ms"]);
    wait_until("all come again: nothing was ever checkpointed", || receiver.records().len() == 40);
    agent.event("it fails again", |event| {
        event["message"].as_str().is_some_and(|text| text.contains("cannot write the checkpoint"))
    });
    let pid = Pid::from_raw(i32::try_from(agent.id()).unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
    agent.event("it recovers", |event| {
        event["message"].as_str().is_some_and(|text| text.contains("written again"))
    });
    agent.kill();
    write_numbers(&mut append(&room.log("a.log")), 20..30);
    let _agent = room.agent(&receiver.sink(), &[]);
    wait_until("the rest arrives", || receiver.records().len() == 50);
}

/// Without a state directory that can be written, what a killed agent had sent is not known to the next one.
#[test]
fn no_id_names_two_records_where_none_can_be_kept() {
    let (room, receiver) = (Room::new(), Receiver::start());
    // A first one, while the directory can still be written, knows the file as empty.
    write(&room.log("a.log"), "");
    let mut agent = room.agent(&receiver.sink(), &[]);
    let checkpoint = || std::fs::read_to_string(room.state().join("checkpoint.0.json")).unwrap_or_default();
    wait_until("it is known", || checkpoint().contains("a.log"));
    agent.kill();
    let shell = "trap '' XFSZ && ulimit -S -f 0";
    for round in 0..3 {
        std::fs::write(room.log("a.log"), format!("# the same\nline {round}\n")).unwrap();
        let mut agent = after(shell, &[], &room, &receiver.sink(), &["--checkpoint-period", "50ms"]);
        wait_until("both lines arrive", || receiver.count() == 2 * (round + 1));
        agent.kill();
        assert_eq!(receiver.ids().len(), 2 * (round + 1));
    }
}

/// Nor where the id of the content is known from before, and all that the checkpoint compares was written again.
#[test]
fn no_id_names_two_records_where_the_state_directory_fails_later() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let known: String = (0..500).map(|number| format!("line {number}\n")).collect();
    write(&room.log("a.log"), &known);
    let mut agent = room.agent(&receiver.sink(), &[]);
    wait_until("all are confirmed", || room.checkpointed(&receiver.sink()) == known.len() as u64);
    assert!(agent.terminate().success());
    let shell = "trap '' XFSZ && ulimit -S -f 0";
    for round in 0..3 {
        std::fs::write(room.log("a.log"), format!("{known}round {round}\n")).unwrap();
        let mut agent = after(shell, &[], &room, &receiver.sink(), &["--checkpoint-period", "50ms"]);
        wait_until("the new line arrives", || receiver.count() == 501 + round);
        agent.kill();
        assert_eq!(receiver.ids().len(), 501 + round);
    }
    // Once it can be written again, ids are kept again.
    let mut agent = room.agent(&receiver.sink(), &[]);
    wait_until("the last line comes again", || receiver.count() == 504);
    write(&room.log("a.log"), "the next\n");
    wait_until("the next one arrives", || receiver.count() == 505);
    assert_eq!(receiver.ids().len(), 505);
    wait_until("both are confirmed", || room.checkpointed(&receiver.sink()) > known.len() as u64 + 10);
    agent.kill();
    let _agent = room.agent(&receiver.sink(), &[]);
    write(&room.log("a.log"), "the last\n");
    wait_until("nothing else comes again", || receiver.bodies().last().unwrap() == "the last");
    assert_eq!((receiver.count(), receiver.ids().len()), (506, 506));
}

/// Writes the text to the sink of `scheme` that is down first and up then, and returns the most memory that was seen.
fn peak(scheme: &str, room: &Room, more: &[&str], is_all: impl Fn(usize) -> bool) -> u64 {
    let receiver = Receiver::that(|_| Verdict::Refuse(Answer::new(503, "")));
    let sink = format!("{scheme}+{}", receiver.upstream.url("/"));
    let agent = room.agent(&sink, more);
    wait_until("it is tried again", || receiver.upstream.requests().len() >= 4);
    let down = anonymous_bytes(agent.id());
    // Counted, not kept: only the agent's memory is in question here.
    let bytes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&bytes);
    receiver.upstream.answer(move |request| {
        counted.fetch_add(request.body.len(), Ordering::SeqCst);
        Answer::new(200, "")
    });
    let mut peak = down;
    let start = std::time::Instant::now();
    while !is_all(bytes.load(Ordering::SeqCst)) || status(&agent)["sinks"][0]["failing"].is_object() {
        assert!(start.elapsed().as_secs() < 600, "{} bytes", bytes.load(Ordering::SeqCst));
        receiver.upstream.forget();
        peak = peak.max(anonymous_bytes(agent.id()));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    println!("{scheme} {more:?}: {} KiB while the sink is down, {} KiB at most", down / 1024, peak / 1024);
    peak
}

/// The same for a sink that is there from the beginning, and an agent that leaves when all is shipped.
fn peak_until_the_end(sink: &str, room: &Room, more: &[&str]) -> u64 {
    let mut command = room.command("logs/*.log*", &[sink], more);
    command.args(["--exit-at-eof", "--admin-addr", "127.0.0.1:0"]).stdout(Stdio::null());
    let mut agent = command.spawn().unwrap();
    let mut peak = 0;
    let left = loop {
        if let Some(left) = agent.try_wait().unwrap() {
            break left;
        }
        peak = peak.max(anonymous_bytes(agent.id()));
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert!(left.success(), "{sink}");
    println!("{sink} {more:?}: {} KiB at most", peak / 1024);
    peak
}

/// Bytes of a line.
const LINE: usize = 209;
const LINES_A_MEGABYTE: usize = 1_000_000 / LINE;

/// Lines of an ordinary length, and the shortest there are, which weigh what their envelopes weigh.
fn fill(room: &Room, megabytes: usize) {
    let line = format!("{{\"a\":\"{}\"}}\n", "x".repeat(LINE - 9));
    let mut file = append(&room.log("a.log"));
    let megabyte = line.repeat(LINES_A_MEGABYTE);
    for _ in 0..megabytes {
        file.write_all(megabyte.as_bytes()).unwrap();
    }
    write(&room.log("b.log"), "\n".repeat(100_000));
}

#[test]
fn rss_bounded() {
    let room = Room::new();
    fill(&room, 20);
    // A gigabyte without a line break, of which the disk knows nothing.
    append(&room.log("c.log")).set_len(1_000_000_000).unwrap();
    write(&room.log("c.log"), "\nend\n");
    let all = peak("ndjson", &room, &[], |bytes| bytes > 25_000_000);
    assert!(all < MEMORY, "{all}");
}

#[test]
#[ignore = "takes minutes: CONTRIBUTING.md says how to run it on a release build"]
fn rss_bounded_by_a_gigabyte_through_any_sink() {
    let room = Room::new();
    fill(&room, 1000);
    let anew = || drop(std::fs::remove_dir_all(room.state()));
    for (scheme, compression) in
        [("ndjson", "none"), ("otlp", "none"), ("ndjson", "gzip"), ("otlp", "gzip"), ("ndjson", "zstd")]
    {
        anew();
        let more = ["--compression", compression, "--label", "service.name=web"];
        let least = if compression == "none" { 1_000_000_000 } else { 5_000_000 };
        let all = peak(scheme, &room, &more, |bytes| bytes > least);
        assert!(all < MEMORY, "{scheme} {compression}: {all}");
    }
    for compression in ["none", "gzip"] {
        anew();
        let receiver = forward::acknowledge_all();
        let sink = format!("forward://{}", receiver.addr);
        let all = peak_until_the_end(&sink, &room, &["--compression", compression]);
        let records = receiver.records.load(Ordering::SeqCst);
        assert_eq!(records, LINES_A_MEGABYTE * 1000 + 100_000, "all of them");
        assert!(all < MEMORY, "forward {compression}: {all}");
    }
    let out = room.path("out");
    for sink in ["stdout:".to_owned(), "raw+stdout:".to_owned(), format!("raw+file:{}", out.display())] {
        anew();
        let all = peak_until_the_end(&sink, &room, &[]);
        assert!(all < MEMORY, "{sink}: {all}");
    }
    assert_eq!(std::fs::metadata(&out).unwrap().len(), (LINES_A_MEGABYTE * LINE * 1000 + 100_000) as u64);
    std::fs::remove_file(&out).unwrap();
    anew();
    let all = peak_until_the_end(&format!("file:{}", out.display()), &room, &[]);
    assert!(all < MEMORY, "file: {all}");
}
