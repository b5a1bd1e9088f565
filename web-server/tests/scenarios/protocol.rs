//! HTTP/1.1 to the letter: what is not well-formed is refused, and nothing that follows it is believed.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use testkit::http::{Connection, get};
use testkit::wait_until;

use crate::support::{Server, Volume};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

struct Refusals {
    server: Server,
    _volume: Volume,
}

impl Refusals {
    fn start() -> Self {
        let volume = Volume::with(&[("index.html", "top"), ("smuggled", "SMUGGLED")]);
        Self { server: Server::start(&volume.root(), &["--access-log", "-"]), _volume: volume }
    }

    /// Refused with one of these, once, and the connection is closed.
    #[track_caller]
    fn expect(&self, request: &str, statuses: &[u16]) {
        let name: String = request.chars().take(80).collect();
        let mut stream = TcpStream::connect(self.server.addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // The server may close before all was sent: that is its right.
        drop(stream.write_all(request.as_bytes()));
        drop(stream.write_all(SMUGGLED.as_bytes()));
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{name:?}"),
        }
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        assert!(statuses.contains(&status), "{name:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{name:?}: {answer}");
        assert!(!answer.contains("SMUGGLED"), "{name:?}: {answer}");
        // It has its line in the access log, like any other response.
        wait_until("the line is written", || self.server.process.stdout_lines().len() == 1);
        let line = self.server.process.stdout_lines().remove(0);
        assert!(line.contains(&format!("\"http.response.status_code\":{status},")), "{line}");
    }
}

#[track_caller]
fn refused(request: &str, statuses: &[u16]) {
    Refusals::start().expect(request, statuses);
}

#[test]
fn host_missing() {
    refused("GET / HTTP/1.1\r\n\r\n", &[400]);
}

#[test]
fn host_twice() {
    refused("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", &[400]);
}

#[test]
fn host_invalid() {
    for host in ["", "a b", "a/b", "user@a", "a, b", "a:port", ":80", "\"a\""] {
        refused(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), &[400]);
    }
}

#[test]
fn te_and_cl() {
    let headers = ["Transfer-Encoding: chunked\r\n", "Content-Length: 5\r\n"];
    for method in ["GET", "POST"] {
        for (first, second) in [(0, 1), (1, 0)] {
            let (first, second) = (headers[first], headers[second]);
            refused(&format!("{method} / HTTP/1.1\r\nHost: h\r\n{first}{second}\r\n0\r\n\r\n"), &[400, 405]);
        }
    }
}

#[test]
fn te_that_is_not_chunked() {
    for coding in ["gzip", "chunked, identity", "xchunked"] {
        refused(&format!("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: {coding}\r\n\r\n"), &[400]);
    }
}

#[test]
fn cl_twice() {
    refused("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n", &[400]);
    refused("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +0\r\n\r\n", &[400]);
}

#[test]
fn bad_chunk() {
    refused("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", &[400, 405]);
}

#[test]
fn obs_fold() {
    refused("GET / HTTP/1.1\r\nHost: h\r\nX-A: b\r\n c\r\n\r\n", &[400]);
}

