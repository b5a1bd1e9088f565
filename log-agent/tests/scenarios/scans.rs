//! Looks at the names that see less than all: a directory that is away, that cannot be read, or that no descriptor is left for.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use testkit::http::{Connection, Message, try_get};
use testkit::{Process, wait_until};

use crate::support::{Receiver, Room, append, metric, status, write, write_numbers};
use crate::world::QUICK;

/// What `/readyz` says; nothing where it does not answer.
pub(crate) fn is_ready(agent: &Process) -> Option<bool> {
    try_get(agent.addr("admin"), "/readyz").ok().map(|answer| answer.status() == 200)
}

#[test]
fn a_directory_that_is_briefly_away() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let mut file = append(&room.log("a.log"));
    write_numbers(&mut file, 0..10);
    let agent = room.agent(&receiver.sink(), &QUICK);
    receiver.expect_numbers(10);
    fs::rename(room.path("logs"), room.path("away")).unwrap();
    wait_until("it is not ready", || is_ready(&agent) == Some(false));
    assert!(metric(&agent, "log_agent_scan_up") < 0.5);
    assert_eq!(status(&agent)["files"][0]["named"], true, "what is followed stays followed");
    write_numbers(&mut file, 10..20);
    receiver.expect_numbers(20);
    fs::rename(room.path("away"), room.path("logs")).unwrap();
    wait_until("it is ready", || is_ready(&agent) == Some(true));
    write_numbers(&mut file, 20..30);
    receiver.expect_numbers(30);
    assert_eq!(agent.stderr().matches("cannot look at all names").count(), 1, "{}", agent.stderr());
}

/// A connection to the admin server that is kept: one without a descriptor left accepts no other.
struct KeptConnection {
    connection: Connection,
    host: String,
}

impl KeptConnection {
    fn open(agent: &Process) -> Self {
        let addr = agent.addr("admin");
        Self { connection: Connection::open(addr), host: addr.to_string() }
    }

    fn get(&mut self, path: &str) -> Message {
        self.connection.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host)).unwrap();
        self.connection.receive("GET").unwrap()
    }
}

/// A limit below what is open takes nothing away, and gives nothing more.
#[test]
fn a_scan_without_a_descriptor_is_not_an_empty_one() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let mut file = append(&room.log("a.log"));
    write_numbers(&mut file, 0..10);
    let mut agent = room.agent(&receiver.sink(), &QUICK);
    receiver.expect_numbers(10);
    let mut admin = KeptConnection::open(&agent);
    assert_eq!(admin.get("/readyz").status(), 200);
    let pid = Pid::from_raw(i32::try_from(agent.id()).unwrap());
    let none = Rlimit { current: Some(0), maximum: getrlimit(Resource::Nofile).maximum };
    let before = prlimit(pid, Resource::Nofile, none).unwrap();
    wait_until("it is not ready, and says why", || {
        let answer = admin.get("/readyz");
        answer.status() == 503 && answer.text().contains("logs: Too many open files")
    });
    assert!(admin.get("/metrics").text().lines().any(|line| line == "log_agent_scan_up 0"));
    assert_eq!(admin.get("/status").json()["files"][0]["named"], true, "what is followed stays followed");
    write_numbers(&mut file, 10..20);
    receiver.expect_numbers(20);
    // What is new has to wait.
    write_numbers(&mut append(&room.log("b.log")), 20..30);
    prlimit(pid, Resource::Nofile, before).unwrap();
    wait_until("it is ready", || is_ready(&agent) == Some(true));
    receiver.expect_numbers(30);
    assert!(metric(&agent, "log_agent_scan_up") > 0.5);
    assert!(agent.terminate().success(), "{}", agent.stderr());
    for said in ["cannot look at all names", "all names can be looked at again"] {
        assert_eq!(agent.stderr().matches(said).count(), 1, "{}", agent.stderr());
    }
}

#[test]
fn a_drain_says_that_there_may_be_more_where_it_could_not_look() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "line 0\n");
    let mut agent = room.agent(&receiver.sink(), &QUICK);
    receiver.expect_numbers(1);
    fs::rename(room.path("logs"), room.path("away")).unwrap();
    wait_until("it is not ready", || is_ready(&agent) == Some(false));
    assert_eq!(agent.terminate().code(), Some(69), "{}", agent.stderr());
    let last = agent.stderr().lines().last().unwrap().to_owned();
    assert!(last.contains("perhaps more") && last.contains("is away"), "{last}");
}

/// An agent for which modes hold: where the tests run as root, root's right to read everything is taken from it.
pub(crate) fn that_modes_hold_for(room: &Room, sink: &str) -> Process {
    under_modes(room.command("logs/*.log*", &[sink], &QUICK))
}

fn under_modes(agent: Command) -> Process {
    if !rustix::process::geteuid().is_root() {
        return Process::start_command(agent);
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-dac_override,-dac_read_search"]).arg(agent.get_program());
    command.args(agent.get_args());
    Process::start_command(command)
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_file_that_cannot_be_read_is_said_each_time_that_it_comes_to_that() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let (log, next) = (room.log("a.log"), room.path("next"));
    write(&log, "first\n");
    set_mode(&log, 0);
    let agent = that_modes_hold_for(&room, &receiver.sink());
    let warnings = || agent.stderr().matches("cannot read it: trying again at every scan").count();
    wait_until("it is said", || warnings() == 1);
    set_mode(&log, 0o644);
    receiver.expect(&["first"]);
    write(&next, "next\n");
    set_mode(&next, 0);
    fs::rename(&log, room.log("a.log.1")).unwrap();
    fs::rename(&next, &log).unwrap();
    wait_until("it is said again", || warnings() == 2);
    set_mode(&log, 0o644);
    receiver.expect(&["first", "next"]);
    assert_eq!(warnings(), 2, "{}", agent.stderr());
}

#[test]
fn a_directory_that_cannot_be_watched_is_said_each_time_that_it_comes_to_that() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let logs = room.path("logs");
    write(&room.log("a.log"), "first\n");
    set_mode(&logs, 0o300);
    let agent = that_modes_hold_for(&room, &receiver.sink());
    let warnings = || agent.stderr().matches("no file events from here").count();
    wait_until("it is said", || warnings() == 1);
    set_mode(&logs, 0o755);
    receiver.expect(&["first"]);
    // Another directory of this name; the watch of the old one is gone with it.
    fs::rename(&logs, room.path("away")).unwrap();
    fs::DirBuilder::new().mode(0o300).create(&logs).unwrap();
    wait_until("it is said again", || warnings() == 2);
    set_mode(&logs, 0o755);
    write(&room.log("b.log"), "next\n");
    receiver.expect(&["first", "next"]);
    assert_eq!(warnings(), 2, "{}", agent.stderr());
}

#[test]
fn the_end_of_the_files_is_not_reached_where_one_cannot_be_read() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "readable\n");
    write(&room.log("b.log"), "not readable\n");
    set_mode(&room.log("b.log"), 0);
    let command = || room.command("logs/*.log", &[&receiver.sink()], &["--exit-at-eof"]);
    let mut agent = under_modes(command());
    assert_eq!(agent.wait().code(), Some(69), "{}", agent.stderr());
    let last = agent.stderr().lines().last().unwrap().to_owned();
    assert!(last.contains("perhaps more") && last.contains("b.log could not be read"), "{last}");
    set_mode(&room.log("b.log"), 0o644);
    let mut agent = under_modes(command());
    assert!(agent.wait().success(), "{}", agent.stderr());
    receiver.expect(&["readable", "not readable"]);
}
