//! Slow clients and too many of them.

use std::time::{Duration, Instant};

use testkit::http::{Connection, get};
use testkit::wait_until;

use crate::support::{Server, Volume};

const REQUEST: &str = "GET /index.html HTTP/1.1\r\nHost: h\r\n\r\n";

fn overdue(server: &Server, what: &str) -> bool {
    let line = format!("web_server_connections_overdue_total{{waited_for=\"{what}\"}} 1\n");
    get(server.admin, "/metrics").text().contains(&line)
}

#[test]
fn slow_header() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start(&volume.root(), &["--header-timeout", "400ms"]);
    let begin = Instant::now();
    let mut connection = Connection::open(server.addr);
    // A byte now and then does not help.
    while begin.elapsed() < Duration::from_secs(10) && connection.send("G").is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(5), "{took:?}");
    wait_until("it is counted", || overdue(&server, "header"));
}

#[test]
fn a_preface_that_comes_slowly_costs_no_cpu() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start(&volume.root(), &["--header-timeout", "1500ms"]);
    // HTTP/2 begins like this, and so would anybody who wants to keep us looking.
    let mut slow: Vec<_> = (0..100).map(|_| Connection::open(server.addr)).collect();
    for connection in &mut slow {
        connection.send("PRI * HTTP").unwrap();
    }
    // One that has no more to say is no reason to look again and again.
    let mut ended = Connection::open(server.addr);
    ended.send("PRI").unwrap();
    ended.stream().shutdown(std::net::Shutdown::Write).unwrap();
    drop(ended.receive("GET"));
    let before = server.process.cpu_ticks();
    for connection in &mut slow {
        connection.receive("GET").unwrap_err();
    }
    let took = server.process.cpu_ticks() - before;
    assert!(took < 20, "{took} ticks of 10 ms");

    // In pieces it is a preface all the same, and what only begins like one is a request.
    let mut pieces = Connection::open(server.addr);
    for piece in ["P", "RI * HTTP/2.0\r\n", "\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        pieces.send(piece).unwrap();
    }
    let mut settings = [0; 9];
    std::io::Read::read_exact(&mut pieces.stream(), &mut settings).unwrap();
    assert_eq!(settings[3], 4, "a SETTINGS frame comes first");
    let mut other = Connection::open(server.addr);
    other.send("P").unwrap();
    other.send("OST / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!(other.receive("POST").unwrap().status(), 405);
}

#[test]
fn slow_header_of_a_second_request() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start(&volume.root(), &["--header-timeout", "400ms"]);
    let mut connection = Connection::open(server.addr);
    connection.send(REQUEST).unwrap();
    connection.receive("GET").unwrap();
    connection.send("GET /").unwrap();
    connection.receive("GET").unwrap_err();
    wait_until("it is counted", || overdue(&server, "header"));
}

#[test]
fn the_beginning_of_a_request_that_came_with_another_has_a_deadline_and_costs_no_cpu() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start(&volume.root(), &["--header-timeout", "1500ms"]);
    let mut connection = Connection::open(server.addr);
    let before = server.process.cpu_ticks();
    connection.send(format!("{REQUEST}GET /")).unwrap();
    assert_eq!(connection.receive("GET").unwrap().status(), 200);
    connection.receive("GET").unwrap_err();
    let took = server.process.cpu_ticks() - before;
    assert!(took < 20, "{took} ticks of 10 ms");
    wait_until("it is counted", || overdue(&server, "header"));
}

#[test]
fn each_request_has_a_header_deadline_of_its_own() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start_with(&volume.root(), &["--header-timeout", "400ms"], &[("HEALTH_MIN", "600")]);
    let status = |name: &str| get(server.admin, "/status").json()[name].as_u64().unwrap();
    let mut connection = Connection::open(server.addr);
    wait_until("the first request is waited for", || status("connections") == 1);
    connection.send("GET /health HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    wait_until("it is being answered", || status("requests_in_flight") == 1);
    // Half of the next one is there when that answer ends, which is after the first one's deadline.
    connection.send(&REQUEST[..20]).unwrap();
    assert_eq!(connection.receive("GET").unwrap().status(), 200);
    connection.send(&REQUEST[20..]).unwrap();
    assert_eq!(connection.receive("GET").unwrap().text(), "hello");
}

#[test]
fn slow_body() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start(&volume.root(), &[]);
    let mut connection = Connection::open(server.addr);
    connection.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nx").unwrap();
    // No answer here depends on a body, so none waits for it.
    assert_eq!(connection.receive("POST").unwrap().status(), 405);
    connection.receive("POST").unwrap_err();
}

