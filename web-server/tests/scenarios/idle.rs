//! Ten thousand clients that have nothing to say.

use std::time::Duration;

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
    let server = Server::start(&volume.root(), &args);
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
    for client in clients.iter_mut().step_by(100) {
        client.send(REQUEST).unwrap();
        assert_eq!(client.receive("GET").unwrap().body.len(), 1024);
    }
    let ticks = server.process.cpu_ticks();
    std::thread::sleep(Duration::from_secs(1));
    let ticks = server.process.cpu_ticks() - ticks;
    assert!(ticks < 20, "{ticks} ticks of 10 ms in a second in which nobody said anything");
}
