//! Any bytes as a line, in every format, into every encoding: nothing panics, a record is JSON, and an object that is taken
//! for one is one.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use log_agent::chunk::{Chunk, Origin, Purpose};
use log_agent::enrich::Resource;
use log_agent::identity::{Epoch, FileId, Fingerprint};
use log_agent::parse::{Format, Parsed};
use log_agent::position::{ReadOffset, Segment, SourceSeq};
use log_agent::record::Encoding;
use log_agent::shape::{Shape, Shaped};

fuzz_target!(|line: &[u8]| {
    let shape = Shape {
        drop_fields: vec!["a".to_owned()],
        redact_fields: vec!["b".to_owned()],
        drops: vec!["c=d".parse().expect("a match")],
    };
    for format in [Format::Auto, Format::Json, Format::Combined, Format::Logfmt, Format::Raw] {
        let (parsed, text) = format.parse(line);
        if matches!(format, Format::Auto | Format::Json) && matches!(parsed, Parsed::Object(_)) {
            serde_json::from_slice::<serde::de::IgnoredAny>(&text).expect("an object");
        }
        let Shaped::Ship(parsed, text) = shape.apply(parsed, text) else { continue };
        let mut chunk = Chunk::new(1, Purpose::Records);
        chunk.push(0..line.len() as u64, &text, 0, parsed);
        let id = FileId::try_from("0123456789abcdef".to_owned()).expect("an id");
        let origin = Arc::new(Origin { id, path: "/a".into() });
        let (start, end) = (ReadOffset(0), ReadOffset(line.len() as u64));
        let before_end = Fingerprint::of(b"");
        chunk.close(
            &origin,
            Segment { source: SourceSeq(0), epoch: Epoch::default(), start, end, before_end },
        );
        let resource = Resource::new(|_| None, &[]);
        for encoding in [Encoding::Ndjson, Encoding::Otlp, Encoding::Forward, Encoding::Raw] {
            let mut out = Vec::new();
            encoding.encode(&chunk, &(0..1), &resource, &mut out);
            if encoding == Encoding::Ndjson {
                // A number that no f64 holds (1e999) is JSON all the same, so nothing is read into values here.
                serde_json::from_slice::<serde::de::IgnoredAny>(&out).expect("a record is JSON");
            }
        }
    }
});
