//! Directories, names and files as they are in the world: away, too many, linked, rotated in other ways, with holes.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::process::Command;
use std::time::Duration;

use testkit::http::try_get;
use testkit::{Probes, Process, wait_until};

use crate::rotate::{down, up};
use crate::support::{Receiver, Room, append, binary, metric, status, write, write_numbers};

pub(crate) const QUICK: [&str; 2] = ["--rescan-period", "50ms"];

/// An agent that may have so many descriptors and no more.
fn with_descriptors(limit: usize, room: &Room, sink: &str, more: &[&str]) -> Process {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -n {limit} && exec \"$0\" \"$@\"")).arg(binary());
    command.arg("--include").arg(room.path("logs/*.log*")).arg("--state-dir").arg(room.state());
    command.args(["--sink", sink]).args(more);
    Process::start_command(command)
}

#[test]
fn more_files_than_descriptors() {
    const FILES: usize = 1000;
    let (room, receiver) = (Room::new(), Receiver::start());
    let name = |file: usize| room.log(&format!("f{file:05}.log"));
    (0..FILES).for_each(|file| write(&name(file), format!("{file} a\n")));
    let agent = with_descriptors(100, &room, &receiver.sink(), &["--rescan-period", "200ms"]);
    wait_until("all first lines arrive", || receiver.count() == FILES);
    (0..FILES).for_each(|file| write(&name(file), format!("{file} b\n")));
    wait_until("all last lines arrive", || receiver.count() == 2 * FILES);
    assert_eq!(try_get(agent.addr("admin"), "/readyz").unwrap().status(), 200, "{}", agent.stderr());
    let open = fs::read_dir(format!("/proc/{}/fd", agent.id())).unwrap().count();
    assert!(open <= 100, "{open}");
}

/// A file that is closed while nothing is short could not be opened again, should it be removed meanwhile.
#[test]
fn files_that_came_and_went_take_no_descriptors() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let stays = room.log("stays.log");
    write(&stays, "stays\n");
    let more = ["--rescan-period", "50ms", "--rotate-wait", "0s"];
    let agent = with_descriptors(100, &room, &receiver.sink(), &more);
    wait_until("its line arrives", || receiver.count() == 1);
    for file in 0..100 {
        let path = room.log(&format!("f{file}.log"));
        write(&path, format!("{file}\n"));
        wait_until("its line arrives", || receiver.count() == file + 2);
        fs::remove_file(path).unwrap();
    }
    let open = fs::read_dir(format!("/proc/{}/fd", agent.id())).unwrap();
    let mut open = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    assert!(open.any(|file| file == stays), "{}", agent.stderr());
}

/// A file without a name keeps its descriptor; one that has none when its name goes is lost.
#[test]
fn files_that_go_while_descriptors_are_short_are_delivered_or_entered() {
    const FILES: usize = 200;
    let (room, receiver) = (Room::new(), Receiver::start());
    down(&receiver);
    let name = |file: usize| room.log(&format!("f{file:03}.log"));
    (0..FILES).for_each(|file| write(&name(file), format!("{file:03}\n")));
    let more = ["--rescan-period", "50ms", "--chunk-size", "20", "--rotate-wait", "0s"];
    let agent = with_descriptors(100, &room, &receiver.sink(), &more);
    let open_files = || status(&agent)["files"].as_array().cloned().unwrap_or_default();
    wait_until("all are followed", || open_files().len() == FILES);
    (0..FILES).for_each(|file| fs::remove_file(name(file)).unwrap());
    wait_until("no name is left", || open_files().iter().all(|file| file["named"] == false));
    let lost = metric(&agent, "log_agent_lost_bytes_total") / 4.0;
    assert!(lost > 99.5, "most of them had no descriptor: {lost}");
    up(&receiver);
    wait_until("the others arrive", || (receiver.count() as f64 + lost - FILES as f64).abs() < 0.5);
    assert!(receiver.count() > 50 && receiver.ids().len() == receiver.count(), "{}", receiver.count());
    wait_until("all are closed", || open_files().is_empty());
}

