//! `log-agent replay FILE`: sends dead letters again, once whatever made them so is mended.
//!
//! A letter holds its record as NDJSON has it. From that the line is put together again, byte for byte, and goes the same way as when it
//! was read: to any kind of sink, with the id that it had.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lifecycle::exit::{Exit, Failure, OrExit as _};
use lifecycle::units;
use prometheus_client::registry::Registry;
use tokio::time::sleep;

use crate::deliver::{
    Compression, CredentialFlags, DeadLetters, Health, Records, Settings, Sink, SinkList, SinkSpec,
};
use crate::identity::{FileId, Fingerprint};
use crate::loss::LossLedger;
use crate::metrics::Metrics;
use crate::position::{ContentSeq, ReadOffset, Segment, SinkIndex};
use crate::record::chunk::{Chunk, Origin};
use crate::record::json;
use crate::record::parse::container::{Envelope, Stream};
use crate::record::parse::{BadLine, FieldNames, Format, Parsed};
use crate::record::resource::{Resource, SharedResource};
use crate::record::unix_nanos;

/// Bytes of lines that are sent at once.
const CHUNK: usize = 512 * 1024;
/// How often it is looked whether a sink has been failing for too long.
const PERIOD: Duration = Duration::from_millis(100);

/// The flags of `log-agent replay`.
#[derive(Debug, Clone, clap::Args)]
pub struct Replay {
    /// Dead letters: dead-letter.ndjson of the state directory, or lines of it. It stays as it is; what is refused again goes to
    /// FILE.refused
    file: PathBuf,

    /// Where the records go; a letter goes to the sink of its name. Where there is one sink, and one name in the letters, all go there
    #[arg(long, value_name = "[NAME=]URL", required = true)]
    sink: Vec<SinkList>,

    /// How what is sent over the network is compressed
    #[arg(long, value_name = "HOW", default_value = "none")]
    compression: Compression,

    #[command(flatten)]
    credentials: CredentialFlags,

    #[command(flatten)]
    names: FieldNames,

    /// End with 69 when a sink has been failing for this long
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = units::duration)]
    give_up_after: Duration,
}

impl Replay {
    /// Sends all letters.
    ///
    /// # Errors
    /// 64 where a letter's sink is not configured, 74 or 78 where the file cannot be read or holds something else, 69 where a sink does not
    /// confirm, 78 where records were refused again.
    pub async fn run(self) -> Result<(), Failure> {
        let specs = SinkList::sinks(&self.sink);
        SinkSpec::validate(&specs, self.compression)
            .and_then(|()| self.credentials.validate(&specs))
            .map_err(|why| Failure::new(Exit::Usage, why))?;
        let text = fs::read(&self.file)
            .with_context(|| format!("cannot read {}", self.file.display()))
            .or_exit(Exit::Io)?;
        let letters = self.read(&text)?;
        let mut sinks = self.sinks(&specs)?;
        let is_one = letters.iter().all(|letter| letter.sink == letters[0].sink);
        let all_go_there = is_one && sinks.len() == 1;
        let mut sent = 0;
        for sink in &mut sinks {
            let goes_there = |letter: &&Letter| all_go_there || letter.sink == sink.name();
            let own: Vec<_> = letters.iter().filter(goes_there).collect();
            sent += own.len();
            self.send(&own, sink).await?;
        }
        if sent < letters.len() {
            let is_stray = |letter: &&Letter| sinks.iter().all(|sink| sink.name() != letter.sink);
            let name = letters.iter().find(is_stray).map_or("", |letter| &letter.sink);
            let left = letters.len() - sent;
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "{left} of {} records are for sinks such as {name}, which no --sink is called",
                    letters.len()
                ),
            ));
        }
        let refused: u64 = sinks.iter().map(Sink::refused_records).sum();
        tracing::info!(records = sent, refused, "replayed");
        if refused == 0 {
            return Ok(());
        }
        let file = refused_file(&self.file);
        Err(Failure::new(
            Exit::Refused,
            format!("{refused} of {sent} records were refused again; they are in {}", file.display()),
        ))
    }

    fn read(&self, text: &[u8]) -> Result<Vec<Letter>, Failure> {
        let lines = text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
        let letters = lines.map(|(number, line)| {
            Letter::read(line, &self.names).map_err(|why| {
                let (file, number) = (self.file.display(), number + 1);
                let what = format!("{file}, line {number}, is no dead letter: {why}; take the line out");
                Failure::new(Exit::Refused, what)
            })
        });
        letters.collect()
    }

    fn sinks(&self, specs: &[SinkSpec]) -> Result<Vec<Sink>, Failure> {
        let settings = Settings {
            compression: self.compression,
            timeout: self.give_up_after,
            // A person waits, and the letters stay.
            reject_wait: Duration::ZERO,
        };
        let names: Vec<_> = specs.iter().map(SinkSpec::name).collect();
        let metrics = Metrics::new(&mut Registry::default());
        let ledger = LossLedger::new(&names, metrics.clone());
        let dead_letters = DeadLetters::at(refused_file(&self.file));
        let sinks = SinkIndex::all(specs.len()).zip(specs).map(|(index, spec)| {
            let records = Records {
                resource: SharedResource::fixed(Resource::default()),
                dead_letters: dead_letters.clone(),
                ledger: ledger.clone(),
            };
            let (files, metrics) = (self.credentials.files(spec), metrics.sink(&spec.name()));
            Sink::new(index, spec, &files, &settings, records, metrics)
        });
        sinks.collect()
    }

    async fn send(&self, letters: &[&Letter], sink: &mut Sink) -> Result<(), Failure> {
        let (name, health) = (sink.name().to_owned(), sink.health());
        let mut chunk = Chunk::new(CHUNK, sink.purpose());
        let mut rest = letters.iter().peekable();
        while let Some(first) = rest.peek().copied() {
            chunk.clear();
            // What is said once for a chunk has to be the same for all of it.
            let same =
                |letter: &Letter| letter.resource == first.resource && letter.observed == first.observed;
            while let Some(letter) = rest.next_if(|letter| !chunk.is_full() && same(letter)) {
                letter.push(&mut chunk);
            }
            chunk.set_observed(first.observed);
            sink.set_resource(SharedResource::fixed(first.resource.clone()));
            tokio::select! {
                () = sink.deliver(&mut chunk) => {}
                reason = failing(&health, self.give_up_after) => {
                    return Err(Failure::new(Exit::Unavailable, format!("sink {name} does not confirm: {reason}")));
                }
            }
        }
        Ok(())
    }
}

