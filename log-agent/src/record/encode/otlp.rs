//! OpenTelemetry's logs over protobuf: one `ExportLogsServiceRequest` for a chunk, with the resource said once.
//!
//! A line's message is the body, and the fields of its object become attributes of their own types: a string stays a string, an integer an `int64`, an
//! object a list of pairs. A number that neither an `int64` nor a `double` can hold exactly as an integer goes as its digits.
//!
//! Written by hand, field by field, into memory that is used again: a generated encoder wants the whole request as a tree of
//! owned strings first, which would cost several times what is done here. The field numbers are those of
//! `opentelemetry/proto/logs/v1/logs.proto` and `common/v1/common.proto`, version 1.

use std::ops::Range;
use std::time::UNIX_EPOCH;

use super::protobuf::{
    Open, begin, bytes, end, field_len, fixed64, length_mark, length_tag, number, varint, varint_len,
};
use super::{digits, event_time, fields, severity_number, severity_text};
use crate::record::chunk::{Chunk, Line};
use crate::record::json::{self, Number, SeenNames, Text, Visitor};
use crate::record::parse::{Message, Parsed};
use crate::record::resource::Resource;

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
/// Our own attributes. Keys are unique within a record, so a line's field of one of these names gives way.
const ID: &[u8] = b"log.record.uid";
const PATH: &[u8] = b"log.file.path";
const STREAM: &[u8] = b"log.iostream";
const CUT: &[u8] = b"truncated_bytes";

/// Of `ArrayValue` and of `KeyValueList`.
const VALUES: u32 = 1;

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
        string_attribute(log_record::ATTRIBUTES, PATH, path, &mut writer.path);
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
    /// For names and values that have to be rewritten.
    names: Vec<u8>,
    values: Vec<u8>,
    seen: SeenNames,
}

impl Writer {
    fn record(&mut self, file: &str, line: &Line, text: &[u8], out: &mut Vec<u8>) {
        let record = begin(scope_logs::LOG_RECORDS, 400, out);
        if let Some(nanos) = event_time(line, text) {
            fixed64(log_record::TIME, nanos, out);
        }
        if let Some(severity) = severity_number(line, text) {
            number(log_record::SEVERITY_NUMBER, u64::from(severity.0), out);
        }
        if let Some(level) = severity_text(line, text) {
            bytes(log_record::SEVERITY_TEXT, level, out);
        }
        match &line.parsed {
            Parsed::Object(_) => {
                match fields(line).and_then(|fields| fields.message.as_ref()) {
                    Some(Message::Field(place)) => {
                        let raw = super::at(place, text).unwrap_or_default();
                        body(json::unescape(raw, &mut self.values), out);
                    }
                    Some(Message::Line) => body(text, out),
                    None => {}
                }
                self.attributes(line, text, out);
            }
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
        string_attribute(log_record::ATTRIBUTES, ID, &self.id, out);
        out.extend_from_slice(&self.path);
        if let Some(envelope) = line.envelope {
            let stream = envelope.stream.as_str().as_bytes();
            string_attribute(log_record::ATTRIBUTES, STREAM, stream, out);
        }
        if line.cut > 0 {
            let write = |out: &mut Vec<u8>| number(any_value::INT, line.cut, out);
            attribute(log_record::ATTRIBUTES, CUT, 1 + varint_len(line.cut), write, out);
        }
        fixed64(log_record::OBSERVED_TIME, self.observed, out);
        end(&record, out);
    }

    /// The fields of a line that is an object. Keys have to be unique; a line in which they are not is written again without those
    /// that are too many.
    fn attributes(&mut self, line: &Line, text: &[u8], out: &mut Vec<u8>) {
        let (names, values, seen) = (&mut self.names, &mut self.values, &mut self.seen);
        let (field, start) = (log_record::ATTRIBUTES, out.len());
        seen.clear();
        // Checked before: it is an object.
        json::object(text, &mut Attributes { name: None, field, names, values, seen, out });
        if seen.repeated() {
            out.truncate(start);
            let mut ours = vec![ID, PATH];
            ours.extend(line.envelope.map(|_| STREAM));
            ours.extend((line.cut > 0).then_some(CUT));
            let text = json::unique(text, &ours);
            json::object(&text, &mut Attributes { name: None, field, names, values, seen, out });
        }
    }
}

/// Writes what it is told of: pairs as `KeyValue` messages, elements of arrays as `AnyValue` messages.
struct Attributes<'a, 'b> {
    seen: &'b mut SeenNames,
    /// Of the value that comes next; none in an array.
    name: Option<Text<'a>>,
    /// The field that a pair is in: `attributes` of the record, `values` within it.
    field: u32,
    names: &'b mut Vec<u8>,
    values: &'b mut Vec<u8>,
    out: &'b mut Vec<u8>,
}

/// An array or an object that was begun: the messages that it is wrapped in, and the field that its neighbours are in.
struct Nested {
    pair: Option<Open>,
    any: Open,
    list: Open,
    field: u32,
    /// Of an object: what its names are seen after.
    outer: Option<usize>,
}

impl Attributes<'_, '_> {
    /// Writes a value that takes this many bytes.
    fn scalar(&mut self, len: usize, value: impl FnOnce(&mut Vec<u8>)) {
        match self.name.take() {
            Some(name) => attribute(self.field, name.bytes(self.names), len, value, self.out),
            None => self.wrapped(value),
        }
    }