/// Ten thousand files at a *hard* limit of 1,024 descriptors, which is what some runtimes give.
#[test]
#[ignore = "takes a minute: CONTRIBUTING.md says how to run it on a release build"]
fn ten_thousand_files_at_1024_descriptors() {
    const FILES: usize = 10_000;
    let (room, receiver) = (Room::new(), Receiver::start());
    let name = |file: usize| room.log(&format!("f{file:05}.log"));
    (0..FILES).for_each(|file| write(&name(file), format!("{file} a\n")));
    let agent = with_descriptors(1024, &room, &receiver.sink(), &["--rescan-period", "1s"]);
    // Each thousand in its time: the whole takes longer than tests wait.
    let arrive = |counts: std::ops::RangeInclusive<usize>| {
        for count in counts {
            wait_until("the next thousand lines arrive", || receiver.count() >= count * 1000);
        }
    };
    arrive(1..=FILES / 1000);
    (0..FILES).for_each(|file| write(&name(file), format!("{file} b\n")));
    arrive(FILES / 1000 + 1..=2 * FILES / 1000);
    let distinct: std::collections::BTreeSet<_> = receiver.bodies().into_iter().collect();
    assert_eq!((distinct.len(), receiver.count()), (2 * FILES, 2 * FILES), "each once");
    assert_eq!(try_get(agent.addr("admin"), "/readyz").unwrap().status(), 200, "{}", agent.stderr());
    let open = fs::read_dir(format!("/proc/{}/fd", agent.id())).unwrap().count();
    assert!(open <= 1024, "{open}");
    println!("{FILES} files: {open} descriptors, {} KiB", agent.resident_bytes() / 1024);
}

/// A kubelet's probe has a second; whatever the agent is at, it may have to wait for a tenth of that.
const QUICKLY: Duration = Duration::from_millis(100);

/// How many rotated names of one log appear at once.
const ROTATED: usize = 15_000;

#[test]
fn probes_while_there_is_much_to_look_at() {
    let room = Room::new();
    // To a file, so that nothing but probes keeps this process busy.
    let agent = room.agent(&format!("file:{}", room.path("out").display()), &[]);
    let mut probes = Probes::of_process(&agent);
    let mut out = fs::OpenOptions::new().create(true).append(true).read(true).open(room.path("out")).unwrap();
    let (mut new, mut lines) = (Vec::new(), 0);
    let mut come = move |count: usize| {
        new.clear();
        out.read_to_end(&mut new).unwrap();
        lines += new.split(|byte| *byte == b'\n').count() - 1;
        assert!(lines <= 1 + ROTATED, "none twice");
        lines >= count
    };
    append(&room.log("sparse.log")).set_len(64 << 30).unwrap();
    write(&room.log("a.log"), "line 0\n");
    probes.until("64 GiB without a line", || come(1));
    // All at once: they are made where the agent does not look.
    fs::create_dir(room.path("aside")).unwrap();
    for number in 1..=ROTATED {
        write(&room.path("aside").join(format!("a.log.{number}")), format!("old {number}\n"));
    }
    for number in 1..=ROTATED {
        let name = format!("a.log.{number}");
        fs::rename(room.path("aside").join(&name), room.log(&name)).unwrap();
    }
    for count in (1..=ROTATED / 3000).map(|step| 1 + step * 3000) {
        let what = format!("the oldest {count} of 15,000 rotated names");
        probes.until(&what, || come(count));
    }
    assert!(probes.slowest() < QUICKLY, "{:?}", probes.slowest());
}

/// An agent with an empty log directory whose state directory stalls from now on, for files of these names: to open a FIFO for writing
/// takes as long as it takes until something reads from it.
fn stalled(room: &Room, receiver: &Receiver, names: &[&str]) -> Process {
    let agent = room.agent(&receiver.sink(), &[&QUICK[..], &["--checkpoint-period", "50ms"]].concat());
    // The first one says that there was a start.
    wait_until("a checkpoint is written", || room.state().join("checkpoint.0.json").exists());
    for name in names {
        assert!(Command::new("mkfifo").arg(room.state().join(name)).status().unwrap().success());
    }
    agent
}

