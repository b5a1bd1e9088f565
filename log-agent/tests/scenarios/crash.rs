//! Killed, restarted, with a checkpoint that is old, torn or not its own: lines may come twice, none is missing.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::time::Duration;

use testkit::{Answer, Process, wait_until};

use crate::rotate::{down, up};
use crate::support::{Receiver, Room, Verdict, append, binary, metric, status, write, write_numbers};

#[test]
fn sigkill_100_times_slow_sink() {
    // More than is confirmed before the kill: there is always a chunk that was read and not confirmed.
    const LINES: usize = 80;
    let (room, receiver) = (Room::new(), Receiver::start());
    receiver.change(|_| {
        std::thread::sleep(Duration::from_millis(2));
        Verdict::Confirm
    });
    let mut file = append(&room.log("access.log"));
    // Checkpoints are written all the time, so that a kill falls between what was read, what was sent, what was confirmed and
    // what was written of it.
    let more = ["--chunk-size", "256", "--rescan-period", "100ms", "--checkpoint-period", "1ms"];
    let rounds = 100;
    for round in 0..rounds {
        let (before, checkpoint) = (receiver.records().len(), newest(&room));
        let mut agent = room.agent(&receiver.sink(), &more);
        write_numbers(&mut file, round * LINES..(round + 1) * LINES);
        if round % 10 == 9 {
            fs::rename(room.log("access.log"), room.log(&format!("access.log.{}", rounds - round))).unwrap();
            file = append(&room.log("access.log"));
        }
        wait_until("it is under way, and a checkpoint says so", || {
            receiver.records().len() > before && newest(&room) != checkpoint
        });
        agent.kill();
    }
    let _agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_each_number(rounds * LINES);
}

/// The checkpoints as they are.
fn newest(room: &Room) -> Vec<Option<Vec<u8>>> {
    let slots = ["checkpoint.0.json", "checkpoint.1.json"];
    slots.iter().map(|slot| fs::read(room.state().join(slot)).ok()).collect()
}

#[test]
fn a_restart_sends_nothing_twice() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write_numbers(&mut append(&room.log("a.log")), 0..1000);
    for round in 1..4 {
        let mut agent = room.agent(&receiver.sink(), &[]);
        receiver.expect_numbers(round * 1000);
        assert!(agent.terminate().success());
        write_numbers(&mut append(&room.log("a.log")), round * 1000..(round + 1) * 1000);
    }
}

#[test]
fn a_checkpoint_is_about_a_second_old_at_most() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write_numbers(&mut append(&room.log("a.log")), 0..10);
    let mut agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(10);
    wait_until("a checkpoint is written", || room.checkpointed(&receiver.sink()) == 70);
    agent.kill();
    write_numbers(&mut append(&room.log("a.log")), 10..20);
    let _agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(20);
}

/// Ships ten lines in two runs, so that both slots hold a checkpoint; then the state is what `damage` makes of it.
fn after_damage(damage: impl Fn(&Room)) -> (Room, Receiver, Process) {
    let (room, receiver) = (Room::new(), Receiver::start());
    for round in 0..2 {
        write_numbers(&mut append(&room.log("a.log")), round * 5..round * 5 + 5);
        let mut agent = room.agent(&receiver.sink(), &[]);
        receiver.expect_numbers(round * 5 + 5);
        assert!(agent.terminate().success());
    }
    damage(&room);
    write_numbers(&mut append(&room.log("a.log")), 10..15);
    let agent = room.agent(&receiver.sink(), &[]);
    wait_until("all come again", || receiver.count() == 25);
    // Which ids there were is not known any more: other ones cannot be taken for them.
    assert_eq!(receiver.ids().len(), 25);
    (room, receiver, agent)
}

fn slots(room: &Room) -> Vec<std::path::PathBuf> {
    let slots: Vec<_> =
        ["checkpoint.0.json", "checkpoint.1.json"].iter().map(|name| room.state().join(name)).collect();
    assert!(slots.iter().all(|slot| slot.exists()));
    slots
}

fn says_so(agent: &Process) {
    agent.event("the checkpoint is passed over", |event| {
        event["message"].as_str().is_some_and(|text| text.contains("cannot be trusted"))
    });
}

#[test]
fn checkpoint_torn() {
    let (.., agent) = after_damage(|room| {
        for slot in slots(room) {
            let bytes = fs::read(&slot).unwrap();
            fs::write(&slot, &bytes[..bytes.len() / 2]).unwrap();
        }
    });
    says_so(&agent);
}

#[test]
fn checkpoint_corrupt() {
    let (.., agent) = after_damage(|room| {
        for slot in slots(room) {
            let text = fs::read_to_string(&slot).unwrap();
            assert!(text.contains("\"offset\":"));
            fs::write(&slot, text.replace("\"offset\":", "\"offset\":9")).unwrap();
        }
    });
    says_so(&agent);
}

#[test]
fn checkpoint_from_the_future() {
    let (.., agent) = after_damage(|room| {
        for slot in slots(room) {
            let text = fs::read_to_string(&slot).unwrap();
            let line =
                text.lines().next().unwrap().replace("log-agent-checkpoint/1", "log-agent-checkpoint/2");
            fs::write(&slot, format!("{line}\n{:08x}\n", crc32fast::hash(line.as_bytes()))).unwrap();
        }
    });
    says_so(&agent);
}

#[test]
fn checkpoint_of_a_longer_file() {
    // An offset behind the file's end: the file is not what it was.
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "line 0\nline 1\nline 2\n");
    let mut agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(3);
    assert!(agent.terminate().success());
    fs::write(room.log("a.log"), "line 3\n").unwrap();
    let _agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(4);
}

