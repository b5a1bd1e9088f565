//! Files that are copied and then cut off while a sink takes its time: each line comes once all the same.

use std::fs;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use testkit::{Process, wait_until};

use crate::support::{Receiver, Room, Verdict, append, metric, number, write_numbers};
use crate::truncate::copytruncate;

/// A receiver that keeps its answers back while it is told to: what it was sent is then under way for as long.
struct Slow {
    receiver: Receiver,
    holds: Arc<AtomicBool>,
    held: Arc<AtomicUsize>,
}

impl Slow {
    fn start() -> Self {
        let (holds, held) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let receiver = Receiver::that({
            let (holds, held) = (Arc::clone(&holds), Arc::clone(&held));
            move |_| {
                held.fetch_add(1, Ordering::SeqCst);
                while holds.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                held.fetch_sub(1, Ordering::SeqCst);
                Verdict::Confirm
            }
        });
        Self { receiver, holds, held }
    }

    fn hold(&self) {
        self.holds.store(true, Ordering::SeqCst);
    }

    fn expect_held(&self) {
        wait_until("a chunk is under way", || self.held.load(Ordering::SeqCst) > 0);
    }

    fn release(&self) {
        self.holds.store(false, Ordering::SeqCst);
    }

    /// Waits for all of the numbered lines: none comes twice, whatever the order of the copies.
    #[track_caller]
    fn expect_once(&self, agent: &Process, numbers: usize) {
        wait_until(&format!("{numbers} lines arrive"), || self.receiver.count() >= numbers);
        wait_until("nothing waits any more", || metric(agent, "log_agent_unconfirmed_bytes") < 0.5);
        let mut got: Vec<_> = self.receiver.bodies().iter().map(|body| number(body).unwrap()).collect();
        got.sort_unstable();
        let repeated = got.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert_eq!(repeated, 0, "repeated, of {} lines", got.len());
        assert!(got.into_iter().eq(0..numbers));
    }
}

fn expect_settled(agent: &Process, truncations: usize) {
    wait_until("the truncation is noticed", || {
        agent.stderr().matches("the file's content was replaced").count() >= truncations
    });
}

const QUICK: [&str; 2] = ["--rescan-period", "50ms"];

#[test]
fn copytruncate_live_under_load() {
    let (room, slow) = (Room::new(), Slow::start());
    let mut file = append(&room.log("access.log"));
    let agent = room.agent(&slow.receiver.sink(), &QUICK);
    for round in 0..6 {
        slow.hold();
        write_numbers(&mut file, round * 100..round * 100 + 50);
        slow.expect_held();
        copytruncate(&room, 9 - round, Some(&agent));
        write_numbers(&mut file, round * 100 + 50..round * 100 + 100);
        expect_settled(&agent, round + 1);
        slow.release();
        slow.expect_once(&agent, (round + 1) * 100);
    }
    assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5);
}

#[test]
fn copytruncate_before_a_slow_sink_was_given_all() {
    let (room, slow, other) = (Room::new(), Slow::start(), Receiver::start());
    let mut file = append(&room.log("access.log"));
    let more = ["--rescan-period", "50ms", "--chunk-size", "4KiB", "--rotate-wait", "100ms"];
    let sinks = [slow.receiver.sink(), other.sink()];
    let agent = Process::start_command(room.command("logs/*.log*", &[&sinks[0], &sinks[1]], &more));
    for round in 0..3 {
        slow.hold();
        write_numbers(&mut file, round * 4000..round * 4000 + 3000);
        slow.expect_held();
        copytruncate(&room, 9 - round, Some(&agent));
        write_numbers(&mut file, round * 4000 + 3000..(round + 1) * 4000);
        // Nobody reads for the slow one; it shows all the same, before the copy is taken for a file of its own.
        expect_settled(&agent, round + 1);
        slow.release();
        slow.expect_once(&agent, (round + 1) * 4000);
        wait_until("the other has it, too", || other.count() >= (round + 1) * 4000);
    }
    assert_eq!(other.count(), 12_000);
    assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5);
}