#[test]
fn a_state_directory_that_stalls() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let agent = stalled(&room, &receiver, &["checkpoint.tmp", "sent.ndjson"]);
    let mut probes = Probes::of_process(&agent);
    let mut file = append(&room.log("a.log"));
    write_numbers(&mut file, 0..10);
    let why = "the state directory does not answer: records are sent all the same";
    probes.until("it says why nothing is sent", || agent.stderr().contains(why));
    probes.until("they arrive all the same", || receiver.count() == 10);
    for round in 1..=10 {
        write_numbers(&mut file, round * 10..round * 10 + 10);
        probes.until("and so do more", || receiver.count() == round * 10 + 10);
    }
    receiver.expect_numbers(110);
    assert!(probes.slowest() < QUICKLY, "{:?}", probes.slowest());
}

/// A checkpoint then has to say what the notes cannot.
#[test]
fn a_state_directory_that_stalls_for_notes_alone() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let mut agent = stalled(&room, &receiver, &["sent.ndjson"]);
    let mut probes = Probes::of_process(&agent);
    let mut file = append(&room.log("a.log"));
    // The first KiB of a file is in a checkpoint anyway before it is sent.
    for round in 0..5 {
        write_numbers(&mut file, round * 200..round * 200 + 200);
        probes.until("they arrive", || receiver.count() == round * 200 + 200);
    }
    receiver.expect_numbers(1000);
    assert!(probes.slowest() < QUICKLY, "{:?}", probes.slowest());
    assert!(agent.terminate().success(), "{}", agent.stderr());
}

/// How often the threads of a process have waited for something so far.
fn waits(agent: &Process) -> u64 {
    let threads = fs::read_dir(format!("/proc/{}/task", agent.id())).unwrap();
    let status =
        threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap_or_default());
    let waits = |status: String| {
        let line =
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).map(str::trim);
        line.and_then(|count| count.parse::<u64>().ok()).unwrap_or_default()
    };
    status.map(waits).sum()
}

#[test]
fn nothing_wakes_an_agent_that_has_nothing_to_do() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write_numbers(&mut append(&room.log("a.log")), 0..10);
    let agent = room.agent(&receiver.sink(), &["--rescan-period", "1h", "--checkpoint-period", "10ms"]);
    receiver.expect_numbers(10);
    // How often something happens can be seen only over some time. What ends by itself, such as a thread that is not needed any more,
    // is waited for.
    wait_until("a second goes by in which nothing wakes it", || {
        let before = waits(&agent);
        std::thread::sleep(Duration::from_secs(1));
        waits(&agent) == before
    });
}

#[test]
fn a_link_that_leads_out_is_not_followed() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.path("secret"), "secret\n");
    symlink(room.path("secret"), room.log("absolute.log")).unwrap();
    symlink("../secret", room.log("relative.log")).unwrap();
    symlink("a.log", room.log("within.log")).unwrap();
    write(&room.log("a.log"), "line 0\n");
    let agent = room.agent(&receiver.sink(), &QUICK);
    receiver.expect_numbers(1);
    write(&room.log("a.log"), "line 1\n");
    receiver.expect_numbers(2);
    for link in ["absolute.log", "relative.log"] {
        agent.event("it is said", |event| {
            event["message"].as_str().is_some_and(|text| text.contains("--follow-symlinks"))
                && event["file"].as_str().is_some_and(|file| file.contains(link))
        });
    }
    assert_eq!(agent.stderr().matches("--follow-symlinks").count(), 2, "once each: {}", agent.stderr());
}

