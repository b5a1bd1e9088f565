//! Our encoders next to the crates that would take their place: prost for OTLP, rmp-serde for Forward. Decision 0006.
//!
//! ```text
//! cargo run --release --manifest-path benches/json/Cargo.toml --bin encoders
//! ```
//!
//! Each encodes a chunk of lines that were checked before, from their JSON to the bytes that go to the receiver, into memory that is
//! used again. Theirs is read by serde_json: into the tree of messages that prost encodes, and by way of serde-transcode, which builds
//! nothing, into MessagePack. The turns and the best of them are as in the readers' benchmark.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

mod lines;

use std::hint::black_box;
use std::time::{Duration, Instant};

use log_agent::fuzz::Records;
use prost::Message as _;
use serde_json::Value;

use self::lines::{ACCESS, APPLICATION};

const ROUNDS: usize = 40;
const LINES: usize = 500;

// What `opentelemetry/proto/logs/v1/logs.proto` and `common/v1/common.proto` generate, as far as it is used here.

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_logs: Vec<ResourceLogs>,
}
#[derive(Clone, PartialEq, prost::Message)]
struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_logs: Vec<ScopeLogs>,
}
#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}
#[derive(Clone, PartialEq, prost::Message)]
struct ScopeLogs {
    #[prost(message, repeated, tag = "2")]
    log_records: Vec<LogRecord>,
}
#[derive(Clone, PartialEq, prost::Message)]
struct LogRecord {
    #[prost(fixed64, tag = "1")]
    time: u64,
    #[prost(message, repeated, tag = "6")]
    attributes: Vec<KeyValue>,
    #[prost(fixed64, tag = "11")]
    observed_time: u64,
}
#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}
#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 2, 3, 4, 5, 6")]
    value: Option<Any>,
}
#[derive(Clone, PartialEq, prost::Oneof)]
enum Any {
    #[prost(string, tag = "1")]
    String(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Array(ArrayValue),
    #[prost(message, tag = "6")]
    List(KeyValueList),
}
#[derive(Clone, PartialEq, prost::Message)]
struct ArrayValue {
    #[prost(message, repeated, tag = "1")]
    values: Vec<AnyValue>,
}
#[derive(Clone, PartialEq, prost::Message)]
struct KeyValueList {
    #[prost(message, repeated, tag = "1")]
    values: Vec<KeyValue>,
}

fn any(value: Value) -> AnyValue {
    AnyValue {
        value: match value {
            Value::Null => None,
            Value::Bool(value) => Some(Any::Bool(value)),
            Value::Number(value) => Some(match value.as_i64() {
                Some(value) => Any::Int(value),
                None => Any::Double(value.as_f64().unwrap()),
            }),
            Value::String(value) => Some(Any::String(value)),
            Value::Array(values) => {
                Some(Any::Array(ArrayValue { values: values.into_iter().map(any).collect() }))
            }
            Value::Object(map) => Some(Any::List(KeyValueList { values: pairs(map) })),
        },
    }
}

fn pairs(map: serde_json::Map<String, Value>) -> Vec<KeyValue> {
    map.into_iter().map(|(key, value)| KeyValue { key, value: Some(any(value)) }).collect()
}

fn string(key: &str, value: String) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Any::String(value)) }) }
}

fn prost(lines: &[&str], out: &mut Vec<u8>) {
    let record = |(number, line): (usize, &&str)| {
        let mut attributes = pairs(serde_json::from_str(line).unwrap());
        attributes.push(string("log.record.uid", format!("0123456789abcdef:{number}")));
        attributes.push(string("log.file.path", "/logs/access.log".to_owned()));
        LogRecord { time: 1, attributes, observed_time: 1 }
    };
    let log_records = lines.iter().enumerate().map(record).collect();
    let logs = ResourceLogs { resource: None, scope_logs: vec![ScopeLogs { log_records }] };
    Request { resource_logs: vec![logs] }.encode(out).unwrap();
}

fn transcoded(lines: &[&str], out: &mut Vec<u8>) {
    for (number, line) in lines.iter().enumerate() {
        rmp::encode::write_array_len(out, 2).unwrap();
        rmp::encode::write_ext_meta(out, 8, 0).unwrap();
        out.extend_from_slice(&[0; 8]);
        rmp::encode::write_map_len(out, 4).unwrap();
        for (name, value) in [
            ("id", format!("0123456789abcdef:{number}").as_str()),
            ("log.file.path", "/logs/access.log"),
            ("observed_timestamp", "2026-11-23T18:02:03.123456Z"),
        ] {
            rmp::encode::write_str(out, name).unwrap();
            rmp::encode::write_str(out, value).unwrap();
        }
        rmp::encode::write_str(out, "attributes").unwrap();
        let mut reader = serde_json::Deserializer::from_str(line);
        serde_transcode::transcode(&mut reader, &mut rmp_serde::Serializer::new(&mut *out)).unwrap();
    }
}

fn main() {
    for (what, line) in [("access log", ACCESS), ("application", APPLICATION)] {
        let lines = vec![line; LINES];
        let records = Records::new(&lines);
        println!("{what}, {} bytes a line", line.len());
        let encoders: [(&str, &dyn Fn(&mut Vec<u8>)); 4] = [
            ("OTLP, ours", &|out| records.otlp(out)),
            ("OTLP, prost", &|out| prost(black_box(&lines), out)),
            ("Forward, ours", &|out| records.forward(out)),
            ("Forward, rmp-serde", &|out| transcoded(black_box(&lines), out)),
        ];
        let mut best = [Duration::MAX; 4];
        let mut out = Vec::new();
        let mut sizes = [0; 4];
        for _ in 0..ROUNDS {
            for (number, (_, encode)) in encoders.iter().enumerate() {
                out.clear();
                let began = Instant::now();
                encode(&mut out);
                best[number] = best[number].min(began.elapsed() / u32::try_from(LINES).unwrap());
                sizes[number] = black_box(&out).len() / LINES;
            }
        }
        for (number, (name, _)) in encoders.iter().enumerate() {
            let times = best[number].as_secs_f64() / best[number / 2 * 2].as_secs_f64();
            println!(
                "  {name:18} {:>7.0?} a record, {} bytes, {times:.2} times ours",
                best[number], sizes[number]
            );
        }
    }
}
