//! Ten thousand clients that have nothing to say.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use testkit::http::{Connection, get};
use testkit::wait_until;

use crate::support::{Server, Volume};

const CLIENTS: u64 = 10_000;
const REQUEST: &str = "GET /index.html HTTP/1.1\r\nHost: h\r\n\r\n";
/// For each connection, beneath the kernel's part of it.
const MOST: u64 = 10 * 1024;

#[test]
fn ten_thousand_idle() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    assert!(maximum.is_none_or(|most| most >= 15_000), "ulimit -n has to be 15,000 for this test");

    let volume = Volume::with(&[("index.html", &"x".repeat(1024))]);
    let most = (CLIENTS + 10).to_string();
    let args = ["--max-connections", &most, "--idle-timeout", "10min"];
    let server = Server::start_with(&volume.root(), &args, &[("HEALTH_MIN", "1000"), ("HEALTH_MAX", "1000")]);
    assert_eq!(server.get("/index.html").status(), 200);
    let before = server.process.resident_bytes();
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = Connection::open(server.addr);
            client.send(REQUEST).unwrap();
            assert_eq!(client.receive("GET").unwrap().status(), 200);
            client
        })
        .collect();
    let each = || server.process.resident_bytes().saturating_sub(before) / CLIENTS;
    println!("{} bytes of memory for each of {CLIENTS} idle connections", each());
    assert_eq!(get(server.admin, "/status").json()["connections"], CLIENTS);
    wait_until("an idle connection takes no more than 10 KiB", || each() <= MOST);

    // They are there all the same.
    let held = || server.metric("memory_used_bytes{use=\"connections\"}");
    let resting = held();
    for client in clients.iter_mut().step_by(100) {
        client.send(REQUEST).unwrap();
        assert_eq!(client.receive("GET").unwrap().body.len(), 1024);
    }
    wait_until("all of them rest again", || held() <= resting);
    // No time is measured: the server itself says when a second is over in which the others say nothing.
    let before = wake_ups(&server);
    assert_eq!(server.get("/health").status(), 200);
    let woken = wake_ups(&server).saturating_sub(before);
    println!("{woken} wake-ups in a second in which nothing was said");
    assert!(woken < 200, "{woken} wake-ups beside {CLIENTS} connections on which nothing was said");
}

/// How often the process's threads have waited for something that then came.
fn wake_ups(server: &Server) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.process.id())).unwrap();
    // A thread may have ended by now.
    let status = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
    let waits = |status: String| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok())
    };
    status.filter_map(waits).sum()
}

/// The kernel's table of descriptors would grow while connections come, and each time they would wait for all processors.
#[test]
fn there_is_room_for_all_connections_from_the_start() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start(&volume.root(), &["--max-connections", "700"]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
    assert!(size.trim().parse::<u64>().unwrap() >= 700, "{size}");
}