/// Waits until a sink has been failing for this long, and says why.
async fn failing(health: &Health, limit: Duration) -> String {
    loop {
        sleep(PERIOD).await;
        if let Some((outage, reason)) = health.failing()
            && outage >= limit
        {
            return reason;
        }
    }
}

fn refused_file(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".refused");
    name.into()
}

#[derive(Debug)]
struct Letter {
    sink: String,
    origin: Arc<Origin>,
    offset: u64,
    observed: SystemTime,
    resource: Resource,
    text: Vec<u8>,
    parsed: Parsed,
    cut: u64,
    envelope: Option<Envelope>,
}

impl Letter {
    fn read(line: &[u8], names: &FieldNames) -> Result<Self, &'static str> {
        let letter = Object::read(line).ok_or("it is no JSON object")?;
        let record = letter.get("record").and_then(Object::read).ok_or("it has no record")?;
        let id = record.text("id").ok_or("its record has no id")?;
        let id = id
            .rsplit_once(':')
            .and_then(|(file, offset)| Some((FileId::try_from(file.to_owned()).ok()?, offset.parse().ok()?)));
        let (id, offset) = id.ok_or("its record's id is of another kind")?;
        let path = record.text("log.file.path").unwrap_or_default();
        let bad = record.get("parse_error").and_then(|name| serde_json::from_slice::<BadLine>(name).ok());
        let of_body = bad.map_or(Parsed::Text, Parsed::Bad);
        let (text, parsed) = match (record.get("attributes"), record.text("body_base64"), record.text("body"))
        {
            (Some(attributes), ..) => (attributes.to_vec(), Format::Json.parse(attributes, names).0),
            (None, Some(bytes), _) => {
                (STANDARD.decode(bytes).map_err(|_| "its body_base64 is not base64")?, of_body)
            }
            (None, None, Some(body)) => (body.into_bytes(), of_body),
            (None, None, None) => return Err("its record has neither attributes nor a body"),
        };
        let time = record.text("timestamp").and_then(|time| unix_nanos(time.as_bytes()));
        let stream = record.text("log.iostream").and_then(|name| Stream::of(name.as_bytes()));
        let observed =
            record.text("observed_timestamp").and_then(|time| humantime::parse_rfc3339(&time).ok());
        Ok(Self {
            sink: letter.text("sink").ok_or("it does not say of which sink it is")?,
            origin: Arc::new(Origin { id, path: path.into() }),
            offset,
            observed: observed.unwrap_or_else(SystemTime::now),
            resource: record.get("resource").map_or_else(|| Ok(Resource::default()), Resource::from_json)?,
            text,
            parsed,
            cut: record
                .get("truncated_bytes")
                .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
                .unwrap_or(0),
            envelope: time.zip(stream).map(|(time, stream)| Envelope { time, stream }),
        })
    }

    fn push(&self, chunk: &mut Chunk) {
        let end = self.offset + self.text.len() as u64;
        chunk.push_enveloped(self.offset..end, &self.text, self.cut, self.parsed.clone(), self.envelope);
        let (start, end) = (ReadOffset(self.offset), ReadOffset(end));
        let before_end = Fingerprint::of(b"");
        chunk.close(&self.origin, Segment { content: ContentSeq(0), start, end, before_end });
    }
}

/// A JSON object, taken apart but not read.
struct Object<'a> {
    fields: Vec<(String, &'a [u8])>,
}

impl<'a> Object<'a> {
    fn read(text: &'a [u8]) -> Option<Self> {
        std::str::from_utf8(text).ok()?;
        json::object(text, &mut json::Ignore)?;
        let name =
            |pair: &json::Pair<'_>| String::from_utf8_lossy(pair.name.bytes(&mut Vec::new())).into_owned();
        Some(Self { fields: json::pairs(text).map(|pair| (name(&pair), pair.value)).collect() })
    }

    fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| *value)
    }

    fn text(&self, name: &str) -> Option<String> {
        serde_json::from_slice(self.get(name)?).ok()
    }
}
