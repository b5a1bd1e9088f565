//! What a line is, and what becomes of it.

use std::io::Write as _;
use std::process::Command;

use testkit::{Process, wait_until};

use crate::support::{Receiver, Room, append, drained, metric, write};

#[test]
fn torn_line() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let agent = room.agent(&receiver.sink(), &[]);
    let mut file = append(&room.log("a.log"));
    file.write_all(b"whole\nto").unwrap();
    receiver.expect(&["whole"]);
    file.write_all(b"r").unwrap();
    file.write_all(b"n\nnext\n").unwrap();
    receiver.expect(&["whole", "torn", "next"]);
    assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5);
}

#[test]
fn torn_line_across_restart() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "whole\nto");
    let mut agent = room.agent(&receiver.sink(), &[]);
    receiver.expect(&["whole"]);
    assert!(agent.terminate().success(), "{}", agent.stderr());
    assert_eq!(drained(&agent), 2, "the unfinished line is named");
    write(&room.log("a.log"), "rn\n");
    let _agent = room.agent(&receiver.sink(), &[]);
    receiver.expect(&["whole", "torn"]);
}

#[test]
fn torn_line_after_rotation() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let mut old = append(&room.log("a.log"));
    old.write_all(b"one\nto").unwrap();
    let _agent = room.agent(&receiver.sink(), &["--rotate-wait", "500ms"]);
    receiver.expect(&["one"]);
    std::fs::rename(room.log("a.log"), room.log("a.log.1")).unwrap();
    write(&room.log("a.log"), "new\n");
    old.write_all(b"rn\nno end").unwrap();
    wait_until("the end of the old file arrives", || receiver.bodies().contains(&"no end".to_owned()));
    let bodies = receiver.bodies();
    assert_eq!(bodies.len(), 4, "{bodies:?}");
    assert!(bodies.contains(&"torn".to_owned()), "{bodies:?}");
}

#[test]
fn no_final_newline_at_end() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "one\ntwo");
    let mut agent = room.agent(&receiver.sink(), &["--exit-at-eof"]);
    assert!(agent.wait().success(), "{}", agent.stderr());
    receiver.expect(&["one", "two"]);
    assert_eq!(drained(&agent), 0);
    let mut again = room.agent(&receiver.sink(), &["--exit-at-eof"]);
    assert!(again.wait().success());
    receiver.expect(&["one", "two"]);
}

#[test]
#[expect(non_snake_case, reason = "the unit is a name")]
fn line_10MB() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let long = "x".repeat(10_000_000);
    let mut file = append(&room.log("a.log"));
    let agent = room.agent(&receiver.sink(), &[]);
    file.write_all(b"before\n").unwrap();
    // In two writes, so that the end is not there yet when the beginning is.
    file.write_all(&long.as_bytes()[..5_000_000]).unwrap();
    receiver.expect(&["before"]);
    file.write_all(&long.as_bytes()[5_000_000..]).unwrap();
    file.write_all(b"\nafter\n").unwrap();
    receiver.expect(&["before", &long[..1 << 20], "after"]);
    let cut = (10_000_000 - (1 << 20)) as u64;
    assert_eq!(receiver.records()[1]["truncated_bytes"], cut);
    let lost = agent.event("the loss", |event| event["reason"] == "over_long_line");
    assert_eq!(lost["bytes"], cut);
    assert_eq!(lost["from"], 7 + (1 << 20));
}

#[test]
fn a_line_of_exactly_the_limit_is_whole() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let line = "é".repeat(50);
    write(&room.log("a.log"), format!("{line}\n{line}x\n{}\n", "y".repeat(300_000)));
    let mut agent = room.agent(&receiver.sink(), &["--max-line", "100", "--exit-at-eof"]);
    assert!(agent.wait().success());
    receiver.expect(&[&line, &line, &"y".repeat(100)]);
    let cut: Vec<_> = receiver.records().iter().map(|record| record["truncated_bytes"].clone()).collect();
    assert_eq!(cut, [serde_json::Value::Null, 1.into(), 299_900.into()]);
}

#[test]
fn nul_bytes() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "a\0b\n\0\n\0\0\0\0\nend\n");
    let _agent = room.agent(&receiver.sink(), &[]);
    receiver.expect(&["a\0b", "\0", "\0\0\0\0", "end"]);
}

#[test]
fn crlf() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "one\r\ntwo\r\r\n\r\nthree\rfour\nend\r\n");
    let agent = room.agent(&receiver.sink(), &[]);
    receiver.expect(&["one", "two\r", "", "three\rfour", "end"]);
    assert!(metric(&agent, "log_agent_lost_bytes_total") < 0.5, "a line break is no loss");
}