#[test]
fn slow_reader() {
    let volume = Volume::with(&[("large.bin", &"x".repeat(32 * 1024 * 1024))]);
    let server = Server::start(&volume.root(), &["--send-timeout", "400ms", "--access-log", "-"]);
    let mut connection = Connection::open(server.addr);
    connection.send("GET /large.bin HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    wait_until("the response has come to its end", || server.process.stdout_lines().len() == 1);
    assert!(overdue(&server, "send"));
    connection.receive("GET").unwrap_err();
}

#[test]
fn idle_keepalive() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let args = ["--idle-timeout", "600ms", "--header-timeout", "200ms"];
    let server = Server::start_with(&volume.root(), &args, &[("HEALTH_MIN", "1200")]);
    let mut connection = Connection::open(server.addr);
    // From here on, because the server's clock runs before the client has seen the answer.
    let begin = Instant::now();
    // Waiting for us is not idling.
    connection.send("GET /health HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!(connection.receive("GET").unwrap().status(), 200);
    connection.receive("GET").unwrap_err();
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(1200 + 600) && took < Duration::from_secs(10), "{took:?}");
    wait_until("it is counted", || overdue(&server, "idle"));
}

#[test]
fn connection_cap() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start(&volume.root(), &["--max-connections", "3"]);
    let mut connections: Vec<_> = (0..3).map(|_| Connection::open(server.addr)).collect();
    for connection in &mut connections {
        connection.send(REQUEST).unwrap();
        assert_eq!(connection.receive("GET").unwrap().status(), 200);
    }
    // The one that has rested longest makes room.
    let mut fourth = Connection::open(server.addr);
    fourth.send(REQUEST).unwrap();
    assert_eq!(fourth.receive("GET").unwrap().status(), 200);
    connections[0].receive("GET").unwrap_err();
    assert!(get(server.admin, "/metrics").text().contains("web_server_connections_evicted_total 1\n"));
    for connection in &mut connections[1..] {
        connection.send(REQUEST).unwrap();
        assert_eq!(connection.receive("GET").unwrap().status(), 200);
    }
}

#[test]
fn a_connection_makes_room_of_which_what_comes_is_thrown_away() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start(&volume.root(), &["--max-connections", "1"]);
    let mut over = Connection::open(server.addr);
    over.send(REQUEST).unwrap();
    assert_eq!(over.receive("GET").unwrap().status(), 200);
    wait_until("it rests", || server.metric("memory_used_bytes{use=\"connections\"}") <= 16 * 1024);
    over.send("?\r\n\r\n").unwrap();
    assert_eq!(over.receive("GET").unwrap().status(), 400);
    over.send("x").unwrap();
    assert_eq!(server.get("/index.html").status(), 200);
    assert_eq!(server.metric("connections_evicted_total"), 1);
}

/// HTTP is done with an answer before the client has taken all of it.
#[test]
fn an_answer_whose_end_is_on_its_way_is_not_closed_for_others() {
    let body = "x".repeat(256 * 1024);
    let volume = Volume::with(&[("index.html", "hello"), ("body.txt", &body)]);
    // With a limit, of what the client does not take next to nothing is in the kernel.
    let server = Server::start(&volume.root(), &["--max-connections", "3", "--memory-limit", "64MiB"]);
    let mut slow = Connection::open(server.addr);
    slow.send("GET /body.txt HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut others = Vec::new();
    for _ in 0..6 {
        let mut other = Connection::open(server.addr);
        other.send(REQUEST).unwrap();
        assert_eq!(other.receive("GET").unwrap().status(), 200);
        others.push(other);
    }
    assert_eq!(server.metric("connections_evicted_total"), 4);
    assert_eq!(slow.receive("GET").unwrap().text(), body);
}

#[test]
fn a_request_that_is_being_answered_is_not_closed_for_others() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start_with(&volume.root(), &["--max-connections", "2"], &[("HEALTH_MIN", "4000")]);
    let mut held: Vec<_> = (0..2).map(|_| Connection::open(server.addr)).collect();
    for connection in &mut held {
        connection.send("GET /health HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    }
    wait_until("both are held", || get(server.admin, "/status").json()["requests_in_flight"] == 2);
    // It waits for room first, and is told when there is none for a while.
    let mut refused = Connection::open(server.addr);
    let answer = refused.receive("GET").unwrap();
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")));
    assert!(get(server.admin, "/metrics").text().contains("web_server_connections_refused_total 1\n"));
    for connection in &mut held {
        assert_eq!(connection.receive("GET").unwrap().status(), 200);
    }
    // Now that one of them rests, there is room.
    assert_eq!(server.get("/index.html").status(), 200);
}
