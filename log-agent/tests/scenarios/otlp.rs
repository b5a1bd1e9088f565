//! OTLP, decoded by the messages that OpenTelemetry itself publishes.

use std::io::Read as _;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use testkit::http::Message;
use testkit::{Answer, Upstream, wait_until};

use crate::support::{Room, append, metric, write, write_numbers};

/// A collector that notes what it confirmed.
pub(crate) struct Collector {
    upstream: Upstream,
    requests: Arc<Mutex<Vec<ExportLogsServiceRequest>>>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        Self::that(|_, _| Answer::new(200, ""))
    }

    /// One that answers as it is told; what is not answered with a 200 is not kept.
    fn that(judge: impl Fn(&Message, &[LogRecord]) -> Answer + Send + Sync + 'static) -> Self {
        let requests = Arc::<Mutex<Vec<_>>>::default();
        let kept = Arc::clone(&requests);
        let upstream = Upstream::start(move |message| {
            let request = decode(message);
            let answer = judge(message, &records_of(&request));
            if matches!(answer, Answer::Whole { status: 200, .. }) {
                kept.lock().unwrap().push(request);
            }
            answer
        });
        Self { upstream, requests }
    }

    pub(crate) fn sink(&self) -> String {
        format!("otlp+{}", self.upstream.url("/"))
    }

    pub(crate) fn records(&self) -> Vec<LogRecord> {
        self.requests.lock().unwrap().iter().flat_map(records_of).collect()
    }

    fn bodies(&self) -> Vec<String> {
        self.records().iter().map(body).collect()
    }
}

fn decode(message: &Message) -> ExportLogsServiceRequest {
    assert_eq!(message.start, "POST /v1/logs HTTP/1.1");
    assert_eq!(message.header("content-type"), Some("application/x-protobuf"));
    let mut plain = Vec::new();
    match message.header("content-encoding") {
        Some("gzip") => {
            flate2::read::GzDecoder::new(&message.body[..]).read_to_end(&mut plain).map(drop).unwrap();
        }
        Some("zstd") => plain = zstd::decode_all(&message.body[..]).unwrap(),
        _ => plain.clone_from(&message.body),
    }
    ExportLogsServiceRequest::decode(&plain[..]).expect("a request")
}

fn records_of(request: &ExportLogsServiceRequest) -> Vec<LogRecord> {
    let scopes = request.resource_logs.iter().flat_map(|logs| &logs.scope_logs);
    scopes.flat_map(|scope| scope.log_records.clone()).collect()
}

fn body(record: &LogRecord) -> String {
    match record.body.clone().and_then(|body| body.value) {
        Some(Value::StringValue(text)) => text,
        _ => String::new(),
    }
}

pub(crate) fn attribute(attributes: &[KeyValue], name: &str) -> Option<Value> {
    let mut found = attributes.iter().filter(|pair| pair.key == name);
    let value = found.next()?.value.clone()?.value;
    assert!(found.next().is_none(), "{name} is there once");
    value
}

#[expect(clippy::unnecessary_wraps, reason = "what it is compared with may be missing")]
pub(crate) fn text(text: &str) -> Option<Value> {
    Some(Value::StringValue(text.to_owned()))
}

const LINE: &str = r#"{"timestamp":"2026-11-23T18:02:03.123456Z","url.path":"/a\"b\u00e9","http.response.status_code":503,"duration":0.25,"ok":true,"none":null,"large":18446744073709551615,"negative":-5,"list":[1,"two",[]],"map":{"k":{"n":1}}}"#;

