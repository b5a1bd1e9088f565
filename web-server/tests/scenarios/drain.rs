//! The end of a container: SIGTERM, and what clients see of it.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use testkit::http::{Connection, Message, get};
use testkit::{eventually, wait_until};

use crate::support::{Server, Volume};

const REQUEST: &str = "GET /index.html HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn drain() {
    let body = "0123456789abcdef".repeat(1024 * 1024);
    let volume = Volume::with(&[("index.html", "hello"), ("large.bin", &body)]);
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("access.log");
    let args = ["--access-log", log.to_str().unwrap(), "--shutdown-timeout", "15s"];
    let mut server = Server::start(&volume.root(), &args);

    let mut download = Connection::open(server.addr);
    download.send("GET /large.bin HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!(download.stream().peek(&mut [0]).unwrap(), 1);
    let mut idle = Connection::open(server.addr);
    idle.send(REQUEST).unwrap();
    assert_eq!(idle.receive("GET").unwrap().header("connection"), None);
    let mut unused = Connection::open(server.addr);
    get(server.addr, "/index.html");

    server.process.signal(Signal::TERM);
    wait_until("it says that it drains", || get(server.admin, "/readyz").text() == "draining\n");
    assert_eq!(get(server.admin, "/livez").status(), 200);
    // Idle connections are closed, in an orderly way.
    idle.receive("GET").unwrap_err();
    unused.receive("GET").unwrap_err();
    wait_until("no new connection is taken", || Connection::try_open(server.addr).is_err());

    let answer = download.receive("GET").unwrap();
    assert!(answer.body == body.as_bytes());
    let status = server.process.wait();
    assert_eq!(status.code(), Some(0), "{}", server.process.stderr());
    let text = std::fs::read_to_string(log).unwrap();
    assert_eq!(text.matches('\n').count(), 3, "{text}");
    assert!(text.lines().last().unwrap().contains(&format!("\"http.response.body.size\":{}", body.len())));
}

/// How long after the signal a request may still arrive.
const LINGER: Duration = Duration::from_millis(100);

/// A server with some connections that have been answered once, as the drain begins; and when it was told to.
fn draining(connections: usize, rested: bool) -> (Server, Vec<Connection>, Instant, Volume) {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start(&volume.root(), &[]);
    let mut open: Vec<_> = (0..connections).map(|_| Connection::open(server.addr)).collect();
    for connection in &mut open {
        connection.send(REQUEST).unwrap();
        connection.receive("GET").unwrap();
    }
    if rested {
        let answered = Instant::now();
        wait_until("the connections rest", || answered.elapsed() > Duration::from_millis(300));
    }
    let told = Instant::now();
    server.process.signal(Signal::TERM);
    server.process.event("the drain begins", |event| {
        event["message"].as_str().is_some_and(|m| m.starts_with("draining"))
    });
    (server, open, told, volume)
}

fn is_answered_as_the_last(connection: &mut Connection) {
    let answer: Message = connection.receive("GET").unwrap();
    assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")));
    connection.receive("GET").unwrap_err();
}

#[test]
fn a_request_that_was_on_its_way_is_answered_and_told_that_it_was_the_last() {
    // On a busy machine a request can come too late: then there is nothing to see.
    eventually("a request is sent in time", || {
        let (_server, mut connections, told, _volume) = draining(1, false);
        let sent = connections[0].send(REQUEST);
        (told.elapsed() < LINGER).then(|| {
            sent.unwrap();
            is_answered_as_the_last(&mut connections[0]);
        })
    });
}

/// The server's time is over by the time that it gets to look, which is how a busy machine looks to it.
#[test]
fn a_request_that_came_in_time_is_answered_although_the_server_could_not_look() {
    for rested in [false, true] {
        eventually("all requests are sent in time", || {
            let (server, mut connections, told, _volume) = draining(20, rested);
            server.process.signal(Signal::STOP);
            let sent: Vec<_> = connections.iter_mut().map(|connection| connection.send(REQUEST)).collect();
            let in_time = told.elapsed() < LINGER;
            wait_until("the time is over", || told.elapsed() > 2 * LINGER);
            server.process.signal(Signal::CONT);
            in_time.then(|| {
                for (connection, sent) in connections.iter_mut().zip(sent) {
                    sent.unwrap();
                    is_answered_as_the_last(connection);
                }
            })
        });
    }
}

#[test]
fn what_is_not_done_in_time_is_cut() {
    let body = "x".repeat(32 * 1024 * 1024);
    let volume = Volume::with(&[("large.bin", &body)]);
    let mut server = Server::start(&volume.root(), &["--shutdown-timeout", "500ms"]);
    let mut stuck = Connection::open(server.addr);
    stuck.send("GET /large.bin HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!(stuck.stream().peek(&mut [0]).unwrap(), 1);
    let begin = Instant::now();
    let status = server.process.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(
        server.process.stderr().contains("cut what was not finished in time"),
        "{}",
        server.process.stderr()
    );
    stuck.receive("GET").unwrap_err();
}

#[test]
fn a_client_whose_bytes_are_thrown_away_does_not_hold_up_the_end() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let mut server = Server::start(&volume.root(), &["--shutdown-timeout", "20s"]);
    let unread = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n";
    for (request, status) in [("?\r\n\r\n", 400), (unread, 405)] {
        let mut over = Connection::open(server.addr);
        over.send(request).unwrap();
        assert_eq!(over.receive("POST").unwrap().status(), status);
        // A byte now and then, until the connection is gone.
        std::thread::spawn(move || {
            while over.send("x").is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    }
    assert_eq!(server.process.terminate().code(), Some(0));
    let said = server.process.stderr();
    assert!(!said.contains("cut what was not finished in time"), "{said}");
}

#[test]
fn a_second_signal_aborts() {
    let body = "x".repeat(32 * 1024 * 1024);
    let volume = Volume::with(&[("large.bin", &body)]);
    let mut server = Server::start(&volume.root(), &[]);
    let mut stuck = Connection::open(server.addr);
    stuck.send("GET /large.bin HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!(stuck.stream().peek(&mut [0]).unwrap(), 1);
    server.process.signal(Signal::TERM);
    wait_until("it drains", || get(server.admin, "/readyz").text() == "draining\n");
    server.process.signal(Signal::INT);
    assert_eq!(server.process.wait().code(), Some(130));
}
