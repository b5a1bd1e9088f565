//! OpenTelemetry's logs over protobuf: one `ExportLogsServiceRequest` for a chunk, with the resource said once.
//!
//! The fields of a line's object become attributes of their own types: a string stays a string, an integer an `int64`, an
//! object a list of pairs. A number that neither an `int64` nor a `double` can hold exactly as an integer goes as its digits.
//!
//! Written by hand, field by field, into memory that is used again: a generated encoder wants the whole request as a tree of
//! owned strings first, which would cost several times what is done here. The field numbers are those of
//! `opentelemetry/proto/logs/v1/logs.proto` and `common/v1/common.proto`, version 1.

use std::ops::Range;
use std::time::UNIX_EPOCH;

use super::protobuf::{begin, bytes, end, field_len, fixed64, length_tag, number, varint, varint_len};
use super::{digits, event_time, severity_number, severity_text};
use crate::chunk::{Chunk, Line};
use crate::enrich::Resource;
use crate::json::{Value, Walk};
use crate::parse::Parsed;

mod request {
    pub(super) const RESOURCE_LOGS: u32 = 1;
}
mod resource_logs {
    pub(super) const RESOURCE: u32 = 1;
    pub(super) const SCOPE_LOGS: u32 = 2;
}
mod resource {
    pub(super) const ATTRIBUTES: u32 = 1;
}
mod scope_logs {
    pub(super) const SCOPE: u32 = 1;
    pub(super) const LOG_RECORDS: u32 = 2;
}
mod scope {
    pub(super) const NAME: u32 = 1;
    pub(super) const VERSION: u32 = 2;
}
mod log_record {
    pub(super) const TIME: u32 = 1;
    pub(super) const SEVERITY_NUMBER: u32 = 2;
    pub(super) const SEVERITY_TEXT: u32 = 3;
    pub(super) const BODY: u32 = 5;
    pub(super) const ATTRIBUTES: u32 = 6;
    pub(super) const OBSERVED_TIME: u32 = 11;
}
mod key_value {
    pub(super) const KEY: u32 = 1;
    pub(super) const VALUE: u32 = 2;
}
mod any_value {
    pub(super) const STRING: u32 = 1;
    pub(super) const BOOL: u32 = 2;
    pub(super) const INT: u32 = 3;
    pub(super) const DOUBLE: u32 = 4;
    pub(super) const ARRAY: u32 = 5;
    pub(super) const KVLIST: u32 = 6;
    pub(super) const BYTES: u32 = 7;
}
/// Of `ArrayValue` and of `KeyValueList`.
const VALUES: u32 = 1;

/// Nested deeper, a value goes as the text that it is.
const DEPTH: u32 = 32;

/// Appends one request.
pub(super) fn encode(chunk: &Chunk, numbers: &Range<usize>, resource: &Resource, out: &mut Vec<u8>) {
    let about = chunk.bytes();
    let resource_logs = begin(request::RESOURCE_LOGS, about, out);
    let described = begin(resource_logs::RESOURCE, 200, out);
    for (name, value) in resource.attributes() {
        string_attribute(resource::ATTRIBUTES, name.as_bytes(), value.as_bytes(), out);
    }
    end(&described, out);
    let scope_logs = begin(resource_logs::SCOPE_LOGS, about, out);
    let scope = begin(scope_logs::SCOPE, 20, out);
    bytes(scope::NAME, env!("CARGO_PKG_NAME").as_bytes(), out);
    bytes(scope::VERSION, env!("CARGO_PKG_VERSION").as_bytes(), out);
    end(&scope, out);
    let observed = chunk.observed().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let mut writer = Writer { observed: u64::try_from(observed).unwrap_or(u64::MAX), ..Writer::default() };
    for part in chunk.parts() {
        let id = format!("{}:", part.origin.id);
        writer.path.clear();
        let path = part.origin.path.as_bytes();
        string_attribute(log_record::ATTRIBUTES, b"log.file.path", path, &mut writer.path);
        for (line, text) in chunk.lines(part, numbers) {
            writer.record(&id, line, text, out);
        }
    }
    end(&scope_logs, out);
    end(&resource_logs, out);
}

#[derive(Default)]
struct Writer {
    observed: u64,
    /// The attribute that all records of one part have in common.
    path: Vec<u8>,
    id: Vec<u8>,
    /// For names and values that have to be written anew.
    names: Vec<u8>,
    values: Vec<u8>,
}

