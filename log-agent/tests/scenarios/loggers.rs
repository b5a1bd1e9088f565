//! Event time and level from what loggers write: a line of each as its documentation or a run of it shows it, and what a receiver is told.

use serde_json::Value;
use testkit::wait_until;

use crate::support::{Receiver, Room, write};

/// Name, a line, its event time and its severity number.
const LOGGERS: [(&str, &str, &str, u64); 16] = [
    (
        "zap (Go)",
        r#"{"level":"info","ts":1515151515.123456,"caller":"zap/main.go:9","msg":"constructed a logger"}"#,
        "2018-01-05T11:25:15.123456000Z",
        9,
    ),
    (
        "zerolog (Go)",
        r#"{"level":"debug","time":1516134303,"message":"hello world"}"#,
        "2018-01-16T20:25:03.000000000Z",
        5,
    ),
    (
        "zerolog (Go), RFC 3339",
        r#"{"level":"warn","time":"2026-11-23T18:02:03+01:00","message":"hello"}"#,
        "2026-11-23T18:02:03+01:00",
        13,
    ),
    (
        "logrus (Go)",
        r#"{"animal":"walrus","level":"warning","msg":"The group's number increased","number":122,"time":"2014-03-10T19:57:38.562264131-04:00"}"#,
        "2014-03-10T19:57:38.562264131-04:00",
        13,
    ),
    (
        "slog (Go)",
        r#"{"time":"2022-11-08T15:28:26.000000000-05:00","level":"ERROR+2","msg":"hello","count":3}"#,
        "2022-11-08T15:28:26.000000000-05:00",
        19,
    ),
    (
        "pino (Node.js)",
        r#"{"level":30,"time":1531171074631,"msg":"hello world","pid":657,"hostname":"box"}"#,
        "2018-07-09T21:17:54.631000000Z",
        9,
    ),
    (
        "bunyan (Node.js)",
        r#"{"name":"myapp","hostname":"box","pid":34572,"level":50,"msg":"oh no","time":"2013-01-04T07:47:25.814Z","v":0}"#,
        "2013-01-04T07:47:25.814Z",
        17,
    ),
    (
        "winston (Node.js)",
        r#"{"level":"silly","message":"hi","timestamp":"2026-11-23T18:02:03.123Z"}"#,
        "2026-11-23T18:02:03.123Z",
        1,
    ),
    (
        "ECS: Log4j 2, Logback, ecs-logging",
        r#"{"@timestamp":"2019-08-06T12:09:12.375Z","log.level":"INFO","message":"Tomcat started","ecs.version":"1.2.0"}"#,
        "2019-08-06T12:09:12.375Z",
        9,
    ),
    (
        "logstash-logback-encoder (Java)",
        r#"{"@timestamp":"2019-11-03T15:31:21.568+00:00","@version":"1","message":"m","logger_name":"org.company","thread_name":"main","level":"ERROR","level_value":40000}"#,
        "2019-11-03T15:31:21.568+00:00",
        17,
    ),
    (
        "Serilog, compact (.NET)",
        r#"{"@t":"2016-06-07T03:44:57.8532799Z","@mt":"Hello, {User}","@l":"Fatal","User":"nblumhardt"}"#,
        "2016-06-07T03:44:57.8532799Z",
        21,
    ),
    (
        "tracing-subscriber (Rust)",
        r#"{"timestamp":"2022-02-15T18:47:10.821315Z","level":"TRACE","fields":{"message":"preparing to shave yaks"},"target":"fmt_json"}"#,
        "2022-02-15T18:47:10.821315Z",
        1,
    ),
    (
        "structlog (Python)",
        r#"{"event":"hello","level":"critical","timestamp":"2026-11-23T18:02:03.123456Z"}"#,
        "2026-11-23T18:02:03.123456Z",
        21,
    ),
    (
        "python-json-logger (Python)",
        r#"{"timestamp":"2026-11-23 18:02:03.5+0000","levelname":"WARNING","message":"hello"}"#,
        "2026-11-23T18:02:03.500000000Z",
        13,
    ),
    (
        "Monolog (PHP)",
        r#"{"message":"Adding a new user","context":{},"level":250,"level_name":"NOTICE","channel":"app","datetime":"2026-11-23T18:02:03.123456+00:00","extra":{}}"#,
        "2026-11-23T18:02:03.123456+00:00",
        9,
    ),
    (
        "Google Cloud's structured logging",
        r#"{"severity":"EMERGENCY","message":"on fire","time":"2020-10-12T07:20:50.52Z"}"#,
        "2020-10-12T07:20:50.52Z",
        21,
    ),
];

#[test]
fn event_time_and_level_of_what_loggers_write() {
    let (room, receiver) = (Room::new(), Receiver::start());
    let lines: String = LOGGERS.iter().map(|(_, line, ..)| format!("{line}\n")).collect();
    write(&room.log("a.log"), lines);
    let _agent = room.agent(&receiver.sink(), &[]);
    wait_until("all arrive", || receiver.count() == LOGGERS.len());
    for (record, (name, _, time, severity)) in receiver.records().iter().zip(LOGGERS) {
        assert_eq!(record["timestamp"], time, "{name}");
        assert_eq!(record["severity_number"], severity, "{name}");
    }
}

#[test]
fn time_field_and_level_field() {
    let (room, receiver) = (Room::new(), Receiver::start());
    write(
        &room.log("a.log"),
        "{\"when\":1700000000123,\"how bad\":40,\"time\":\"2026-11-23T18:02:03Z\",\"level\":\"info\"}\n",
    );
    write(&room.log("a.log"), "{\"time\":\"2026-11-23T18:02:03Z\",\"level\":\"info\"}\n");
    let _agent = room.agent(&receiver.sink(), &["--time-field", "when", "--level-field", "how bad"]);
    wait_until("both arrive", || receiver.count() == 2);
    let records = receiver.records();
    let of = |number: usize, name: &str| records[number][name].clone();
    assert_eq!(
        (of(0, "timestamp"), of(0, "severity_number")),
        (Value::from("2023-11-14T22:13:20.123000000Z"), Value::from(13))
    );
    assert_eq!(of(0, "severity_text"), Value::Null, "a number is no text");
    assert_eq!(
        (of(1, "timestamp"), of(1, "severity_text")),
        (Value::from("2026-11-23T18:02:03Z"), Value::from("info"))
    );
}