#[test]
fn rotation_behind_links_is_seen_at_once() {
    let (room, receiver) = (Room::new(), Receiver::start());
    fs::create_dir_all(room.path("pods/v1")).unwrap();
    symlink("v1", room.path("pods/current")).unwrap();
    symlink(room.path("pods/current/0.log"), room.log("a.log")).unwrap();
    write(&room.path("pods/v1/0.log"), "line 0\n");
    // No scan but the first: all that is seen is seen by events.
    let _agent = room.agent(&receiver.sink(), &["--rescan-period", "1h", "--follow-symlinks"]);
    receiver.expect_numbers(1);
    fs::rename(room.path("pods/v1/0.log"), room.path("pods/v1/0.log.old")).unwrap();
    write(&room.path("pods/v1/0.log"), "line 1\n");
    receiver.expect_numbers(2);
    fs::create_dir(room.path("pods/v2")).unwrap();
    write(&room.path("pods/v2/0.log"), "line 2\n");
    symlink("v2", room.path("pods/next")).unwrap();
    fs::rename(room.path("pods/next"), room.path("pods/current")).unwrap();
    receiver.expect_numbers(3);
    write(&room.path("pods/v2/0.log"), "line 3\n");
    receiver.expect_numbers(4);
}

#[test]
fn what_a_link_leads_to_may_be_away_for_a_while() {
    let (room, receiver) = (Room::new(), Receiver::start());
    fs::create_dir_all(room.path("pods")).unwrap();
    symlink(room.path("pods/current/0.log"), room.log("a.log")).unwrap();
    symlink(room.path("pods/later"), room.log("links")).unwrap();
    write(&room.log("b.log"), "line 0\n");
    let behind = room.path("logs/links/*.log").display().to_string();
    let more = ["--rescan-period", "1h", "--follow-symlinks", "--include", &behind];
    let _agent = room.agent(&receiver.sink(), &more);
    // The look that finds the neighbour has seen that both links lead nowhere.
    receiver.expect_numbers(1);
    fs::create_dir(room.path("pods/v1")).unwrap();
    write(&room.path("pods/v1/0.log"), "line 1\n");
    symlink("v1", room.path("pods/current")).unwrap();
    receiver.expect_numbers(2);
    fs::create_dir(room.path("pods/later")).unwrap();
    write(&room.path("pods/later/1.log"), "line 2\n");
    receiver.expect_numbers(3);
    fs::rename(room.path("pods/v1/0.log"), room.path("pods/v1/0.log.old")).unwrap();
    write(&room.log("c.log"), "line 3\n");
    receiver.expect_numbers(4);
    write(&room.path("pods/v1/0.log"), "line 4\n");
    receiver.expect_numbers(5);
}

#[test]
fn worker_1_and_worker_2_are_two_logs() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("worker-1"), "half ");
    write(&room.log("worker-2"), "line\n");
    let more = ["--rescan-period", "50ms", "--rotate-wait", "100ms"];
    let agent = Process::start_command(room.command("logs/worker-*", &[&receiver.sink()], &more));
    receiver.expect(&["line"]);
    wait_until("some scans have passed", || metric(&agent, "log_agent_checkpoints_total") > 0.5);
    std::thread::sleep(Duration::from_millis(500));
    write(&room.log("worker-1"), "a line\n");
    receiver.expect(&["line", "half a line"]);
}

#[test]
fn infix_rotation_is_rotation() {
    let (room, receiver) = (Room::new(), Receiver::start());
    down(&receiver);
    let agent = room.agent(&receiver.sink(), &[&QUICK[..], &["--rotate-wait", "100ms"]].concat());
    write(&room.log("app.log"), "line 0\nno end");
    wait_until("it is followed", || status(&agent)["files"][0]["size"] == 13);
    fs::rename(room.log("app.log"), room.log("app-20200708.log")).unwrap();
    write(&room.log("app.log"), "line 1\n");
    up(&receiver);
    // Where there is no family, a line without an end waits for ever.
    wait_until("all lines arrive, the one without an end, too", || {
        let mut bodies = receiver.bodies();
        bodies.sort();
        bodies == ["line 0", "line 1", "no end"]
    });
}