#[test]
fn copytruncate_of_lines_that_its_copy_lacks() {
    let (room, slow) = (Room::new(), Slow::start());
    let mut file = append(&room.log("access.log"));
    let agent = room.agent(&slow.receiver.sink(), &QUICK);
    for (round, held) in [true, false].into_iter().enumerate() {
        let from = round * 1000;
        write_numbers(&mut file, from..from + 300);
        slow.expect_once(&agent, from + 300);
        fs::copy(room.log("access.log"), room.log(&format!("access.log.{}", 9 - round))).unwrap();
        if held {
            slow.hold();
        }
        // In one write, so that they are read as one.
        let text: String = (from + 300..from + 900).map(|number| format!("line {number}\n")).collect();
        file.write_all(text.as_bytes()).unwrap();
        if held {
            slow.expect_held();
        } else {
            wait_until("they arrive", || slow.receiver.count() == from + 900);
        }
        file.set_len(0).unwrap();
        write_numbers(&mut file, from + 900..from + 1000);
        expect_settled(&agent, round + 1);
        slow.release();
        slow.expect_once(&agent, from + 1000);
    }
    assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5);
}

#[test]
fn copytruncate_and_a_crash_while_a_chunk_is_under_way() {
    let (room, slow) = (Room::new(), Slow::start());
    let mut file = append(&room.log("access.log"));
    let mut agent = room.agent(&slow.receiver.sink(), &QUICK);
    write_numbers(&mut file, 0..50);
    slow.expect_once(&agent, 50);
    wait_until("it is remembered", || metric(&agent, "log_agent_checkpoints_total") > 0.5);
    slow.hold();
    write_numbers(&mut file, 50..100);
    slow.expect_held();
    copytruncate(&room, 1, Some(&agent));
    write_numbers(&mut file, 100..150);
    expect_settled(&agent, 1);
    // What was under way is not confirmed, wherever it was read from.
    agent.kill();
    slow.receiver.change(|_| Verdict::Confirm);
    let mut agent = room.agent(&slow.receiver.sink(), &["--exit-at-eof", "--rotate-wait", "300ms"]);
    assert!(agent.wait().success(), "{}", agent.stderr());
    slow.release();
    slow.receiver.expect_each_number(150);
}

#[test]
fn copytruncate_seen_before_its_original_is_read() {
    let (room, slow) = (Room::new(), Slow::start());
    let more = ["--rescan-period", "50ms", "--chunk-size", "10", "--rotate-wait", "5m"];
    slow.hold();
    // Take the place of all that may be under way, so that nothing of the log is read: the first what is sent, and one of
    // them, at the latest once the second is followed, what is sent next.
    write_numbers(&mut append(&room.log("a.log")), 0..50);
    let agent = room.agent(&slow.receiver.sink(), &more);
    slow.expect_held();
    write_numbers(&mut append(&room.log("b.log")), 50..100);
    wait_until("the second is followed", || metric(&agent, "log_agent_open_files") > 1.5);
    let mut file = append(&room.log("access.log"));
    write_numbers(&mut file, 100..110);
    wait_until("the log is followed", || metric(&agent, "log_agent_open_files") > 2.5);
    fs::copy(room.log("access.log"), room.log("access.log.1")).unwrap();
    wait_until("the copy is seen", || metric(&agent, "log_agent_open_files") > 3.5);
    slow.release();
    wait_until("they arrive", || slow.receiver.count() >= 110);
    file.set_len(0).unwrap();
    write_numbers(&mut file, 110..120);
    expect_settled(&agent, 1);
    slow.expect_once(&agent, 120);
    assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5);
}

#[test]
fn copytruncate_that_a_restart_comes_into_sends_nothing_again() {
    for truncates in [true, false] {
        let (room, receiver) = (Room::new(), Receiver::start());
        let mut file = append(&room.log("access.log"));
        write_numbers(&mut file, 0..50);
        let more = ["--rescan-period", "50ms", "--rotate-wait", "5m"];
        let mut agent = room.agent(&receiver.sink(), &more);
        receiver.expect_numbers(50);
        fs::copy(room.log("access.log"), room.log("access.log.1")).unwrap();
        wait_until("the copy is seen", || metric(&agent, "log_agent_open_files") > 1.5);
        // Its last checkpoint knows the copy.
        agent.terminate();
        if truncates {
            file.set_len(0).unwrap();
        }
        write_numbers(&mut file, 50..100);
        let agent = room.agent(&receiver.sink(), &["--rescan-period", "50ms", "--rotate-wait", "300ms"]);
        wait_until("both are followed", || metric(&agent, "log_agent_open_files") > 1.5);
        wait_until("nothing waits any more", || metric(&agent, "log_agent_unconfirmed_bytes") < 0.5);
        receiver.expect_numbers(100);
        assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5);
    }
}
