//! What is joined, left out, hidden and added.

use std::fs;

use testkit::wait_until;

use crate::support::{Receiver, Room, drained, metric, write};

#[test]
fn multiline_start() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let more = ["--multiline-start", r"^\d{4}-"];
    let mut agent = room.agent(&receiver.sink(), &more);
    write(&room.log("a.log"), "2026-11-23 failed\n  at a\n");
    write(&room.log("a.log"), "  at b\n2026-11-23 next\n");
    // The first is whole as soon as the second begins, the second when nobody goes on with it.
    receiver.expect(&["2026-11-23 failed\n  at a\n  at b", "2026-11-23 next"]);
    write(&room.log("a.log"), "2026-11-24 last\n  of all\n");
    assert!(agent.terminate().success(), "{}", agent.stderr());
    assert_eq!(drained(&agent), 0);
    receiver.expect(&["2026-11-23 failed\n  at a\n  at b", "2026-11-23 next", "2026-11-24 last\n  of all"]);
}

#[test]
fn multiline_without_end() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), format!("BEGIN\n{}BEGIN again\n", "  line\n".repeat(100_000)));
    let mut agent = room.agent(&receiver.sink(), &["--multiline-start", "^BEGIN", "--exit-at-eof"]);
    assert!(agent.wait().success(), "{}", agent.stderr());
    let bodies = receiver.bodies();
    assert_eq!(bodies.last().map(String::as_str), Some("BEGIN again"));
    assert_eq!(bodies.iter().map(|body| body.lines().count()).sum::<usize>(), 100_002, "nothing is lost");
}

#[test]
fn multiline_exit_at_eof() {
    let (room, receiver) = (Room::new(), Receiver::start());
    // The last line of each file has no end, and nobody will give it one.
    write(&room.log("a.log"), "2026-11-23 first\n  at a\n2026-11-23 last\n  at b\n  at c");
    write(&room.log("b.log"), "2026-11-23 first\n  at a\n2026-11-23 last");
    let more = ["--multiline-start", r"^\d{4}-", "--exit-at-eof"];
    let mut agent = room.agent(&receiver.sink(), &more);
    assert!(agent.wait().success(), "{}", agent.stderr());
    assert_eq!(drained(&agent), 0);
    let mut bodies = receiver.bodies();
    bodies.sort();
    let first = "2026-11-23 first\n  at a";
    assert_eq!(bodies, [first, first, "2026-11-23 last", "2026-11-23 last\n  at b\n  at c"]);
}

#[test]
fn multiline_with_an_unfinished_line() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let more = ["--multiline-start", r"^\d{4}-"];
    write(&room.log("a.log"), "2026-11-23 first\n2026-11-23 last\n  at b\n  at");
    let mut agent = room.agent(&receiver.sink(), &more);
    receiver.expect(&["2026-11-23 first"]);
    assert!(agent.terminate().success(), "{}", agent.stderr());
    assert_eq!(drained(&agent), 27, "it waits for its end");
    write(&room.log("a.log"), " c\n");
    let _agent = room.agent(&receiver.sink(), &more);
    receiver.expect(&["2026-11-23 first", "2026-11-23 last\n  at b\n  at c"]);
}

#[test]
fn fields_and_lines_that_are_left_out() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let more = [
        "--drop-field",
        "cookie,agent",
        "--redact-field",
        "user",
        "--drop",
        "url.path=/health",
        "--drop",
        "url.path=/ready",
    ];
    let mut agent = room.agent(&receiver.sink(), &more);
    let noise = "{\"url.path\":\"/health\"}\n";
    write(&room.log("a.log"), noise.repeat(3));
    write(&room.log("a.log"), "{\"url.path\":\"/\",\"cookie\":\"c\",\"user\":\"me\",\"n\":1.50}\n");
    write(&room.log("a.log"), noise.replace("health", "ready"));
    wait_until("it arrives", || receiver.records().len() == 1);
    let wire = receiver.upstream.requests()[0].text().to_owned();
    assert!(wire.contains(r#""attributes":{"url.path":"/","user":"REDACTED","n":1.50}"#), "{wire}");
    let left_out = (noise.len() * 4 - 5) as f64;
    wait_until("they are counted", || (metric(&agent, "log_agent_lost_bytes_total") - left_out).abs() < 0.1);
    assert!(agent.terminate().success());
    assert_eq!(drained(&agent), 0, "the position moved over them");
    let mut again = room.agent(&receiver.sink(), &["--exit-at-eof"]);
    assert!(again.wait().success());
    assert_eq!(receiver.records().len(), 1);
}

#[test]
fn downward_api_files() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let labels = room.path("labels");
    fs::write(&labels, "app=\"web\"\ntier=\"front \\\"1\\\"\"\n").unwrap();
    fs::write(room.path("annotations"), "note=\"a\\nb\"\n").unwrap();
    let annotations = room.path("annotations");
    let more = [
        "--pod-labels-file",
        labels.to_str().unwrap(),
        "--pod-annotations-file",
        annotations.to_str().unwrap(),
        "--rescan-period",
        "50ms",
    ];
    write(&room.log("a.log"), "a\n");
    let _agent = room.agent(&receiver.sink(), &more);
    receiver.expect(&["a"]);
    let resource = receiver.records()[0]["resource"].clone();
    let expected = serde_json::json!({
        "k8s.pod.label.app": "web", "k8s.pod.label.tier": "front \"1\"", "k8s.pod.annotation.note": "a\nb",
    });
    assert_eq!(resource, expected);
    // As the kubelet does it: another file in the place of the old one.
    fs::write(room.path("new"), "app=\"other\"\n").unwrap();
    fs::rename(room.path("new"), &labels).unwrap();
    wait_until("the change is picked up", || {
        write(&room.log("a.log"), "b\n");
        let records = receiver.records();
        records.last().is_some_and(|record| record["resource"]["k8s.pod.label.app"] == "other")
    });
}