#[test]
fn otlp_wire() {
    for compression in ["none", "gzip", "zstd"] {
        let (room, collector) = (Room::new(), Collector::start());
        let plain = "plain \u{e9}";
        write(&room.log("a.log"), format!("{LINE}\n{plain}\n{{\"level\":\"debug\"}}\n{{broken\n").as_bytes());
        write(&room.log("a.log"), b"caf\xe9\n");
        let more = ["--label", "service.name=web", "--compression", compression];
        let _agent = room.agent(&collector.sink(), &more);
        wait_until("all arrive", || collector.records().len() == 5);
        let request = collector.requests.lock().unwrap()[0].clone();
        let resource = request.resource_logs[0].resource.clone().unwrap();
        assert_eq!(attribute(&resource.attributes, "service.name"), text("web"));
        assert_eq!(request.resource_logs[0].scope_logs[0].scope.clone().unwrap().name, "log-agent");

        let records = collector.records();
        let record = &records[0];
        let expected = humantime::parse_rfc3339("2026-11-23T18:02:03.123456Z").unwrap();
        let expected = expected.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        assert_eq!(u128::from(record.time_unix_nano), expected);
        assert!(record.observed_time_unix_nano > 0);
        assert_eq!(record.severity_number, 17, "a 503 is an error");
        let of = |name| attribute(&record.attributes, name);
        assert_eq!(of("url.path"), text("/a\"b\u{e9}"));
        assert_eq!(of("http.response.status_code"), Some(Value::IntValue(503)));
        assert_eq!(of("duration"), Some(Value::DoubleValue(0.25)));
        assert_eq!(of("ok"), Some(Value::BoolValue(true)));
        assert_eq!(of("none"), None);
        assert!(record.attributes.iter().any(|pair| pair.key == "none"));
        assert_eq!(of("large"), text("18446744073709551615"));
        assert_eq!(of("negative"), Some(Value::IntValue(-5)));
        let Some(Value::ArrayValue(list)) = of("list") else { panic!("no list") };
        let values: Vec<_> = list.values.iter().map(|value| value.value.clone()).collect();
        let empty = Some(Value::ArrayValue(opentelemetry_proto::tonic::common::v1::ArrayValue::default()));
        assert_eq!(values, [Some(Value::IntValue(1)), text("two"), empty]);
        let Some(Value::KvlistValue(map)) = of("map") else { panic!("no map") };
        let Some(AnyValue { value: Some(Value::KvlistValue(inner)) }) = map.values[0].value.clone() else {
            panic!("no inner map")
        };
        assert_eq!((map.values[0].key.as_str(), inner.values[0].key.as_str()), ("k", "n"));
        assert_eq!(of("log.file.path"), text(room.log("a.log").to_str().unwrap()));
        let Some(Value::StringValue(id)) = of("log.record.uid") else { panic!("no id") };
        assert!(id.ends_with(":0") && id.len() == 18, "{id}");

        assert_eq!(body(&records[1]), plain);
        assert_eq!((records[2].severity_number, records[2].severity_text.as_str()), (5, "debug"));
        assert_eq!(body(&records[3]), "{broken");
        assert_eq!(attribute(&records[3].attributes, "parse_error"), text("not_json_object"));
        let bytes = records[4].body.clone().unwrap().value;
        assert_eq!(bytes, Some(Value::BytesValue(b"caf\xe9".to_vec())));
    }
}

#[test]
fn otlp_of_anything_nested_and_long() {
    let (room, collector) = (Room::new(), Collector::start());
    let deep = format!("{{\"deep\":{}1{}}}", "[".repeat(500), "]".repeat(500));
    let long = format!(
        "{{\"long\":\"{}\",\"{}\":{{\"a\":\"{}\"}}}}",
        "x".repeat(20_000),
        "n".repeat(200),
        "y".repeat(300)
    );
    write(&room.log("a.log"), format!("{deep}\n{long}\n"));
    let _agent = room.agent(&collector.sink(), &[]);
    wait_until("both arrive", || collector.records().len() == 2);
    assert!(attribute(&collector.records()[0].attributes, "deep").is_some());
    assert_eq!(attribute(&collector.records()[1].attributes, "long"), text(&"x".repeat(20_000)));
}

