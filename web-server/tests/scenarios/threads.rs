//! Several threads, each with a listener of its own.

use testkit::http::{Connection, get};
use testkit::process::run;
use testkit::wait_until;

use crate::support::{BINARY, Server, Volume};

const REQUEST: &str = "GET /index.html HTTP/1.1\r\nHost: h\r\n\r\n";

/// CPU time of each of a process's threads that serve, in clock ticks.
fn ticks(pid: u32) -> Vec<u64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
    stats
        .filter_map(|stat| {
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
            let fields: Vec<u64> = rest.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
            (name == "web-server" || name.starts_with("serve-")).then(|| fields[11] + fields[12])
        })
        .collect()
}

#[test]
fn several_threads_share_connections_and_drain_together() {
    let large = "0123456789abcdef".repeat(1024 * 1024);
    let volume = Volume::with(&[("index.html", "hello"), ("large.bin", &large)]);
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("access.log");
    let args = ["--threads", "3", "--access-log", log.to_str().unwrap(), "--max-connections", "50"];
    let mut server = Server::start(&volume.root(), &args);
    let mut connections: Vec<_> = (0..32).map(|_| Connection::open(server.addr)).collect();
    let mut answered = 0;
    wait_until("every thread has had work to do", || {
        for connection in &mut connections {
            for _ in 0..20 {
                connection.send(REQUEST).unwrap();
                assert_eq!(connection.receive("GET").unwrap().text(), "hello");
                answered += 1;
            }
        }
        let ticks = ticks(server.process.id());
        ticks.len() == 3 && ticks.iter().all(|ticks| *ticks > 0)
    });
    // All threads see the same swap, and count together.
    volume.publish("two", &[("index.html", "two"), ("large.bin", &large)]);
    wait_until("the swap is served", || {
        answered += 1;
        server.get("/index.html").text() == "two"
    });
    for connection in &mut connections {
        connection.send(REQUEST).unwrap();
        assert_eq!(connection.receive("GET").unwrap().text(), "two");
        answered += 1;
    }
    let status = get(server.admin, "/status").json();
    assert_eq!(status["connections"], 32);

    let mut downloads: Vec<_> = (0..6).map(|_| Connection::open(server.addr)).collect();
    for download in &mut downloads {
        download.send("GET /large.bin HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!(download.stream().peek(&mut [0]).unwrap(), 1);
    }
    server.process.signal(rustix::process::Signal::TERM);
    wait_until("no new connection is taken", || Connection::try_open(server.addr).is_err());
    for download in &mut downloads {
        let answer = download.receive("GET").unwrap();
        assert!(answer.body == large.as_bytes());
        answered += 1;
    }
    for connection in &mut connections {
        connection.receive("GET").unwrap_err();
    }
    assert_eq!(server.process.wait().code(), Some(0));
    let lines = std::fs::read_to_string(&log).unwrap();
    assert_eq!(lines.lines().count(), answered, "each answer has its line, and none has two");
}

#[test]
fn a_port_that_others_share_is_taken_all_the_same() {
    let volume = Volume::new();
    let server = Server::start(&volume.root(), &["--threads", "2"]);
    let (root, addr) = (volume.root(), server.addr.to_string());
    for threads in ["1", "2"] {
        let args = ["--root", root.to_str().unwrap(), "--listen", &addr, "--admin-addr", "127.0.0.1:0"];
        let (code, _, stderr) = run(BINARY, args.into_iter().chain(["--threads", threads]));
        assert_eq!(code, 69, "{stderr}");
        assert!(stderr.lines().last().unwrap().contains(&addr), "{stderr}");
    }
}
