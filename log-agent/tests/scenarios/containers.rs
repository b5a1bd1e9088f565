//! Lines as container runtimes write them: parts are joined, and what the runtime says is taken over.

use serde_json::{Value, json};
use testkit::wait_until;

use crate::support::{Receiver, Room, drained, metric, write};

const T: &str = "2026-11-23T18:02:03.123456789Z";

fn told(record: &Value) -> Value {
    let of = |name: &str| record[name].clone();
    json!([of("body"), of("attributes"), of("timestamp"), of("log.iostream")])
}

#[test]
fn cri_lines() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let inner = r#"{"level":"warn","time":"2026-01-01T00:00:00Z"}"#;
    write(
        &room.log("a.log"),
        format!("{T} stdout P one \n{T} stderr F {inner}\n{T} stdout F line\nnot a runtime's\n"),
    );
    let mut agent = room.agent(&receiver.sink(), &["--parse", "cri"]);
    wait_until("all arrive", || receiver.count() == 3);
    let records = receiver.records();
    assert_eq!(told(&records[0]), json!(["one line", null, T, "stdout"]));
    let attributes: Value = serde_json::from_str(inner).unwrap();
    assert_eq!(told(&records[1]), json!([null, attributes, "2026-01-01T00:00:00Z", "stderr"]));
    assert_eq!(records[1]["severity_number"], 13);
    assert_eq!(
        (&records[2]["body"], &records[2]["parse_error"]),
        (&json!("not a runtime's"), &json!("not_cri"))
    );
    assert!(records[0]["id"].as_str().unwrap().ends_with(":0"), "that of its first part");
    assert!(metric(&agent, "log_agent_bad_lines_total") > 0.9);
    assert!(agent.terminate().success());
    assert_eq!(drained(&agent), 0);
}

/// The position is before a line that is open, so after a restart its first part is there again.
#[test]
fn cri_parts_across_a_restart() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let mut agent = room.agent(&receiver.sink(), &["--parse", "cri"]);
    write(&room.log("a.log"), format!("{T} stdout F first\n"));
    receiver.expect(&["first"]);
    // It ends before the runtime has been quiet for long enough to be taken as gone.
    write(&room.log("a.log"), format!("{T} stdout P be"));
    write(&room.log("a.log"), format!("ginning, \n{T} stderr P other "));
    assert!(agent.terminate().success());
    assert!(drained(&agent) > 0);
    write(&room.log("a.log"), format!("\n{T} stdout F end\n{T} stderr F one\n"));
    let _agent = room.agent(&receiver.sink(), &["--parse", "cri"]);
    receiver.expect(&["first", "beginning, end", "other one"]);
}

/// A container that ended within a line never writes the last part.
#[test]
fn cri_part_without_an_end() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), format!("{T} stdout P no end\n"));
    let _agent = room.agent(&receiver.sink(), &["--parse", "cri", "--rescan-period", "100ms"]);
    receiver.expect(&["no end"]);
}

#[test]
fn cri_part_without_an_end_is_not_waited_for_until_the_next_scan() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), format!("{T} stdout P no end\n"));
    let _agent = room.agent(&receiver.sink(), &["--parse", "cri", "--rescan-period", "1h"]);
    receiver.expect(&["no end"]);
}

#[test]
fn docker_lines() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let line = |log: &str, stream: &str| format!("{}\n", json!({"log": log, "stream": stream, "time": T}));
    let text =
        [line("one \"", "stdout"), line("{\"a\":1}\n", "stderr"), line("line\"\r\n", "stdout")].concat();
    write(&room.log("a.log"), text + "{\"log\":1}\n");
    let mut agent = room.agent(&receiver.sink(), &["--parse", "docker", "--exit-at-eof"]);
    assert!(agent.wait().success());
    let records = receiver.records();
    assert_eq!(told(&records[0]), json!(["one \"line\"", null, T, "stdout"]));
    assert_eq!(told(&records[1]), json!([null, {"a": 1}, T, "stderr"]));
    assert_eq!(records[2]["parse_error"], "not_docker");
}

#[test]
fn a_long_line_in_many_parts() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let part = "x".repeat(16 * 1024);
    let text = format!("{T} stdout P {part}\n").repeat(5) + &format!("{T} stdout F end\n");
    write(&room.log("a.log"), text.repeat(20));
    let mut agent = room.agent(&receiver.sink(), &["--parse", "cri", "--exit-at-eof", "--max-line", "70000"]);
    assert!(agent.wait().success());
    let bodies = receiver.bodies();
    assert_eq!((bodies.len(), bodies[19].len()), (20, 70_000));
    let records = receiver.records();
    let cut = records[19]["truncated_bytes"].as_u64().unwrap();
    assert_eq!(cut, 5 * 16 * 1024 + 3 - 70_000);
}

/// Short, and longer than what is read at once.
#[test]
fn lines_behind_a_hole() {
    for hole in [3, 300_000] {
        for (format, first, then) in [
            ("cri", format!("{T} stdout F one\n"), format!("{T} stderr F two\n")),
            (
                "docker",
                format!("{}\n", json!({"log": "one\n", "stream": "stdout", "time": T})),
                format!("{}\n", json!({"log": "two\n", "stream": "stderr", "time": T})),
            ),
            ("auto", "{\"message\":\"one\"}\n".to_owned(), "{\"message\":\"two\"}\n".to_owned()),
        ] {
            let (room, receiver) = (Room::new(), Receiver::start());
            let nuls = "\0".repeat(hole);
            write(&room.log("a.log"), format!("{nuls}{first}{nuls}{then}"));
            let agent = room.agent(&receiver.sink(), &["--parse", format]);
            wait_until("both arrive", || receiver.count() == 2);
            let [one, two] = &receiver.records()[..] else { panic!("two") };
            assert!(one["id"].as_str().unwrap().ends_with(&format!(":{hole}")), "{one}");
            if format == "auto" {
                assert_eq!([&one["attributes"]["message"], &two["attributes"]["message"]], ["one", "two"]);
            } else {
                assert_eq!(told(one), json!(["one", null, T, "stdout"]), "{format} {hole}");
                assert_eq!(told(two), json!(["two", null, T, "stderr"]), "{format} {hole}");
            }
            let skipped = 2.0 * f64::from(u32::try_from(hole).unwrap());
            assert!(
                (metric(&agent, "log_agent_skipped_bytes_total") - skipped).abs() < 0.5,
                "{format} {hole}"
            );
        }
    }
}