#[test]
fn names_are_escaped_in_text_too() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("evil\n\x1b[2J\u{85}\u{202e}.log"), "line 0\n");
    let mut command = room.command("logs/*.log", &[&receiver.sink()], &QUICK);
    command.args(["--log-format", "text", "--exit-at-eof", "--admin-addr", "127.0.0.1:0"]);
    let said = String::from_utf8(command.output().unwrap().stderr).unwrap();
    receiver.expect_numbers(1);
    assert!(said.contains("evil"), "{said:?}");
    assert!(!said.contains(['\x1b', '\u{85}', '\u{202e}']) && !said.contains("evil\n"), "{said:?}");
}

#[test]
fn names_that_are_not_text() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("").join(OsStr::from_bytes(b"caf\xe9.log")), "line 0\n");
    let mut agent = room.agent(&receiver.sink(), &QUICK);
    receiver.expect_numbers(1);
    write(&room.log("evil\n\x1b[2J\u{202e}.log"), "line 1\n");
    receiver.expect_numbers(2);
    assert!(agent.terminate().success());
    let said = agent.stderr();
    assert!(!said.contains('\u{202e}') && !said.contains("\x1b[2J"), "{said:?}");
    write(&room.log("").join(OsStr::from_bytes(b"caf\xe9.log")), "line 2\n");
    let _agent = room.agent(&receiver.sink(), &QUICK);
    receiver.expect_numbers(3);
}

#[test]
fn the_hole_under_a_writer_without_append() {
    for scheme in ["ndjson", "raw+file"] {
        let (room, receiver) = (Room::new(), Receiver::start());
        let file = fs::File::create(room.log("a.log")).unwrap();
        file.write_at(b"line 0\n", 0).unwrap();
        let out = room.path("out");
        let sink = if scheme == "ndjson" { receiver.sink() } else { format!("raw+file:{}", out.display()) };
        let agent = room.agent(&sink, &QUICK);
        let came = || {
            if scheme == "ndjson" {
                receiver.bodies().join("\n") + "\n"
            } else {
                fs::read_to_string(&out).unwrap_or_default()
            }
        };
        wait_until("the first line arrives", || came() == "line 0\n");
        let mut hole = 7;
        for number in 1..3 {
            file.set_len(0).unwrap();
            // Where the writer was: what is before that is NULs.
            hole += 300_000;
            file.write_at(format!("line {number}\n").as_bytes(), hole).unwrap();
            let expected: String = (0..=number).map(|number| format!("line {number}\n")).collect();
            wait_until("the line behind the hole arrives", || came() == expected);
        }
        wait_until("they are counted", || {
            metric(&agent, "log_agent_skipped_bytes_total{sink=") > 0.5
                && metric(&agent, "log_agent_skipped_bytes_total") > 800_000.0
        });
    }
}

#[test]
fn start_at_end_skips_what_was_there_at_the_first_start_alone() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("old.log"), "skipped\nskipped\nline ");
    let more = ["--start-at", "end", "--rescan-period", "50ms"];
    let mut agent = room.agent(&receiver.sink(), &more);
    wait_until("it is followed", || metric(&agent, "log_agent_open_files") > 0.5);
    write(&room.log("old.log"), "0\n");
    receiver.expect_numbers(1);
    write(&room.log("new.log"), "line 1\n");
    receiver.expect_numbers(2);
    assert!((metric(&agent, "log_agent_skipped_bytes_total") - 16.0).abs() < 0.5);
    let skipped = agent.event("it is said", |event| event["reason"] == "start_at_end");
    assert_eq!(skipped["bytes"], 16, "{skipped}");
    assert!(skipped["file"].as_str().is_some_and(|file| file.ends_with("old.log")), "{skipped}");
    assert!(agent.terminate().success());
    write(&room.log("later.log"), "line 2\n");
    let _agent = room.agent(&receiver.sink(), &more);
    receiver.expect_numbers(3);
}