#[test]
fn otlp_partial_success() {
    // Refuses one record of the first request, and does not say which.
    let collector = Collector::that(|_, records| {
        let refused = records.iter().any(|record| body(record) == "line 7");
        let partial_success = refused.then(|| ExportLogsPartialSuccess {
            rejected_log_records: 1,
            error_message: "one is too strange".to_owned(),
        });
        Answer::new(200, ExportLogsServiceResponse { partial_success }.encode_to_vec())
    });
    let room = Room::new();
    write_numbers(&mut append(&room.log("a.log")), 0..10);
    let mut agent = room.agent(&collector.sink(), &[]);
    agent.event("it says so", |event| {
        event["refused"] == 1 && event["reason"].to_string().contains("too strange")
    });
    write_numbers(&mut append(&room.log("a.log")), 10..20);
    wait_until("the next arrive", || collector.bodies().len() == 20);
    let expected: Vec<_> = (0..20).map(|number| format!("line {number}")).collect();
    assert_eq!(collector.bodies(), expected, "none is sent again");
    assert!((metric(&agent, "log_agent_partly_refused_records_total") - 1.0).abs() < 0.1);
    wait_until("it is not taken for confirmed", || {
        (metric(&agent, "log_agent_confirmed_records_total") - 19.0).abs() < 0.1
    });
    let letters = std::fs::read_to_string(room.state().join("dead-letter.ndjson")).unwrap();
    assert!(letters.contains("line 7") && letters.contains("1 of these"), "{letters}");
    assert!(!letters.contains("line 15"), "what was taken whole is no dead letter");
    assert!(agent.terminate().success(), "the position moved on");
}

/// What a receiver says of its own refusals is its own arithmetic, and may be any number.
#[test]
fn otlp_refuses_more_than_it_was_sent() {
    let collector = Collector::that(|_, records| {
        let has = |wanted: &str| records.iter().any(|record| body(record) == wanted);
        if has("line 3") {
            return Answer::new(400, "");
        }
        let partial_success = has("line 2")
            .then(|| ExportLogsPartialSuccess { rejected_log_records: -1, error_message: String::new() });
        Answer::new(200, ExportLogsServiceResponse { partial_success }.encode_to_vec())
    });
    let room = Room::new();
    write_numbers(&mut append(&room.log("a.log")), 0..4);
    let mut agent = room.agent(&collector.sink(), &[]);
    wait_until("what was refused is counted as what was sent", || {
        // Lines 2 and 3; or with line 2 those that were sent beside it.
        let (refused, confirmed) = (
            metric(&agent, "log_agent_refused_records_total"),
            metric(&agent, "log_agent_confirmed_records_total"),
        );
        refused > 1.9 && (refused + confirmed - 4.0).abs() < 0.1
    });
    assert!(agent.terminate().success(), "the position moved on");
}

#[test]
fn otlp_retries_what_says_nothing_about_the_records() {
    for status in [429, 502, 503, 504, 401, 403, 404, 405, 408, 425] {
        let room = Room::new();
        let attempts = Mutex::new(0);
        let collector = Collector::that(move |_, _| {
            let mut attempts = attempts.lock().unwrap();
            *attempts += 1;
            Answer::new(if *attempts < 3 { status } else { 200 }, "")
        });
        write_numbers(&mut append(&room.log("a.log")), 0..4);
        let _agent = room.agent(&collector.sink(), &[]);
        wait_until("it is tried again", || collector.bodies().len() == 4);
        let bodies: Vec<_> =
            collector.upstream.requests().iter().map(|request| request.body.clone()).collect();
        assert!(
            bodies.len() == 3 && bodies.iter().all(|body| *body == bodies[0]),
            "{status}: the same again"
        );
    }
    // Bad data is not sent again as it is: the others arrive, and the bad one is a dead letter.
    let collector = Collector::that(|_, records| {
        let bad = records.iter().any(|record| body(record) == "line 3");
        Answer::new(if bad { 400 } else { 200 }, "")
    });
    let room = Room::new();
    write_numbers(&mut append(&room.log("a.log")), 0..8);
    let agent = room.agent(&collector.sink(), &[]);
    wait_until("the others arrive", || collector.bodies().len() == 7);
    wait_until("it is counted", || (metric(&agent, "log_agent_lost_bytes_total") - 6.0).abs() < 0.1);
    let letters = std::fs::read_to_string(room.state().join("dead-letter.ndjson")).unwrap();
    assert!(letters.lines().count() == 1 && letters.contains("line 3"), "{letters}");
}

