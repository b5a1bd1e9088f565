//! Entries of the Forward protocol: a stream of `[EventTime, record]` in MessagePack, for a PackedForward message.
//!
//! The record is the same object as in NDJSON, with the same names; the line's fields keep their types in `attributes`.
//! A `body` that is not UTF-8 is binary, and exact.

use std::ops::Range;
use std::time::UNIX_EPOCH;

use lifecycle::Ignore as _;

use super::msgpack::{
    Open, begin_array, begin_map, binary, end, extension8, float, integer, small_array, string, unsigned,
};
use super::{digits, event_time, severity_number, severity_text, timestamp};
use crate::record::chunk::{Chunk, Line};
use crate::record::json::{self, Number, Text, Visitor};
use crate::record::parse::Parsed;
use crate::record::resource::Resource;

/// The extension type of an event time: seconds and nanoseconds, 32 bits each.
const EVENT_TIME: i8 = 0;

/// Appends one entry for each line.
pub(super) fn encode(chunk: &Chunk, numbers: &Range<usize>, resource: &Resource, out: &mut Vec<u8>) {
    let nanos = chunk.observed().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let mut observed_field = Vec::new();
    let observed = humantime::format_rfc3339_micros(chunk.observed()).to_string();
    pair(b"observed_timestamp", observed.as_bytes(), &mut observed_field);
    let mut described = Vec::new();
    string(b"resource", &mut described);
    let map = begin_map(&mut described);
    let mut count = 0;
    for (name, value) in resource.attributes() {
        pair(name.as_bytes(), value.as_bytes(), &mut described);
        count += 1;
    }
    end(&map, count, &mut described);
    let mut writer = Writer {
        observed: u64::try_from(nanos).unwrap_or_default(),
        scratch: Vec::new(),
        id: Vec::new(),
        common: Vec::new(),
    };
    for part in chunk.parts() {
        writer.common.clear();
        writer.common.extend_from_slice(&observed_field);
        pair(b"log.file.path", part.origin.path.as_bytes(), &mut writer.common);
        writer.common.extend_from_slice(&described);
        let id = format!("{}:", part.origin.id);
        for (line, text) in chunk.lines(part, numbers) {
            writer.entry(&id, line, text, out);
        }
    }
}

struct Writer {
    observed: u64,
    scratch: Vec<u8>,
    id: Vec<u8>,
    /// What all records of one part have in common: three pairs.
    common: Vec<u8>,
}

impl Writer {
    fn entry(&mut self, file: &str, line: &Line, text: &[u8], out: &mut Vec<u8>) {
        small_array(2, out);
        event_time_of(event_time(line, text), self.observed, out);
        let record = begin_map(out);
        let mut count = 4;
        self.id.clear();
        self.id.extend_from_slice(file.as_bytes());
        digits(line.place.start, &mut self.id);
        pair(b"id", &self.id, out);
        if let Some(severity) = severity_number(line, text) {
            string(b"severity_number", out);
            unsigned(u64::from(severity.0), out);
            count += 1;
        }
        if let Some(level) = severity_text(line, text) {
            pair(b"severity_text", level, out);
            count += 1;
        }
        if let Some(stated) = timestamp(line, text) {
            pair(b"timestamp", &stated, out);
            count += 1;
        }
        count += match &line.parsed {
            Parsed::Object(_) => {
                string(b"attributes", out);
                let map = begin_map(out);
                let pairs = json::object(text, &mut Attributes { scratch: &mut self.scratch, out });
                end(&map, pairs.unwrap_or_default(), out);
                1
            }
            Parsed::Text => body(text, out),
            Parsed::Bad(reason) => {
                pair(b"parse_error", reason.as_str().as_bytes(), out);
                1 + body(text, out)
            }
        };
        if let Some(envelope) = line.envelope {
            pair(b"log.iostream", envelope.stream.as_str().as_bytes(), out);
            count += 1;
        }
        if line.cut > 0 {
            string(b"truncated_bytes", out);
            unsigned(line.cut, out);
            count += 1;
        }
        out.extend_from_slice(&self.common);
        end(&record, count, out);
    }
}

/// Writes what it is told of.
struct Attributes<'b> {
    scratch: &'b mut Vec<u8>,
    out: &'b mut Vec<u8>,
}

impl<'a> Visitor<'a> for Attributes<'_> {
    type Open = Open;

    #[inline]
    fn name(&mut self, name: Text<'a>) {
        string(name.bytes(self.scratch), self.out);
    }
    #[inline]
    fn text(&mut self, value: Text<'a>) {
        string(value.bytes(self.scratch), self.out);
    }
    #[inline]
    fn number(&mut self, value: Number<'a>) {
        match value {
            Number::Integer(value) => integer(value, self.out),
            Number::Float(value) => float(value, self.out),
            Number::Large(digits) => {
                match std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()) {
                    Some(value) => unsigned(value, self.out),
                    None => string(digits, self.out),
                }
            }
        }
    }
    fn null(&mut self) {
        rmp::encode::write_nil(self.out).ignore();
    }
    fn boolean(&mut self, value: bool) {
        rmp::encode::write_bool(self.out, value).ignore();
    }
    fn raw(&mut self, value: &'a [u8]) {
        string(value, self.out);
    }
    fn begin_array(&mut self) -> Open {
        begin_array(self.out)
    }
    fn end_array(&mut self, open: Open, elements: u32) {
        end(&open, elements, self.out);
    }
    fn begin_object(&mut self) -> Open {
        begin_map(self.out)
    }
    fn end_object(&mut self, open: Open, pairs: u32) {
        end(&open, pairs, self.out);
    }
}

/// The protocol has 32 bits for the seconds: a time after 2106, which is a mistake for now, is told in `timestamp` alone.
fn event_time_of(stated: Option<u64>, observed: u64, out: &mut Vec<u8>) {
    const SECOND: u64 = 1_000_000_000;
    let fits = |nanos: &u64| u32::try_from(nanos / SECOND).is_ok();
    let nanos = stated.filter(fits).unwrap_or(observed);
    extension8(EVENT_TIME, ((nanos / SECOND) << 32) | (nanos % SECOND), out);
}

fn pair(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    string(name, out);
    string(value, out);
}

fn body(text: &[u8], out: &mut Vec<u8>) -> u32 {
    string(b"body", out);
    if std::str::from_utf8(text).is_ok() {
        string(text, out);
    } else {
        binary(text, out);
    }
    1
}