#[test]
fn empty_lines() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "\n\n \n\nend\n\n");
    let _agent = room.agent(&receiver.sink(), &[]);
    receiver.expect(&["", "", " ", "", "end", ""]);
    let ids: std::collections::BTreeSet<_> =
        receiver.records().iter().map(|record| record["id"].to_string()).collect();
    assert_eq!(ids.len(), 6, "each is a record of its own");
}

#[test]
fn invalid_utf8() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), b"caf\xe9\n{\"a\":\"\xff\"}\nend\n");
    let agent = room.agent(&receiver.sink(), &[]);
    wait_until("all arrive", || receiver.records().len() == 3);
    let records = receiver.records();
    assert_eq!(records[0]["body"], "caf\u{fffd}");
    assert_eq!(records[0]["body_base64"], "Y2Fm6Q==");
    assert_eq!(records[1]["parse_error"], "not_utf8");
    assert_eq!(records[2]["body"], "end");
    assert!((metric(&agent, "log_agent_bad_lines_total") - 1.0).abs() < 0.1);
}

const ACCESS: &str = r#"{"timestamp":"2026-11-23T18:02:03.123456Z","client.address":"127.0.0.1","http.response.status_code":200,"http.server.request.duration":0.000113,"nested":{"a":[1,null,true]}}"#;

#[test]
fn parse_json() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), format!("{ACCESS}\n"));
    let _agent = room.agent(&receiver.sink(), &["--parse", "json"]);
    wait_until("it arrives", || receiver.records().len() == 1);
    let record = &receiver.records()[0];
    assert_eq!(record["timestamp"], "2026-11-23T18:02:03.123456Z");
    assert_eq!(record["attributes"], serde_json::from_str::<serde_json::Value>(ACCESS).unwrap());
    assert!(record.get("body").is_none());
    let wire = receiver.upstream.requests()[0].text().to_owned();
    assert!(wire.contains(ACCESS), "the writer's bytes: {wire}");
}

#[test]
fn parse_bad_line() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), format!("{{\"torn\":\n{ACCESS}\nplain\n"));
    let agent = room.agent(&receiver.sink(), &["--parse", "json"]);
    wait_until("all arrive", || receiver.records().len() == 3);
    let records = receiver.records();
    assert_eq!(records[0]["body"], "{\"torn\":");
    assert_eq!(records[0]["parse_error"], "not_json_object");
    assert_eq!(records[1]["attributes"]["client.address"], "127.0.0.1");
    assert_eq!(records[2]["body"], "plain");
    assert_eq!(records[2]["parse_error"], "not_json_object");
    assert!((metric(&agent, "log_agent_bad_lines_total") - 2.0).abs() < 0.1);
}

#[test]
fn parse_combined() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let line =
        r#"127.0.0.1 - - [23/Nov/2026:18:02:03 +0000] "GET /index.html HTTP/1.1" 200 1024 "-" "curl/8""#;
    write(&room.log("a.log"), format!("{line}\nno access log\n"));
    let agent = room.agent(&receiver.sink(), &["--parse", "combined"]);
    wait_until("all arrive", || receiver.records().len() == 2);
    let records = receiver.records();
    assert_eq!(records[0]["timestamp"], "2026-11-23T18:02:03Z");
    assert_eq!(records[0]["attributes"]["http.response.status_code"], 200);
    assert_eq!(records[0]["attributes"]["url.path"], "/index.html");
    assert_eq!(records[1]["body"], "no access log");
    assert_eq!(records[1]["parse_error"], "not_combined");
    assert!((metric(&agent, "log_agent_bad_lines_total") - 1.0).abs() < 0.1);
}

#[test]
fn parse_logfmt() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "level=warn msg=\"disk full\" free=0.5 retry=true\nno pairs\n");
    let _agent = room.agent(&receiver.sink(), &["--parse", "logfmt"]);
    wait_until("all arrive", || receiver.records().len() == 2);
    let records = receiver.records();
    assert_eq!(records[0]["severity_text"], "warn");
    let expected = serde_json::json!({"level": "warn", "msg": "disk full", "free": 0.5, "retry": true});
    assert_eq!(records[0]["attributes"], expected);
    assert_eq!(records[1]["parse_error"], "not_logfmt");
}

#[test]
fn downward_api_labels() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(&room.log("a.log"), "a\n");
    let mut command: Command =
        room.command("logs/*.log", &[&receiver.sink()], &["--label", "service.name=web,team=a=b"]);
    command.envs([
        ("POD_NAME", "web-0"),
        ("POD_NAMESPACE", "default"),
        ("POD_UID", "u-1"),
        ("NODE_NAME", "n1"),
    ]);
    let _agent = Process::start_command(command);
    wait_until("it arrives", || receiver.records().len() == 1);
    let expected = serde_json::json!({
        "k8s.pod.name": "web-0", "k8s.namespace.name": "default", "k8s.pod.uid": "u-1", "k8s.node.name": "n1",
        "service.name": "web", "team": "a=b",
    });
    assert_eq!(receiver.records()[0]["resource"], expected);
}
