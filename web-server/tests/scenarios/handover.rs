//! What there is before the first release, between one and the next, and when one is mended.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use testkit::http::{Connection, get};
use testkit::wait_until;

use crate::support::{Server, Volume};

#[test]
fn assets_of_the_release_before_stay_for_a_while_and_pages_do_not() {
    let large = "x".repeat(512 * 1024);
    let volume = Volume::with(&[
        ("index.html", "one"),
        ("old.html", "a page"),
        ("app.1.js", "first"),
        ("large.1.bin", &large),
        ("shared.css", "one"),
    ]);
    let server = Server::start(&volume.root(), &["--access-log", "-"]);
    let etag = server.get("/app.1.js").header("etag").unwrap().to_owned();
    volume.publish(
        "two",
        &[("index.html", "two"), ("app.2.js", "second"), ("never.js", ""), ("shared.css", "two")],
    );
    server.wait_for("/", "two");
    let leftover = server.get("/app.1.js");
    assert_eq!((leftover.status(), leftover.text()), (200, "first"));
    assert_eq!(leftover.header("etag"), Some(etag.as_str()));
    assert_eq!(server.get("/large.1.bin").body.len(), large.len());
    assert_eq!(server.request("GET", "/large.1.bin", &[("Range", "bytes=1-3")]).text(), "xxx");
    assert_eq!(server.get("/shared.css").text(), "two");
    assert_eq!(server.get("/old.html").status(), 404);
    // The log says which release the answer came from.
    let from_one = || {
        let lines = server.process.stdout_lines();
        lines.iter().any(|line| line.contains("app.1.js") && line.ends_with(r#""release.id":"one"}"#))
    };
    wait_until("it is in the log", from_one);

    // Two releases later it is still there, unless its release is not.
    volume.publish("three", &[("index.html", "three")]);
    server.wait_for("/", "three");
    assert_eq!(server.get("/app.1.js").text(), "first");
    assert_eq!(server.get("/app.2.js").text(), "second");
    assert_eq!(server.get("/shared.css").text(), "two");
    std::fs::remove_dir_all(volume.release("two")).unwrap();
    assert_eq!(server.get("/never.js").status(), 404);
    // Back again, and it is nobody's leftover.
    volume.swap("one");
    server.wait_for("/", "one");
    assert_eq!(server.get("/app.1.js").text(), "first");
}

#[test]
fn assets_of_the_release_before_are_let_go_of() {
    let large = "x".repeat(512 * 1024);
    let files = [("index.html", "one"), ("large.bin", large.as_str())];
    let volume = Volume::with(&files);
    let server = Server::start(&volume.root(), &["--stale-assets-for", "2s"]);
    server.wait_for("/", "one");
    let old = volume.release("one").join("large.bin");
    let holds_it_open = || {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", server.process.id())).unwrap();
        let mut targets = descriptors.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        targets.any(|target| target == old)
    };
    volume.publish("two", &[("index.html", "two")]);
    wait_until("it is a leftover", || {
        server.get("/").text() == "two" && server.get("/large.bin").status() == 200
    });
    wait_until("it is nobody's any more", || server.get("/large.bin").status() == 404);
    wait_until("its descriptor is closed", || !holds_it_open());

    let never = Server::start(&volume.root(), &["--stale-assets-for", "0s"]);
    volume.swap("one");
    never.wait_for("/", "one");
    volume.swap("two");
    never.wait_for("/", "two");
    assert_eq!(never.get("/large.bin").status(), 404);
    assert_eq!(get(never.admin, "/readyz").status(), 200);
}

#[test]
fn a_release_that_was_mended_in_place_is_loaded_anew_when_its_link_is_renamed() {
    let large = "x".repeat(1024 * 1024);
    let volume = Volume::with(&[("index.html", "good"), ("large.bin", &large)]);
    let server = Server::start(&volume.root(), &[]);
    assert_eq!(server.get("/large.bin").text(), large);
    drop(server);

    // Damaged as nobody should, before it was opened.
    let path = volume.release("one").join("large.bin");
    let server = Server::start(&volume.root(), &[]);
    server.wait_for("/", "good");
    std::fs::write(&path, "damaged").unwrap();
    assert_eq!(server.get("/large.bin").status(), 503);
    // Mended as file-puller does: a new file in its place, and the link anew although it says the same.
    let mended = volume.release("one").join(".mended");
    std::fs::write(&mended, &large).unwrap();
    std::fs::rename(&mended, &path).unwrap();
    volume.swap("one");
    wait_until("it is served again", || server.get("/large.bin").status() == 200);
    assert_eq!(server.get("/large.bin").text(), large);
    let status = get(server.admin, "/status").json();
    // Nothing else is served than before.
    assert_eq!(status["swaps"], 1);
}

/// A release that takes long to load, because nobody says what its files' digests are.
fn large_release(volume: &Volume) {
    volume.stage("one", &[("index.html", "one")]);
    let large = File::create(volume.release("one").join("large.bin")).unwrap();
    // Sparse: it takes no space.
    large.set_len(64 << 30).unwrap();
    large.write_all_at(b"end", (64 << 30) - 3).unwrap();
    volume.swap("one");
}

#[test]
fn a_large_first_release_holds_up_neither_the_lesson_nor_sigterm() {
    let volume = Volume::new();
    large_release(&volume);
    let mut server = Server::start_loading(&volume.root(), &["--shutdown-timeout", "30s"], &[]);
    assert_eq!(server.get("/health").status(), 200);
    assert_eq!(get(server.admin, "/livez").status(), 200);
    let ready = get(server.admin, "/readyz");
    assert!(ready.status() == 503 && ready.text().contains("is being loaded"), "{}", ready.text());
    // Who asks for content waits a moment for it, but not for ever.
    let answer = server.get("/");
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")));

    let mut waiting = Connection::open(server.addr);
    waiting.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    wait_until("it is waited for", || get(server.admin, "/status").json()["requests_in_flight"] == 1);
    let begin = Instant::now();
    assert_eq!(server.process.terminate().code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    assert_eq!(waiting.receive("GET").unwrap().status(), 503);
}