#[test]
fn checkpoint_cannot_be_written() {
    let (room, receiver) = (Room::new(), Receiver::start());
    // A directory where the temporary file should be: what a full disk is to the agent, also where tests run as root.
    fs::create_dir_all(room.state().join("checkpoint.tmp")).unwrap();
    write(&room.log("a.log"), "line 0\n");
    let agent = room.agent(&receiver.sink(), &[]);
    receiver.expect_numbers(1);
    agent.event("it says so", |event| {
        event["message"].as_str().is_some_and(|text| text.contains("cannot write the checkpoint"))
    });
    write(&room.log("a.log"), "line 1\n");
    receiver.expect_numbers(2);
    fs::remove_dir(room.state().join("checkpoint.tmp")).unwrap();
    agent.event("it recovers", |event| {
        event["message"].as_str().is_some_and(|text| text.contains("written again"))
    });
}

#[test]
fn two_agents_one_state_dir() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let first = room.agent(&receiver.sink(), &[]);
    first.addr("admin");
    wait_until("it holds the state", || room.state().join("lock").exists());
    wait_until("it answers", || testkit::http::try_get(first.addr("admin"), "/livez").is_ok());
    let mut second = room.agent(&receiver.sink(), &[]);
    assert_eq!(second.wait().code(), Some(69));
    assert!(second.stderr().contains("held by another log-agent"), "{}", second.stderr());
}

#[test]
fn a_changed_url_goes_on_where_the_old_one_was() {
    let (room, old, new) = (Room::new(), Receiver::start(), Receiver::start());
    write_numbers(&mut append(&room.log("a.log")), 0..10);
    let mut agent = room.agent(&old.sink(), &[]);
    old.expect_numbers(10);
    assert!(agent.terminate().success());
    write(&room.log("a.log"), "new\n");
    let _agent = room.agent(&new.sink(), &[]);
    new.expect(&["new"]);
}

#[test]
fn exit_at_eof_gives_up_on_a_sink_that_is_down() {
    let (room, receiver) = (Room::new(), Receiver::that(|_| Verdict::Refuse(Answer::new(503, ""))));
    write(&room.log("a.log"), "line 0\n");
    let more = ["--exit-at-eof", "--shutdown-timeout", "2s", "--rescan-period", "1h"];
    let mut agent = room.agent(&receiver.sink(), &more);
    assert_eq!(agent.wait().code(), Some(69));
    let last = agent.stderr().lines().last().unwrap().to_owned();
    assert!(last.contains("remaining_bytes=7") && last.contains("503"), "{last}");
    assert!(fs::exists(binary()).unwrap());
}

/// A file that is written anew while the agent is dead, with the beginning that it had: longer than what is compared of a beginning.
fn written_anew(confirms: bool) {
    let (room, receiver) = (Room::new(), Receiver::start());
    let head = format!("# {}\n", "head ".repeat(500));
    write(&room.log("a.log"), &head);
    // No checkpoint but the one that the first record waits for.
    let quiet = ["--checkpoint-period", "1h", "--rescan-period", "100ms"];
    let mut agent = room.agent(&receiver.sink(), &quiet);
    wait_until("the head arrives", || receiver.count() == 1);
    receiver.change(move |_| if confirms { Verdict::Confirm } else { Verdict::LoseTheAnswer });
    let mut file = append(&room.log("a.log"));
    (0..20).for_each(|number| writeln!(file, "old line {number}").unwrap());
    wait_until("lines arrive that no checkpoint knows", || {
        receiver.bodies().iter().any(|body| body.starts_with("old"))
    });
    agent.kill();
    receiver.change(|_| Verdict::Confirm);
    let new: String = (0..30).map(|number| format!("new line {number}\n")).collect();
    std::fs::write(room.log("a.log"), head + &new).unwrap();
    let _agent = room.agent(&receiver.sink(), &quiet);
    wait_until("all new lines arrive", || {
        receiver.bodies().iter().filter(|body| body.starts_with("new")).count() == 30
    });
    let mut named = BTreeMap::new();
    for record in receiver.records() {
        let body = record["body"].to_string();
        let before = named.insert(record["id"].to_string(), body.clone()).unwrap_or_else(|| body.clone());
        assert_eq!(before, body, "one id, two records");
    }
}

#[test]
fn a_file_that_is_written_anew_with_its_old_beginning_gets_new_ids() {
    written_anew(true);
}

#[test]
fn likewise_where_the_answer_was_lost() {
    written_anew(false);
}

/// What a checkpoint knows as not delivered is entered, also where the file has its beginning and more bytes than before.
#[test]
fn what_is_written_over_while_the_agent_is_away_is_entered() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let head = format!("# {}\n", "head ".repeat(500));
    write(&room.log("a.log"), &head);
    let more = ["--checkpoint-period", "20ms", "--rescan-period", "50ms", "--shutdown-timeout", "1s"];
    let mut agent = room.agent(&receiver.sink(), &more);
    wait_until("the head arrives", || receiver.count() == 1);
    down(&receiver);
    write(&room.log("a.log"), "never sent\n".repeat(20));
    wait_until("it is seen", || status(&agent)["files"][0]["size"] == head.len() + 220);
    assert!(!agent.terminate().success());
    up(&receiver);
    std::fs::write(room.log("a.log"), head.clone() + &"other line\n".repeat(30)).unwrap();
    let agent = room.agent(&receiver.sink(), &more);
    wait_until("all lines arrive", || {
        receiver.bodies().iter().filter(|body| *body == "other line").count() == 30
    });
    assert!((metric(&agent, "log_agent_lost_bytes_total") - 220.0).abs() < 0.1, "{}", agent.stderr());
}