#[test]
fn files_that_are_old_are_ignored_until_they_are_written_to() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("old.log"), "skipped\n");
    let day = std::time::SystemTime::now() - Duration::from_secs(48 * 3600);
    append(&room.log("old.log")).set_modified(day).unwrap();
    write(&room.log("new.log"), "line 0\n");
    let agent = room.agent(&receiver.sink(), &[&QUICK[..], &["--ignore-older", "1day"]].concat());
    receiver.expect_numbers(1);
    write(&room.log("old.log"), "line 1\n");
    receiver.expect_numbers(2);
    assert!((metric(&agent, "log_agent_skipped_bytes_total") - 8.0).abs() < 0.5);
    agent.event("it is said", |event| event["reason"] == "ignore_older" && event["bytes"] == 8);
}

#[test]
fn removed_files_hold_no_more_than_they_may() {
    let (room, receiver) = (Room::new(), Receiver::start());
    down(&receiver);
    let more = ["--rescan-period", "50ms", "--max-held-bytes", "1MiB", "--chunk-size", "1KiB"];
    let agent = room.agent(&receiver.sink(), &more);
    for number in 0..3 {
        let path = room.log(&format!("{number}.log"));
        append(&path).write_all("0123456789\n".repeat(60_000).as_bytes()).unwrap();
        wait_until("it is followed", || status(&agent)["files"].to_string().contains(path.to_str().unwrap()));
        fs::remove_file(path).unwrap();
    }
    let lost = agent.event("the oldest is let go", |event| event["reason"] == "max_held_bytes");
    assert!(lost["file"].as_str().is_some_and(|file| file.ends_with("0.log")), "{lost}");
    wait_until("the rest is held", || {
        let held = metric(&agent, "log_agent_held_bytes");
        held > 0.0 && held <= 1_048_576.0
    });
    up(&receiver);
    wait_until("the youngest arrives", || receiver.count() >= 60_000);
}

#[test]
fn a_second_start_is_known_as_one_where_the_first_saw_no_file() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let mut agent = room.agent(&receiver.sink(), &["--start-at", "end"]);
    wait_until("a checkpoint is written", || room.state().join("checkpoint.0.json").exists());
    agent.kill();
    write(&room.log("a.log"), "line 0\n");
    let _agent = room.agent(&receiver.sink(), &["--start-at", "end"]);
    receiver.expect_numbers(1);
}

#[test]
fn compressed_files_are_left_out_wherever_reading_begins() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log.1.gz"), b"\x1f\x8b\x08\0\0\0\0\0\0\x03\ncompressed");
    let more = [&QUICK[..], &["--start-at", "end", "--rotate-wait", "0s"]].concat();
    let mut agent = room.agent(&receiver.sink(), &more);
    agent.event("it is said", |event| {
        event["message"].as_str().is_some_and(|text| text.starts_with("compressed"))
    });
    write(&room.log("a.log"), "line 0\n");
    receiver.expect_numbers(1);
    wait_until("nothing waits", || metric(&agent, "log_agent_file_lag_bytes") < 0.5);
    fs::remove_file(room.log("a.log.1.gz")).unwrap();
    agent.event("it is let go", |event| event["message"] == "drained and closed");
    assert!(agent.terminate().success(), "{}", agent.stderr());
    receiver.expect_numbers(1);
}

#[test]
fn a_directorys_link_that_stays_beneath_is_followed() {
    let (room, receiver) = (Room::new(), Receiver::start());
    for name in ["logs/v1", "logs/v2", "outside"] {
        fs::create_dir(room.path(name)).unwrap();
    }
    write(&room.path("outside/a.log"), "secret\n");
    symlink("v1", room.log("current")).unwrap();
    symlink("../outside", room.log("c-out")).unwrap();
    write(&room.log("v1/a.log"), "line 0\n");
    // No scan but the first: all that is seen is seen by events.
    let more = ["--rescan-period", "1h"];
    let agent = Process::start_command(room.command("logs/c*/*.log", &[&receiver.sink()], &more));
    receiver.expect_numbers(1);
    write(&room.log("v1/a.log"), "line 1\n");
    receiver.expect_numbers(2);
    write(&room.log("v2/a.log"), "line 2\n");
    symlink("v2", room.log("next")).unwrap();
    fs::rename(room.log("next"), room.log("current")).unwrap();
    receiver.expect_numbers(3);
    assert_eq!(agent.stderr().matches("--follow-symlinks").count(), 1, "{}", agent.stderr());
}

