//! One JSON object a line:
//!
//! ```json
//! {"id":"<file id>:<offset>","timestamp":"…","observed_timestamp":"…","severity_number":9,"severity_text":"…",
//!  "attributes":{…the line's object, byte for byte…},"log.file.path":"…","resource":{"k8s.pod.name":"…"}}
//! ```
//!
//! A line that is no object has `"body":"…"` in the place of `attributes`. The line's own bytes are spliced in: nothing is
//! parsed and printed again, so numbers, order and spelling stay as the writer had them. Only the line breaks of an object of
//! several joined lines become spaces.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memchr2_iter;

use super::{digits, severity_number, severity_text, timestamp};
use crate::record::chunk::{Chunk, Line, Origin};
use crate::record::parse::Parsed;
use crate::record::resource::Resource;

/// Appends the records of a chunk's lines with these numbers to `out`.
pub(super) fn encode(chunk: &Chunk, numbers: &Range<usize>, resource: &Resource, out: &mut Vec<u8>) {
    let observed = humantime::format_rfc3339_micros(chunk.observed()).to_string();
    let resource = resource.json();
    for part in chunk.parts() {
        let envelope = Envelope::new(&part.origin, &observed, &resource);
        for (line, text) in chunk.lines(part, numbers) {
            envelope.wrap(line, text, out);
        }
    }
}

/// What all records of one part have in common, printed once.
struct Envelope<'a> {
    before_offset: Vec<u8>,
    observed: &'a str,
    after: Vec<u8>,
}

impl<'a> Envelope<'a> {
    fn new(origin: &Origin, observed: &'a str, resource: &str) -> Self {
        let mut after = b",\"log.file.path\":".to_vec();
        string(&origin.path, &mut after);
        after.extend_from_slice(b",\"resource\":");
        after.extend_from_slice(resource.as_bytes());
        after.extend_from_slice(b"}\n");
        Self { before_offset: format!("{{\"id\":\"{}:", origin.id).into_bytes(), observed, after }
    }

    fn wrap(&self, line: &Line, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.before_offset);
        digits(line.place.start, out);
        out.push(b'"');
        if let Some(timestamp) = timestamp(line, text) {
            splice(out, b",\"timestamp\":\"", &timestamp, b"\"");
        }
        splice(out, b",\"observed_timestamp\":\"", self.observed.as_bytes(), b"\"");
        if let Some(severity) = severity_number(line, text) {
            out.extend_from_slice(b",\"severity_number\":");
            digits(u64::from(severity.0), out);
        }
        match &line.parsed {
            Parsed::Object(_) => {
                if let Some(level) = severity_text(line, text) {
                    splice(out, b",\"severity_text\":\"", level, b"\"");
                }
                attributes(text.trim_ascii(), out);
            }
            Parsed::Text => body(text, out),
            Parsed::Bad(reason) => {
                body(text, out);
                splice(out, b",\"parse_error\":\"", reason.as_str().as_bytes(), b"\"");
            }
        }
        if let Some(envelope) = line.envelope {
            splice(out, b",\"log.iostream\":\"", envelope.stream.as_str().as_bytes(), b"\"");
        }
        if line.cut > 0 {
            out.extend_from_slice(b",\"truncated_bytes\":");
            digits(line.cut, out);
        }
        out.extend_from_slice(&self.after);
    }
}

/// An object, byte for byte but for its line breaks: they are white space in JSON, where a string has escapes for them, and would end
/// the record.
fn attributes(object: &[u8], out: &mut Vec<u8>) {
    splice(out, b",\"attributes\":", object, b"");
    let start = out.len() - object.len();
    for at in memchr2_iter(b'\n', b'\r', object) {
        out[start + at] = b' ';
    }
}

/// A text is a JSON string. Bytes that are not UTF-8 have no place in one: they are shown as well as they can be, and
/// given exactly next to it.
fn body(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"body\":");
    if let Ok(text) = std::str::from_utf8(text) {
        string(text, out);
    } else {
        string(&String::from_utf8_lossy(text), out);
        splice(out, b",\"body_base64\":\"", STANDARD.encode(text).as_bytes(), b"\"");
    }
}

fn splice(out: &mut Vec<u8>, before: &[u8], text: &[u8], after: &[u8]) {
    out.extend_from_slice(before);
    out.extend_from_slice(text);
    out.extend_from_slice(after);
}

fn string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string is always JSON and a vector always takes it");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::identity::Fingerprint;
    use crate::position::{ContentSeq, ReadOffset, Segment};
    use crate::record::chunk::ChunkMode;
    use crate::record::parse::{FieldNames, Format};

    fn record(line: &[u8], cut: u64) -> (String, serde_json::Value) {
        let id = serde_json::from_str("\"0123456789abcdef\"").unwrap();
        let origin = Arc::new(Origin { id, path: "/logs/a \"b\"".into() });
        let mut chunk = Chunk::new(1000, ChunkMode::Records);
        chunk.push(42..43, line, cut, Format::Auto.parse(line, &FieldNames::default()).0);
        let before_end = Fingerprint::of(b"");
        let (start, end) = (ReadOffset(42), ReadOffset(42 + line.len() as u64));
        chunk.close(&origin, Segment { content: ContentSeq(0), start, end, before_end });
        let resource = Resource::new(|_| None, &["service.name=web".parse().unwrap()]);
        let mut out = Vec::new();
        encode(&chunk, &(0..1), &resource, &mut out);
        let text = String::from_utf8(out).unwrap();
        let value = serde_json::from_str(&text).unwrap();
        (text, value)
    }

    #[test]
    fn an_object_is_spliced_in_byte_for_byte() {
        let line = br#" {"timestamp":"2026-11-23T18:02:03.123456Z", "n":1.50, "level":"warn", "n":2} "#;
        let (text, value) = record(line, 0);
        assert!(text.contains(std::str::from_utf8(line).unwrap().trim()), "{text}");
        assert!(text.ends_with("}\n"));
        assert_eq!(value["id"], "0123456789abcdef:42");
        assert_eq!(value["timestamp"], "2026-11-23T18:02:03.123456Z");
        assert_eq!(value["severity_text"], "warn");
        assert_eq!(value["severity_number"], 13);
        assert_eq!(value["log.file.path"], "/logs/a \"b\"");
        assert_eq!(value["resource"]["service.name"], "web");
    }

    #[test]
    fn an_object_of_several_lines_is_one_line() {
        let (text, value) = record(b"{\r\n  \"a\": [1,\n 2],\n  \"b\": \"x\\ny\"\n}", 0);
        assert_eq!(text.matches(['\n', '\r']).count(), 1, "{text:?}");
        assert!(text.contains(r#"{    "a": [1,  2],   "b": "x\ny" }"#), "{text}");
        assert_eq!(value["attributes"], serde_json::json!({"a": [1, 2], "b": "x\ny"}));
    }

    #[test]
    fn text_is_a_body_whatever_its_bytes() {
        assert_eq!(record(b"a\0\t\"b\"", 0).1["body"], "a\0\t\"b\"");
        let (_, value) = record(b"caf\xe9", 7);
        assert_eq!(value["body"], "caf\u{fffd}");
        assert_eq!(value["body_base64"], "Y2Fm6Q==");
        assert_eq!(value["truncated_bytes"], 7);
        assert_eq!(record(b"{broken", 0).1["parse_error"], "not_json_object");
    }
}
