//! What the fuzz targets call: each takes any bytes, and panics where a promise is broken.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::StateDir;
use crate::identity::{FileId, Fingerprint};
use crate::position::{ContentSeq, ReadOffset, Segment};
use crate::record::chunk::{Chunk, ChunkMode, Origin};
use crate::record::encode::Encoding;
use crate::record::filter::{Filter, Filtered};
use crate::record::parse::{FieldNames, Format, Parsed};
use crate::record::resource::Resource;

/// Any bytes as a line, in every format, into every encoding: a record is JSON, and so is an object that is taken for one.
///
/// # Panics
/// Where that is not so.
pub fn line(line: &[u8]) {
    let filter = Filter {
        drop_fields: vec!["a".to_owned()],
        redact_fields: vec!["b".to_owned()],
        drops: vec!["c=d".parse().expect("a match")],
    };
    let names = FieldNames::default();
    for format in [Format::Auto, Format::Json, Format::Combined, Format::Logfmt, Format::Raw] {
        let (parsed, text) = format.parse(line, &names);
        if matches!(format, Format::Auto | Format::Json) && matches!(parsed, Parsed::Object(_)) {
            serde_json::from_slice::<serde::de::IgnoredAny>(&text).expect("an object");
        }
        let Filtered::Keep(parsed, text) = filter.apply(parsed, text, &names) else { continue };
        let mut chunk = Chunk::new(1, ChunkMode::Records);
        chunk.push(0..line.len() as u64, &text, 0, parsed);
        let id = FileId::try_from("0123456789abcdef".to_owned()).expect("an id");
        let origin = Arc::new(Origin { id, path: "/a".into() });
        let (start, end) = (ReadOffset(0), ReadOffset(line.len() as u64));
        let before_end = Fingerprint::of(b"");
        chunk.close(&origin, Segment { content: ContentSeq(0), start, end, before_end });
        let resource = Resource::new(|_| None, &[]);
        for encoding in [Encoding::Ndjson, Encoding::Otlp, Encoding::Forward] {
            let mut out = Vec::new();
            encoding.encode(&chunk, &(0..1), &resource, &mut out);
            if encoding == Encoding::Ndjson {
                // A number that no f64 holds (1e999) is JSON all the same, so nothing is read into values here.
                serde_json::from_slice::<serde::de::IgnoredAny>(&out).expect("a record is JSON");
            }
        }
    }
}

/// JSON lines that were read and parsed, for who measures how they are encoded (`benches/json`).
#[derive(Debug)]
pub struct Records {
    chunk: Chunk,
    resource: Resource,
    lines: usize,
}

impl Records {
    /// Of one file, one behind the other.
    ///
    /// # Panics
    /// Where a line is no object.
    #[must_use]
    pub fn new(lines: &[&str]) -> Self {
        let mut chunk = Chunk::new(lines.iter().map(|line| line.len()).sum(), ChunkMode::Records);
        let mut end = 0;
        for line in lines {
            let (parsed, text) = Format::Json.parse(line.as_bytes(), &FieldNames::default());
            assert!(matches!(parsed, Parsed::Object(_)), "{line}");
            let start = end;
            end += line.len() as u64 + 1;
            chunk.push(start..end, &text, 0, parsed);
        }
        let id = FileId::try_from("0123456789abcdef".to_owned()).expect("an id");
        let origin = Arc::new(Origin { id, path: "/logs/access.log".into() });
        let (start, end) = (ReadOffset(0), ReadOffset(end));
        chunk
            .close(&origin, Segment { content: ContentSeq(0), start, end, before_end: Fingerprint::of(b"") });
        Self { chunk, resource: Resource::new(|_| None, &[]), lines: lines.len() }
    }

    /// Appends an `ExportLogsServiceRequest`.
    pub fn otlp(&self, out: &mut Vec<u8>) {
        Encoding::Otlp.encode(&self.chunk, &(0..self.lines), &self.resource, out);
    }

    /// Appends Forward's entries.
    pub fn forward(&self, out: &mut Vec<u8>) {
        Encoding::Forward.encode(&self.chunk, &(0..self.lines), &self.resource, out);
    }
}

/// Any bytes in the place of a checkpoint, and as the content of one whose checksum is right: the agent starts, trusts none that
/// it should not, and writes what it trusts so that it trusts it again.
///
/// # Panics
/// Where that is not so.
pub fn checkpoint(bytes: &[u8], empty_dir: &Path) {
    let checksum = format!("\n{:08x}\n", crc32fast::hash(bytes));
    fs::write(empty_dir.join("checkpoint.0.json"), bytes).expect("a file");
    fs::write(empty_dir.join("checkpoint.1.json"), [bytes, checksum.as_bytes()].concat()).expect("a file");
    let mut state = StateDir::open(empty_dir).expect("nobody else holds it");
    let entries = state.load();
    for entry in &entries {
        entry.confirmed_by(&["sink".to_owned()]);
    }
    let known = entries.len();
    state.prepare(entries).write().expect("it is written again");
    assert_eq!(state.load().len(), known);
}
