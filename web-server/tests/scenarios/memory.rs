//! One budget for the process: what does not fit is refused and said, and what is used is shown.

use testkit::http::{Connection, get};
use testkit::wait_until;

use crate::support::{Server, Volume, write_tree};

/// With [`LIMIT`] there is no room for an index of so many names.
const MANY: usize = 16_000;
const LIMIT: [&str; 4] = ["--memory-limit", "16MiB", "--cache-size", "0"];

fn publish_many(volume: &Volume, id: &str) {
    let names: Vec<String> = (0..MANY).map(|number| format!("{number}-{}", "n".repeat(180))).collect();
    let files = names.iter().map(|name| (name.as_str(), "")).chain([("index.html", id)]);
    volume.publish(id, &files.collect::<Vec<_>>());
}

#[track_caller]
fn wait_until_refused(server: &Server, id: &str) {
    let status = || get(server.admin, "/status").json();
    wait_until("the release is refused", || status()["content"]["refused"]["release"] == id);
    let reason = status()["content"]["refused"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains(id) && reason.contains("--memory-limit"), "{reason}");
    assert_eq!(server.metric("release_refused"), 1);
    let said = || server.process.stderr().matches("does not fit into memory").count();
    wait_until("it is said", || said() > 0);
    // Another look, for what else is in the volume, is no reason to say it again.
    std::fs::write(status()["root"].as_str().unwrap().to_owned() + ".other", "").unwrap();
    wait_until("index memory is given back", || server.metric("memory_used_bytes{use=\"index\"}") < 1 << 20);
    assert_eq!(said(), 1, "{}", server.process.stderr());
}

#[test]
fn a_release_that_does_not_fit_is_refused_and_the_one_before_it_stays() {
    let volume = Volume::with(&[("index.html", "one")]);
    let server = Server::start(&volume.root(), &LIMIT);
    publish_many(&volume, "two");
    wait_until_refused(&server, "two");
    assert_eq!(server.get("/").text(), "one");
    assert_eq!(get(server.admin, "/readyz").status(), 200);
    volume.publish("three", &[("index.html", "three")]);
    server.wait_for("/", "three");
    assert_eq!(server.metric("release_refused"), 0);
    assert!(get(server.admin, "/status").json()["content"]["refused"].is_null());
}

#[test]
fn a_first_release_that_does_not_fit_leaves_the_server_unready_until_one_does() {
    let volume = Volume::new();
    publish_many(&volume, "one");
    let server = Server::start(&volume.root(), &LIMIT);
    wait_until_refused(&server, "one");
    let ready = get(server.admin, "/readyz");
    assert!(ready.status() == 503 && ready.text().contains("--memory-limit"), "{ready:?}");
    let answer = server.get("/");
    assert!(answer.status() == 503 && answer.header("retry-after").is_some(), "{answer:?}");
    volume.publish("two", &[("index.html", "two")]);
    server.wait_for("/", "two");
    assert_eq!(get(server.admin, "/readyz").status(), 200);
    assert_eq!(server.metric("release_refused"), 0);
}

#[test]
fn a_release_that_does_not_fit_is_forgotten_where_the_root_becomes_a_file() {
    let volume = Volume::new();
    publish_many(&volume, "one");
    let server = Server::start(&volume.root(), &LIMIT);
    wait_until_refused(&server, "one");
    std::fs::remove_file(volume.root()).unwrap();
    std::fs::write(volume.root(), "").unwrap();
    wait_until("it is forgotten", || server.metric("release_refused") == 0);
}

#[test]
fn a_listing_that_does_not_fit_is_refused_and_why_is_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..MANY).map(|number| format!("many/{number}-{}", "n".repeat(180))).collect();
    let files = names.iter().map(|name| (name.as_str(), "")).chain([("few/one.txt", "one")]);
    write_tree(dir.path(), &files.collect::<Vec<_>>());
    let server = Server::start(dir.path(), &[&LIMIT[..], &["--autoindex"]].concat());
    for accept in ["text/html", "application/json"] {
        let answer = server.request("GET", "/many/", &[("Accept", accept)]);
        assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")), "{accept}");
    }
    let said = || server.process.stderr().matches("its listing does not fit into memory").count();
    let listing = server.get("/few/");
    wait_until("it is said", || said() > 0);
    assert_eq!(said(), 1, "{}", server.process.stderr());
    assert!(listing.status() == 200 && listing.text().contains("one.txt"), "{listing:?}");
    assert_eq!(server.metric("memory_used_bytes{use=\"cache\"}"), 0, "all of it was given back");
}

#[test]
fn a_short_listing_is_given_out_where_connections_that_rest_have_taken_all_they_may() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &[("few/one.txt", "one")]);
    let server = Server::start(dir.path(), &[&LIMIT[..], &["--autoindex"]].concat());
    let mut resting = Vec::new();
    while server.metric("connections_evicted_total") == 0 {
        for _ in 0..20 {
            let mut connection = Connection::open(server.addr);
            connection.send("GET /few/one.txt HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            assert_eq!(connection.receive("GET").unwrap().status(), 200);
            resting.push(connection);
        }
    }
    let listing = server.get("/few/");
    assert!(listing.status() == 200 && listing.text().contains("one.txt"), "{listing:?}");
}

#[test]
fn what_memory_is_used_for_is_shown_and_the_cache_stays_beneath_its_ceiling() {
    const FILES: u64 = 10;
    const SIZE: u64 = 100 * 1024;
    let body = "x".repeat(usize::try_from(SIZE).unwrap());
    let names: Vec<String> = (0..FILES).map(|number| format!("{number}.bin")).collect();
    let volume = Volume::with(&names.iter().map(|name| (name.as_str(), body.as_str())).collect::<Vec<_>>());
    for (ceiling, held) in [("64MiB", FILES), ("350KiB", 3), ("0", 0)] {
        let flags = ["--cache-size", ceiling, "--memory-limit", "64MiB"];
        let server = Server::start(&volume.root(), &flags);
        let mut client = Connection::open(server.addr);
        client.send("GET /0.bin HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!(client.receive("GET").unwrap().status(), 200);
        let status = get(server.admin, "/status").json();
        assert_eq!(status["content"]["held_bytes"], held * SIZE, "{status}");
        let memory = &status["memory"];
        assert_eq!(memory["limit_bytes"], 64 << 20);
        let used = |account: &str| memory[format!("{account}_bytes")].as_u64().unwrap();
        // Each with a little for its headers.
        assert!((held * SIZE..=held * (SIZE + 1024)).contains(&used("cache")), "{status}");
        assert!(used("index") > 0 && used("connections") > 0 && used("manifest") == 0, "{status}");
        for account in ["cache", "index", "manifest", "streams", "send_buffers", "long_heads"] {
            let shown = server.metric(&format!("memory_used_bytes{{use=\"{account}\"}}"));
            assert_eq!(shown, used(account), "{account}");
        }
        // Those without room there are sent from the volume.
        for name in &names {
            assert_eq!(server.get(&format!("/{name}")).body.len() as u64, SIZE);
        }
    }
}