#[test]
fn files_that_compressors_write_are_left_out() {
    // The first bytes of what gzip, zstd, bzip2, xz, lz4, zip and compress made of a line.
    let heads: [(&str, &[u8]); 7] = [
        ("gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcb\xc9\xcc\x4b"),
        ("zst", b"\x28\xb5\x2f\xfd\x04\x58\x39\x00\x00\x6c\x69\x6e\x65"),
        ("bz2", b"BZh91AY&SY\xd8\x72\x01\x2f\x00\x00"),
        ("xz", b"\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00"),
        ("lz4", b"\x04\x22\x4d\x18\x64\x40\xa7\x07\x00\x00\x80"),
        ("zip", b"PK\x03\x04\x0a\x00\x00\x00\x00\x00"),
        ("Z", b"\x1f\x9d\x90\x6c\xd2\xb8\x29"),
    ];
    let (room, receiver) = (Room::new(), Receiver::start());
    for (extension, head) in heads {
        write(&room.log(&format!("a.log.1.{extension}")), [head, b"\nmore\n"].concat());
    }
    write(&room.log("a.log"), "line 0\n");
    let mut agent = room.agent(&receiver.sink(), &["--exit-at-eof"]);
    assert!(agent.wait().success(), "{}", agent.stderr());
    receiver.expect_numbers(1);
    assert_eq!(agent.stderr().matches("compressed, so not read").count(), heads.len(), "{}", agent.stderr());
}

#[test]
fn a_link_beside_its_target_is_read_once() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("app-20261101.log"), "line 0\n");
    symlink("app-20261101.log", room.log("app.log")).unwrap();
    let _agent = room.agent(&receiver.sink(), &["--rescan-period", "1h", "--follow-symlinks"]);
    receiver.expect_numbers(1);
    // As glog and cronolog rotate: a new file, and the link leads there.
    for number in 1..20 {
        let name = format!("app-202611{:02}.log", number + 1);
        write(&room.log(&name), format!("line {number}\n"));
        symlink(&name, room.log("next")).unwrap();
        fs::rename(room.log("next"), room.log("app.log")).unwrap();
    }
    receiver.expect_numbers(20);
}

/// The names behind the link are not included, so that what is not seen in time is lost.
#[test]
fn lines_are_written_while_what_links_lead_to_is_rotated() {
    const ROUNDS: usize = 20;
    for is_directory in [false, true] {
        let (room, receiver) = (Room::new(), Receiver::start());
        fs::create_dir_all(room.path("pods/0")).unwrap();
        symlink("0", room.path("pods/current")).unwrap();
        symlink(room.path("pods/current/a"), room.log("a.log")).unwrap();
        let mut file = append(&room.path("pods/current/a"));
        let _agent = room.agent(&receiver.sink(), &["--rescan-period", "1h", "--follow-symlinks"]);
        for round in 0..ROUNDS {
            write_numbers(&mut file, round * 10..round * 10 + 8);
            wait_until("the file is seen", || receiver.count() > round * 10);
            if is_directory {
                let name = (round + 1).to_string();
                fs::create_dir(room.path("pods").join(&name)).unwrap();
                symlink(&name, room.path("pods/next")).unwrap();
                fs::rename(room.path("pods/next"), room.path("pods/current")).unwrap();
            } else {
                fs::rename(room.path("pods/current/a"), room.path("pods/old")).unwrap();
            }
            // The writer has not reopened its log yet.
            write_numbers(&mut file, round * 10 + 8..round * 10 + 10);
            file = append(&room.path("pods/current/a"));
        }
        wait_until("all lines arrive", || receiver.count() >= ROUNDS * 10);
        let mut bodies = receiver.bodies();
        bodies.sort_by_key(|body| crate::support::number(body));
        let all: Vec<_> = (0..ROUNDS * 10).map(|number| format!("line {number}")).collect();
        assert_eq!(bodies, all, "each once");
    }
}
