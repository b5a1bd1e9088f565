//! Encodings of a chunk's records. Encoders append to memory that is used again, and look at each byte of a line once.

mod forward;
pub(crate) mod msgpack;
mod ndjson;
mod otlp;
mod protobuf;

use std::borrow::Cow;
use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

use super::chunk::{Chunk, Line};
use super::parse::{Fields, Level, LineTime, Parsed};
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
            Self::Forward => forward::encode(chunk, numbers, resource, out),
        }
    }
}

fn fields(line: &Line) -> Option<&Fields> {
    if let Parsed::Object(fields) = &line.parsed { Some(fields) } else { None }
}

fn at<'a>(place: &Range<u32>, text: &'a [u8]) -> Option<&'a [u8]> {
    text.get(place.start as usize..place.end as usize)
}

/// The event time that a line states, or a container runtime states of it, in nanoseconds since 1970.
fn event_time(line: &Line, text: &[u8]) -> Option<u64> {
    let stated = match fields(line).and_then(|fields| fields.time.as_ref()) {
        Some(LineTime::Text(place)) => at(place, text).and_then(time::unix_nanos),
        Some(LineTime::Nanos(nanos)) => Some(*nanos),
        None => None,
    };
    stated.or_else(|| line.envelope.map(|envelope| envelope.time))
}

/// The event time as text: in the writer's own spelling, where that is RFC 3339.
fn timestamp<'a>(line: &Line, text: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    if let Some(LineTime::Text(place)) = fields(line).and_then(|fields| fields.time.as_ref()) {
        return at(place, text).map(Cow::Borrowed);
    }
    let time = UNIX_EPOCH + Duration::from_nanos(event_time(line, text)?);
    Some(Cow::Owned(humantime::format_rfc3339_nanos(time).to_string().into_bytes()))
}

/// The level that a line states, as it states it.
fn severity_text<'a>(line: &Line, text: &'a [u8]) -> Option<&'a [u8]> {
    match fields(line)?.level.as_ref()? {
        Level::Text(place) => at(place, text),
        Level::Number(_) => None,
    }
}

/// The severity: by the level, else by the status of an answer.
fn severity_number(line: &Line, text: &[u8]) -> Option<severity::Number> {
    let fields = fields(line)?;
    match &fields.level {
        Some(Level::Text(place)) => at(place, text).and_then(severity::of_level),
        Some(Level::Number(level)) => severity::of_number(*level),
        None => fields.status.map(severity::of_status),
    }
}

fn digits(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
