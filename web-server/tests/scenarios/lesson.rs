//! The lesson's endpoints.

use std::time::{Duration, Instant};

use testkit::http::Connection;

use crate::support::{Server, Volume};

fn ask(server: &Server, path: &str, host: &str) -> (u16, String, String) {
    let mut connection = Connection::open(server.addr);
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).unwrap();
    let answer = connection.receive("GET").unwrap();
    let content_type = answer.header("content-type").unwrap_or_default().to_owned();
    (answer.status(), content_type, answer.text().to_owned())
}

fn json(body: &str) -> (u16, String, String) {
    (200, "application/json".to_owned(), body.to_owned())
}

#[test]
fn info_golden() {
    let volume = Volume::with(&[("info", "a file that is called like the endpoint")]);
    let server = Server::start(&volume.root(), &[]);
    let golden = r#"{"host": "localhost:9876", "version": "0.5.0", "from": "127.0.0.1"}"#;
    for path in ["/info", "/info?x=y", "//info", "/./info", "/x/../info", "/%69nfo"] {
        assert_eq!(ask(&server, path, "localhost:9876"), json(golden), "{path}");
    }
}

#[test]
fn health_golden() {
    let server = Server::start(&Volume::new().root(), &[]);
    assert_eq!(ask(&server, "/health", "localhost"), json(r#"{"healthy": true}"#));
}

#[test]
fn endpoint0_golden() {
    let server = Server::start_with(&Volume::new().root(), &[], &[("SIMPLE_SERVICE_VERSION", "0.9")]);
    let golden = r#"{"host": "localhost", "version": "0.9", "result": "all is well"}"#;
    assert_eq!(ask(&server, "/endpoint0", "localhost"), json(golden));
}

#[test]
fn version_by_flag_before_variables() {
    let variables = [("VERSION", "1"), ("SIMPLE_SERVICE_VERSION", "2")];
    let server = Server::start_with(&Volume::new().root(), &["--service-version", "say \"3\""], &variables);
    let golden = r#"{"host": "h", "version": "say \"3\"", "from": "127.0.0.1"}"#;
    assert_eq!(ask(&server, "/info", "h"), json(golden));
}

#[test]
fn env_only_when_asked_for() {
    let root = Volume::new().root();
    let secret = [("LESSON_SECRET", "s3cret")];
    let closed = Server::start_with(&root, &[], &secret);
    let (status, _, body) = ask(&closed, "/env", "h");
    assert_eq!(status, 404);
    assert!(!body.contains("s3cret"), "{body}");

    let open = Server::start_with(&root, &["--expose-env"], &secret);
    let (status, _, body) = ask(&open, "/env", "h");
    assert_eq!(status, 200);
    assert!(body.starts_with(r#"{"version": "0.5.0", "env": {""#), "{body}");
    assert!(body.contains(r#""LESSON_SECRET": "s3cret""#), "{body}");
}

#[test]
fn health_delay_does_not_block() {
    let delays = [("HEALTH_MIN", "500"), ("HEALTH_MAX", "900")];
    let server = Server::start_with(&Volume::new().root(), &[], &delays);
    let begin = Instant::now();
    let mut waiting = Connection::open(server.addr);
    waiting.send("GET /health HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let others = (0..20).map(|_| server.get("/info").status()).filter(|status| *status == 200).count();
    assert_eq!(others, 20);
    assert!(begin.elapsed() < Duration::from_millis(500), "/info waited for /health");
    assert_eq!(waiting.receive("GET").unwrap().text(), r#"{"healthy": true}"#);
    // The upper bound is generous: a loaded machine may be late, but the lower one must hold exactly.
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(5), "{took:?}");
}
