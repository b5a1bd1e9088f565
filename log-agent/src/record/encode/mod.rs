//! Encodings of a chunk's records. Encoders append to memory that is used again, and look at each byte of a line once.

mod forward;
pub(crate) mod msgpack;
mod ndjson;
mod otlp;
mod protobuf;
mod raw;

use std::ops::Range;

use super::chunk::Chunk;
use super::parse::Parsed;
use super::resource::Resource;
use super::{severity, time};

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// One JSON object a line.
    Ndjson,
    /// One `ExportLogsServiceRequest` in protobuf.
    Otlp,
    /// A stream of Forward entries in MessagePack, each an event time and a map.
    Forward,
    /// The lines alone, as they are, with a line break each.
    Raw,
}

impl Encoding {
    /// Appends the records of a chunk's lines with these numbers to `out`.
    pub(crate) fn encode(
        self,
        chunk: &Chunk,
        numbers: &Range<usize>,
        resource: &Resource,
        out: &mut Vec<u8>,
    ) {
        match self {
            Self::Ndjson => ndjson::encode(chunk, numbers, resource, out),
            Self::Otlp => otlp::encode(chunk, numbers, resource, out),
            Self::Raw => raw::encode(chunk, numbers, out),
            Self::Forward => forward::encode(chunk, numbers, resource, out),
        }
    }
}

/// The event time that a line states, in nanoseconds since 1970.
fn event_time(parsed: &Parsed, text: &[u8]) -> Option<u64> {
    let Parsed::Object(fields) = parsed else { return None };
    let at = fields.timestamp.as_ref()?;
    time::unix_nanos(text.get(at.start as usize..at.end as usize)?)
}

/// The level that a line states, as it states it.
fn severity_text<'a>(parsed: &Parsed, text: &'a [u8]) -> Option<&'a [u8]> {
    let Parsed::Object(fields) = parsed else { return None };
    let at = fields.severity.as_ref()?;
    text.get(at.start as usize..at.end as usize)
}

/// The severity: by the level, else by the status of an answer.
fn severity_number(parsed: &Parsed, text: &[u8]) -> Option<severity::Number> {
    let Parsed::Object(fields) = parsed else { return None };
    match severity_text(parsed, text) {
        Some(level) => severity::of_level(level),
        None => fields.status.map(severity::of_status),
    }
}

/// Appends a number's digits.
fn digits(number: u64, out: &mut Vec<u8>) {
    let (mut rest, mut at, mut text) = (number, 20, [0; 20]);
    loop {
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}
