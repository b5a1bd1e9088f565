//! Faults on purpose, for the labs.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use testkit::http::{get, request};

use crate::support::{Server, Volume};

fn set(server: &Server, fault: &str) -> u16 {
    request(server.admin, "POST", &format!("/faults/{fault}"), &[]).status()
}

#[test]
fn faults_only_when_asked_for() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start(&volume.root(), &[]);
    for fault in ["unready", "failing", "delayed", "crash"] {
        assert_eq!(set(&server, fault), 404, "{fault}");
    }
    assert_eq!(server.get("/").text(), "hello");
    assert_eq!(get(server.admin, "/readyz").status(), 200);
}

#[test]
fn unready_failing_delayed_and_well_again() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let server = Server::start(&volume.root(), &["--enable-faults"]);
    assert_eq!(get(server.admin, "/faults/unready").status(), 405);

    assert_eq!(set(&server, "unready"), 200);
    assert_eq!(get(server.admin, "/readyz").status(), 503);
    assert_eq!(get(server.admin, "/status").json()["fault"], "unready");
    assert_eq!(server.get("/").text(), "hello");

    assert_eq!(set(&server, "failing"), 200);
    assert_eq!(get(server.admin, "/readyz").status(), 200);
    assert_eq!(server.get("/").status(), 500);
    assert_eq!(server.get("/health").status(), 500);

    assert_eq!(set(&server, "delayed"), 200);
    let begin = Instant::now();
    assert_eq!(server.get("/").text(), "hello");
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(get(server.admin, "/livez").status(), 200);

    assert_eq!(set(&server, "none"), 200);
    assert_eq!(server.get("/").text(), "hello");
}

#[test]
fn a_crash_is_a_crash() {
    let volume = Volume::with(&[("index.html", "hello")]);
    let mut server = Server::start(&volume.root(), &["--enable-faults"]);
    // There may be no answer.
    drop(testkit::http::try_request(server.admin, "POST", "/faults/crash", &[]));
    assert_eq!(server.process.wait().signal(), Some(6));
}