impl Writer {
    fn record(&mut self, file: &str, line: &Line, text: &[u8], out: &mut Vec<u8>) {
        let record = begin(scope_logs::LOG_RECORDS, 400, out);
        if let Some(nanos) = event_time(&line.parsed, text) {
            fixed64(log_record::TIME, nanos, out);
        }
        if let Some(severity) = severity_number(&line.parsed, text) {
            number(log_record::SEVERITY_NUMBER, u64::from(severity.0), out);
        }
        if let Some(level) = severity_text(&line.parsed, text) {
            bytes(log_record::SEVERITY_TEXT, level, out);
        }
        match &line.parsed {
            Parsed::Object(_) => self.attributes(text, out),
            Parsed::Text => body(text, out),
            Parsed::Bad(reason) => {
                body(text, out);
                string_attribute(log_record::ATTRIBUTES, b"parse_error", reason.as_str().as_bytes(), out);
            }
        }
        self.id.clear();
        self.id.extend_from_slice(file.as_bytes());
        digits(line.place.start, &mut self.id);
        // The conventions' name for "the same id is the same record".
        string_attribute(log_record::ATTRIBUTES, b"log.record.uid", &self.id, out);
        out.extend_from_slice(&self.path);
        if line.cut > 0 {
            attribute(
                log_record::ATTRIBUTES,
                b"truncated_bytes",
                |out| number(any_value::INT, line.cut, out),
                out,
            );
        }
        fixed64(log_record::OBSERVED_TIME, self.observed, out);
        end(&record, out);
    }

    fn attributes(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let mut walk = Walk::new(text);
        if walk.value() == Some(Value::Object) {
            self.pairs(log_record::ATTRIBUTES, &mut walk, DEPTH, out);
        }
    }

    /// The pairs of an object, each as a `KeyValue` in this field.
    fn pairs(&mut self, field: u32, walk: &mut Walk<'_>, depth: u32, out: &mut Vec<u8>) {
        while let Some(name) = walk.name() {
            let Some(value) = walk.value() else { return };
            if let Value::Text(text) = value {
                // By far the most frequent: all lengths are known before anything is written.
                string_attribute(field, name.bytes(&mut self.names), text.bytes(&mut self.values), out);
                continue;
            }
            let pair = begin(field, 0, out);
            bytes(key_value::KEY, name.bytes(&mut self.names), out);
            self.any(key_value::VALUE, value, walk, depth, out);
            end(&pair, out);
        }
    }

    /// An `AnyValue` in this field.
    fn any(&mut self, field: u32, value: Value<'_>, walk: &mut Walk<'_>, depth: u32, out: &mut Vec<u8>) {
        let any = begin(field, 0, out);
        match value {
            // A value that is not set.
            Value::Null => {}
            Value::Bool(value) => number(any_value::BOOL, u64::from(value), out),
            Value::Integer(value) => number(any_value::INT, value.cast_unsigned(), out),
            Value::Large(digits) => bytes(any_value::STRING, digits, out),
            Value::Float(value) => fixed64(any_value::DOUBLE, value.to_bits(), out),
            Value::Text(text) => bytes(any_value::STRING, text.bytes(&mut self.values), out),
            Value::Array | Value::Object if depth == 0 => {
                bytes(any_value::STRING, walk.raw().unwrap_or_default(), out);
            }
            Value::Array => {
                let array = begin(any_value::ARRAY, 0, out);
                while walk.element()
                    && let Some(value) = walk.value()
                {
                    self.any(VALUES, value, walk, depth - 1, out);
                }
                end(&array, out);
            }
            Value::Object => {
                let object = begin(any_value::KVLIST, 0, out);
                self.pairs(VALUES, walk, depth - 1, out);
                end(&object, out);
            }
        }
        end(&any, out);
    }
}

/// A text is a string; what is not UTF-8 is bytes, and exact.
fn body(text: &[u8], out: &mut Vec<u8>) {
    let body = begin(log_record::BODY, text.len(), out);
    let field = if std::str::from_utf8(text).is_ok() { any_value::STRING } else { any_value::BYTES };
    bytes(field, text, out);
    end(&body, out);
}

fn string_attribute(field: u32, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let any = field_len(value.len());
    length_tag(field, out);
    varint((field_len(name.len()) + 1 + varint_len(any as u64) + any) as u64, out);
    bytes(key_value::KEY, name, out);
    length_tag(key_value::VALUE, out);
    varint(any as u64, out);
    bytes(any_value::STRING, value, out);
}

fn attribute(field: u32, name: &[u8], value: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    let pair = begin(field, 0, out);
    bytes(key_value::KEY, name, out);
    let any = begin(key_value::VALUE, 0, out);
    value(out);
    end(&any, out);
    end(&pair, out);
}