/// The protocol demands it, of the record and of what is nested in it.
#[test]
fn otlp_keys_are_unique() {
    let (room, collector) = (Room::new(), Collector::start());
    let nested = r#"{"a":1,"n":{"x":1,"x":[{"y":1,"y":2}]},"a":"last","\u0061b":1,"ab":2}"#;
    let ours = r#"{"log.file.path":"/elsewhere","log.record.uid":"not ours","truncated_bytes":"free","log.iostream":"free","b":true}"#;
    let many: Vec<_> = (0..1000).map(|number| format!("\"n{number}\":{number}")).collect();
    write(&room.log("a.log"), format!("{nested}\n{ours}\n{{{}}}\n{LINE}\n", many.join(",")));
    let _agent = room.agent(&collector.sink(), &[]);
    wait_until("all arrive", || collector.records().len() == 4);
    let records = collector.records();
    for record in &records {
        let mut keys: Vec<_> = record.attributes.iter().map(|pair| &pair.key).collect();
        keys.sort();
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
    }
    let of = |number: usize, name| attribute(&records[number].attributes, name);
    assert_eq!((of(0, "a"), of(0, "ab")), (text("last"), Some(Value::IntValue(2))));
    let Some(Value::KvlistValue(map)) = of(0, "n") else { panic!("no map") };
    let [KeyValue { value: Some(AnyValue { value: Some(Value::ArrayValue(list)) }), .. }] = &map.values[..]
    else {
        panic!("x is there once: {map:?}")
    };
    let Some(Value::KvlistValue(inner)) = &list.values[0].value else { panic!("no inner map") };
    assert_eq!(inner.values.len(), 1);
    assert_eq!(
        of(1, "log.file.path"),
        text(room.log("a.log").to_str().unwrap()),
        "ours is the one that stays"
    );
    assert_eq!((of(1, "log.iostream"), of(1, "b")), (text("free"), Some(Value::BoolValue(true))));
    assert_eq!(records[2].attributes.len(), 1002);
    assert_eq!(of(3, "negative"), Some(Value::IntValue(-5)));
}

#[test]
fn otlp_has_no_infinite_numbers() {
    let (room, collector) = (Room::new(), Collector::start());
    write(
        &room.log("a.log"),
        r#"{"large":1e999,"small":-1E+999,"list":[1e400],"fine":1e300,"tiny":1e-999}"#.to_owned() + "\n",
    );
    let _agent = room.agent(&collector.sink(), &[]);
    wait_until("it arrives", || collector.records().len() == 1);
    let attributes = collector.records()[0].attributes.clone();
    assert_eq!(attribute(&attributes, "large"), text("1e999"));
    assert_eq!(attribute(&attributes, "small"), text("-1E+999"));
    let Some(Value::ArrayValue(list)) = attribute(&attributes, "list") else { panic!("no list") };
    assert_eq!(list.values[0].value, text("1e400"));
    assert_eq!(attribute(&attributes, "fine"), Some(Value::DoubleValue(1e300)));
    assert_eq!(attribute(&attributes, "tiny"), Some(Value::DoubleValue(0.0)));
}

#[test]
fn otlp_body() {
    let lines = concat!(
        r#"{"msg":"the msg","message":"the \"message\"\n","other":"another"}"#,
        "\n",
        r#"{"msg":"only msg"}"#,
        "\n",
        r#"{"nothing":{"message":"nested"},"msg":7}"#,
        "\n",
        "plain\n",
    );
    let first = lines.lines().next().unwrap();
    for (more, expected) in [
        (&[][..], ["the \"message\"\n", "only msg", "", "plain"]),
        (&["--body-field", "other"][..], ["another", "only msg", "", "plain"]),
        (
            &["--body-field", "@line"][..],
            [first, r#"{"msg":"only msg"}"#, r#"{"nothing":{"message":"nested"},"msg":7}"#, "plain"],
        ),
    ] {
        let (room, collector) = (Room::new(), Collector::start());
        write(&room.log("a.log"), lines);
        let _agent = room.agent(&collector.sink(), more);
        wait_until("all arrive", || collector.records().len() == 4);
        assert_eq!(collector.bodies(), expected, "{more:?}");
        let attributes = &collector.records()[0].attributes;
        assert_eq!(attribute(attributes, "message"), text("the \"message\"\n"), "it stays an attribute");
    }
    // What may not be seen is not in the line either.
    let (room, collector) = (Room::new(), Collector::start());
    write(&room.log("a.log"), "{\"msg\":\"m\",\"password\":\"secret\",\"noise\":1}\n");
    let more = ["--body-field", "@line", "--redact-field", "password", "--drop-field", "noise"];
    let _agent = room.agent(&collector.sink(), &more);
    wait_until("it arrives", || collector.bodies() == [r#"{"msg":"m","password":"REDACTED"}"#]);
}