#[test]
fn header_too_large() {
    let line = "a".repeat(80 * 1024);
    refused(&format!("GET / HTTP/1.1\r\nHost: h\r\nX-A: {line}\r\n\r\n"), &[431]);
    let lines = "X-A: b\r\n".repeat(200);
    refused(&format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n"), &[431]);
}

#[test]
fn uri_too_long() {
    let path = "a".repeat(10 * 1024);
    refused(&format!("GET /{path} HTTP/1.1\r\nHost: h\r\n\r\n"), &[414]);
    refused(
        &format!("GET /{path}{path}{path}{path}{path}{path}{path}{path} HTTP/1.1\r\nHost: h\r\n\r\n"),
        &[414, 431],
    );
}

#[test]
fn bad_version() {
    for version in ["HTTP/3.0", "HTTP/1.2", "HTTP/0.9", "HTTP/1.10", "http/1.1", "HTTP/1"] {
        refused(&format!("GET / {version}\r\nHost: h\r\n\r\n"), &[400]);
    }
    refused("GET /\r\n\r\n", &[400]);
}

#[test]
fn malformed_requests_are_counted() {
    let refusals = Refusals::start();
    refusals.expect("GET / HTTP/1.1\r\nHost : h\r\n\r\n", &[400]);
    let metrics = get(refusals.server.admin, "/metrics");
    assert!(metrics.text().contains("web_server_http_malformed_requests_total 1"), "{}", metrics.text());
}

#[test]
fn pipelining() {
    let volume = Volume::with(&[("a", "first"), ("b", &"b".repeat(2 * 1024 * 1024)), ("c", "third")]);
    let server = Server::start_with(&volume.root(), &[], &[("HEALTH_MIN", "50")]);
    let mut connection = Connection::open(server.addr);
    let requests: String =
        ["/health", "/a", "/b", "/c"].map(|path| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).concat();
    connection.send(requests).unwrap();
    let bodies = [(); 4].map(|()| connection.receive("GET").unwrap().body);
    assert_eq!(bodies[0], br#"{"healthy": true}"#);
    assert_eq!(
        (bodies[1].as_slice(), bodies[2].len(), bodies[3].as_slice()),
        (&b"first"[..], 2 << 20, &b"third"[..])
    );
}

#[test]
fn expect_100() {
    let volume = Volume::with(&[("a", "first")]);
    let server = Server::start(&volume.root(), &[]);
    let mut connection = Connection::open(server.addr);
    // The answer does not depend on the body, so it is the final one at once, and the body is never asked for.
    connection
        .send("GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .unwrap();
    assert_eq!(connection.receive("GET").unwrap().text(), "first");
}

#[test]
fn half_close() {
    let volume = Volume::with(&[("large", &"x".repeat(4 * 1024 * 1024))]);
    let server = Server::start(&volume.root(), &[]);
    let mut connection = Connection::open(server.addr);
    connection.send("GET /large HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    connection.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(connection.receive("GET").unwrap().body.len(), 4 * 1024 * 1024);
}

#[test]
fn an_unread_request_body_ends_the_connection() {
    let volume = Volume::with(&[("a", "first")]);
    let server = Server::start(&volume.root(), &[]);
    let mut connection = Connection::open(server.addr);
    connection.send("GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").unwrap();
    assert_eq!(connection.receive("GET").unwrap().text(), "first");
    connection.receive("GET").unwrap_err();
}

#[test]
fn an_answer_before_the_body_was_read_arrives() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start(&volume.root(), &[]);
    for head in ["", "Expect: 100-continue\r\n"] {
        let mut connection = Connection::open(server.addr);
        let length = 20_000_000;
        connection
            .send(format!("POST / HTTP/1.1\r\nHost: h\r\n{head}Content-Length: {length}\r\n\r\n"))
            .unwrap();
        // All of it is sent before the answer is looked at, as a proxy does that has buffered it.
        connection.send("x".repeat(length)).unwrap();
        assert_eq!(connection.receive("POST").unwrap().status(), 405, "{head}");
        connection.receive("GET").unwrap_err();
    }
}

#[test]
fn an_answer_arrives_also_where_what_follows_it_is_not_read() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start(&volume.root(), &[]);
    let long = format!("POST / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    let last = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_owned();
    for (request, status) in [(long, 431), ("?\r\n\r\n".to_owned(), 400), (last, 200)] {
        let mut connection = Connection::open(server.addr);
        // The first of what follows is there as soon as the request is, and all of it is sent before the answer is looked at.
        connection.send(request + &"x".repeat(100_000)).unwrap();
        for _ in 1..200 {
            connection.send("x".repeat(100_000)).unwrap();
        }
        assert_eq!(connection.receive("GET").unwrap().status(), status);
        connection.receive("GET").unwrap_err();
    }
}

#[test]
fn hosts_that_are_none_and_codings_that_are_said_twice_are_refused() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start(&volume.root(), &[]);
    let status = |request: String| {
        let mut connection = Connection::open(server.addr);
        connection.send(request).unwrap();
        connection.receive("GET").unwrap().status()
    };
    for host in ["..", "a,b", "h:65536", "h:99999", "a..b"] {
        assert_eq!(status(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), 400, "{host}");
    }
    assert_eq!(status("GET / HTTP/1.1\r\nHost: h:65535\r\n\r\n".to_owned()), 200);
    for codings in
        ["Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked, chunked"]
    {
        let request = format!("POST / HTTP/1.1\r\nHost: h\r\n{codings}\r\n\r\n0\r\n\r\n");
        assert_eq!(status(request), 400, "{codings}");
    }
}