    /// Wraps a value of any length.
    fn wrapped(&mut self, value: impl FnOnce(&mut Vec<u8>)) {
        let (pair, any) = self.begin_any();
        value(self.out);
        self.end_any(pair.as_ref(), &any);
    }

    fn begin_any(&mut self) -> (Option<Open>, Open) {
        let Some(name) = self.name.take() else { return (None, begin(VALUES, 0, self.out)) };
        let pair = begin(self.field, 0, self.out);
        bytes(key_value::KEY, name.bytes(self.names), self.out);
        (Some(pair), begin(key_value::VALUE, 0, self.out))
    }

    fn end_any(&mut self, pair: Option<&Open>, any: &Open) {
        end(any, self.out);
        if let Some(pair) = pair {
            end(pair, self.out);
        }
    }

    fn string(&mut self, value: &[u8]) {
        match self.name.take() {
            // By far the most frequent: all lengths are known before anything is written.
            Some(name) => string_attribute(self.field, name.bytes(self.names), value, self.out),
            None => self.wrapped(|out| bytes(any_value::STRING, value, out)),
        }
    }

    fn begin_nested(&mut self, list: u32) -> Nested {
        let (pair, any) = self.begin_any();
        let list = begin(list, 0, self.out);
        Nested { pair, any, list, field: std::mem::replace(&mut self.field, VALUES), outer: None }
    }

    fn end_nested(&mut self, nested: &Nested) {
        end(&nested.list, self.out);
        self.end_any(nested.pair.as_ref(), &nested.any);
        self.field = nested.field;
        if let Some(outer) = nested.outer {
            self.seen.end(outer);
        }
    }
}

impl<'a> Visitor<'a> for Attributes<'a, '_> {
    type Open = Nested;

    #[inline]
    fn name(&mut self, name: Text<'a>) {
        let text = name.bytes(self.names);
        self.seen.note(text);
        if self.field == log_record::ATTRIBUTES && is_ours(text) {
            self.seen.refuse();
        }
        self.name = Some(name);
    }
    #[inline]
    fn text(&mut self, value: Text<'a>) {
        // Taken out for as long as `self` writes what may be in it.
        let mut scratch = std::mem::take(self.values);
        self.string(value.bytes(&mut scratch));
        *self.values = scratch;
    }
    #[inline]
    fn number(&mut self, value: Number<'a>) {
        match value {
            Number::Integer(value) => {
                let value = value.cast_unsigned();
                self.scalar(1 + varint_len(value), |out| number(any_value::INT, value, out));
            }
            Number::Float(value) => self.scalar(9, |out| fixed64(any_value::DOUBLE, value.to_bits(), out)),
            Number::Large(digits) => self.string(digits),
        }
    }
    fn null(&mut self) {
        // A value that is not set.
        self.scalar(0, |_| ());
    }
    fn boolean(&mut self, value: bool) {
        self.scalar(2, |out| number(any_value::BOOL, u64::from(value), out));
    }
    fn raw(&mut self, value: &'a [u8]) {
        self.string(value);
    }
    fn begin_array(&mut self) -> Nested {
        self.begin_nested(any_value::ARRAY)
    }
    fn end_array(&mut self, open: Nested, _: u32) {
        self.end_nested(&open);
    }
    fn begin_object(&mut self) -> Nested {
        let outer = Some(self.seen.begin());
        Nested { outer, ..self.begin_nested(any_value::KVLIST) }
    }
    fn end_object(&mut self, open: Nested, _: u32) {
        self.end_nested(&open);
    }
}

fn is_ours(name: &[u8]) -> bool {
    matches!(name, ID | PATH | STREAM | CUT)
}

/// A text is a string; what is not UTF-8 is bytes, and exact.
fn body(text: &[u8], out: &mut Vec<u8>) {
    let body = begin(log_record::BODY, text.len(), out);
    let field = if std::str::from_utf8(text).is_ok() { any_value::STRING } else { any_value::BYTES };
    bytes(field, text, out);
    end(&body, out);
}

#[expect(clippy::cast_possible_truncation, reason = "less than 128")]
fn string_attribute(field: u32, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    const KEY: u8 = length_mark(key_value::KEY);
    const VALUE: u8 = length_mark(key_value::VALUE);
    const STRING: u8 = length_mark(any_value::STRING);
    // Nearly always each length takes a byte: those of the value and the name, two bytes more, and four more than both.
    if name.len() + value.len() + 6 < 0x80 {
        let [name_len, value_len] = [name.len() as u8, value.len() as u8];
        out.extend_from_slice(&[length_mark(field), name_len + value_len + 6, KEY, name_len]);
        out.extend_from_slice(name);
        out.extend_from_slice(&[VALUE, value_len + 2, STRING, value_len]);
        out.extend_from_slice(value);
    } else {
        attribute(field, name, field_len(value.len()), |out| bytes(any_value::STRING, value, out), out);
    }
}

/// One whose value takes this many bytes.
fn attribute(field: u32, name: &[u8], any: usize, value: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    length_tag(field, out);
    varint((field_len(name.len()) + field_len(any)) as u64, out);
    bytes(key_value::KEY, name, out);
    length_tag(key_value::VALUE, out);
    varint(any as u64, out);
    value(out);
}
