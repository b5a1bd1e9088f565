//! The few fields of an object that the log data model has a name for: their places are noted while the text is checked.
//!
//! Loggers have different names for the same things. Where a line has several names for one thing, the first of its list counts.

use std::ops::Range;
use std::str::FromStr;

use crate::record::json::{self, Number, Text, Visitor};
use crate::record::time;

/// Where an object keeps what the log data model has a name for; places are relative to the line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fields {
    pub(crate) time: Option<LineTime>,
    pub(crate) level: Option<Level>,
    pub(crate) message: Option<Message>,
    /// `http.response.status_code`, where it is a number that can be one.
    pub(crate) status: Option<u16>,
}

/// The event time that a line states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LineTime {
    /// A string that looks like RFC 3339.
    Text(Range<u32>),
    /// Anything else that is a time, in nanoseconds since 1970.
    Nanos(u64),
}

/// The level that a line states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Level {
    /// A word.
    Text(Range<u32>),
    /// A number of the logger's own.
    Number(i64),
}

/// What a line says to people: the body of its OTLP record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// A string's text between its quotes, escapes and all.
    Field(Range<u32>),
    /// The whole line.
    Line,
}

/// The names that the user gives fields, before those that are known.
#[derive(Debug, Clone, PartialEq, Eq, Default, clap::Args)]
pub(crate) struct FieldNames {
    /// Field of JSON lines that states when the event happened, before those that loggers are known to use
    #[arg(long = "time-field", value_name = "FIELD")]
    pub(crate) time: Option<String>,

    /// Field of JSON lines that states the level, as a word or as a number, before those that loggers are known to use
    #[arg(long = "level-field", value_name = "FIELD")]
    pub(crate) level: Option<String>,

    /// Field of JSON lines that becomes the body of an OTLP record, before message and msg; @line is the whole line. The field stays
    /// an attribute, too
    #[arg(long = "body-field", value_name = "FIELD")]
    pub(crate) body: Option<BodyField>,
}

/// What becomes the body of an OTLP record whose line is an object, before `message` and `msg`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BodyField {
    /// This field.
    Named(String),
    /// The line.
    Line,
}

impl FromStr for BodyField {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("name a field, or write @line".to_owned()),
            "@line" => Ok(Self::Line),
            name => Ok(Self::Named(name.to_owned())),
        }
    }
}

/// Checks that a text is one object, and finds its fields.
pub(crate) fn object(text: &str, names: &FieldNames) -> Option<Fields> {
    let names = Some(names).filter(|names| **names != FieldNames::default());
    let mut finder =
        Finder { fields: Fields::default(), names, found: Ranks::default(), meaning: None, level: 0 };
    json::object(text.as_bytes(), &mut finder)?;
    let mut fields = finder.fields;
    if names.is_some_and(|names| names.body == Some(BodyField::Line)) {
        fields.message = Some(Message::Line);
    }
    Some(fields)
}

/// What a field of this name says, and its rank among the names for that: 0 is what the user named.
#[derive(Debug, Clone, Copy)]
enum Meaning {
    Time(u8),
    Level(u8),
    Message(u8),
    Status,
}

/// The names that loggers use, by `tests/scenarios/loggers.rs`.
fn meaning(name: &[u8]) -> Option<Meaning> {
    Some(match name {
        b"timestamp" => Meaning::Time(1),
        b"@timestamp" => Meaning::Time(2),
        b"time" => Meaning::Time(3),
        b"ts" => Meaning::Time(4),
        b"@t" => Meaning::Time(5),
        b"datetime" => Meaning::Time(6),
        b"timeMillis" => Meaning::Time(7),
        b"severity" => Meaning::Level(1),
        b"level" => Meaning::Level(2),
        b"log.level" => Meaning::Level(3),
        b"levelname" => Meaning::Level(4),
        b"@l" => Meaning::Level(5),
        b"message" => Meaning::Message(1),
        b"msg" => Meaning::Message(2),
        b"@m" => Meaning::Message(3),
        b"@mt" => Meaning::Message(4),
        b"http.response.status_code" => Meaning::Status,
        _ => return None,
    })
}

/// The rank of the name that each thing was found under.
#[derive(Debug, Default)]
struct Ranks {
    time: Option<u8>,
    level: Option<u8>,
    message: Option<u8>,
}

struct Finder<'a> {
    fields: Fields,
    /// The names that the user gave, if any.
    names: Option<&'a FieldNames>,
    found: Ranks,
    /// Of the value that comes next; a name with escapes in it is none of those that are looked for.
    meaning: Option<Meaning>,
    /// How deep in arrays and objects within the object.
    level: u32,
}

impl Finder<'_> {
    #[inline]
    fn named(&self, name: &[u8]) -> Option<Meaning> {
        let Some(names) = self.names else { return meaning(name) };
        let is = |field: &Option<String>| field.as_ref().is_some_and(|field| field.as_bytes() == name);
        if is(&names.time) {
            Some(Meaning::Time(0))
        } else if is(&names.level) {
            Some(Meaning::Level(0))
        } else if matches!(&names.body, Some(BodyField::Named(field)) if field.as_bytes() == name) {
            Some(Meaning::Message(0))
        } else {
            meaning(name)
        }
    }
}

/// Whether a name of this rank is at least as good as the one that was found before; of two fields of one name, the later counts.
fn counts(found: Option<u8>, rank: u8) -> bool {
    found.is_none_or(|found| rank <= found)
}

impl<'a> Visitor<'a> for Finder<'_> {
    type Open = ();

    #[inline]
    fn name(&mut self, name: Text<'a>) {
        self.meaning =
            if self.level > 0 { None } else { name.plain().and_then(|(name, _)| self.named(name)) };
    }

    #[inline]
    fn text(&mut self, value: Text<'a>) {
        match self.meaning {
            Some(Meaning::Time(rank)) if counts(self.found.time, rank) => {
                let Some((text, at)) = value.plain() else { return };
                let time = if is_rfc3339(text) {
                    place(text, at).map(LineTime::Text)
                } else {
                    time::unix_nanos(text).map(LineTime::Nanos)
                };
                if time.is_some() {
                    (self.fields.time, self.found.time) = (time, Some(rank));
                }
            }
            Some(Meaning::Level(rank)) if counts(self.found.level, rank) => {
                let level = value.plain().and_then(|(text, at)| place(text, at)).map(Level::Text);
                (self.fields.level, self.found.level) = (level, Some(rank));
            }
            Some(Meaning::Message(rank)) if counts(self.found.message, rank) => {
                let (raw, at) = value.raw();
                (self.fields.message, self.found.message) = (place(raw, at).map(Message::Field), Some(rank));
            }
            _ => {}
        }
    }

    #[inline]
    fn number(&mut self, value: Number<'a>) {
        match self.meaning {
            Some(Meaning::Status) => {
                self.fields.status = match value {
                    Number::Integer(status) => u16::try_from(status).ok(),
                    Number::Large(_) | Number::Float(_) => None,
                };
            }
            Some(Meaning::Time(rank)) if counts(self.found.time, rank) => {
                let time = match value {
                    Number::Integer(value) => time::unix_nanos_of(value),
                    Number::Float(value) => time::unix_nanos_of_fraction(value),
                    Number::Large(_) => None,
                };
                if let Some(nanos) = time {
                    (self.fields.time, self.found.time) = (Some(LineTime::Nanos(nanos)), Some(rank));
                }
            }
            Some(Meaning::Level(rank)) if counts(self.found.level, rank) => {
                if let Number::Integer(level) = value {
                    (self.fields.level, self.found.level) = (Some(Level::Number(level)), Some(rank));
                }
            }
            _ => {}
        }
    }

    fn begin_array(&mut self) {
        // Elements have no names of their own.
        self.meaning = None;
        self.level += 1;
    }
    fn end_array(&mut self, (): (), _: u32) {
        self.level -= 1;
    }
    fn begin_object(&mut self) {
        self.level += 1;
    }
    fn end_object(&mut self, (): (), _: u32) {
        self.level -= 1;
    }
}

fn place(text: &[u8], start: usize) -> Option<Range<u32>> {
    Some(u32::try_from(start).ok()?..u32::try_from(start + text.len()).ok()?)
}

/// RFC 3339: its shape, and no day, hour, minute, second or zone that there cannot be.
fn is_rfc3339(text: &[u8]) -> bool {
    const SHAPE: &[u8; 19] = b"0000-00-00T00:00:00";
    const MOST: [(usize, &[u8; 2]); 3] = [(11, b"23"), (14, b"59"), (17, b"60")];
    if !(20..=40).contains(&text.len()) {
        return false;
    }
    let (clock, rest) = text.split_at(SHAPE.len());
    let fits = clock.iter().zip(SHAPE).all(|(byte, shape)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't'),
        mark => byte == mark,
    });
    let numbers = [&clock[..4], &clock[5..7], &clock[8..10]].map(time::number);
    let is_date = matches!(numbers, [Some(year), Some(month), Some(day)] if time::is_date(year, month, day));
    let in_range = is_date && MOST.iter().all(|(at, most)| clock[*at..at + 2] <= most[..]);
    let zone = match rest.strip_prefix(b".") {
        Some(fraction) => {
            let end = fraction.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(fraction.len());
            if end == 0 { b"" } else { &fraction[end..] }
        }
        None => rest,
    };
    let is_zone = match zone {
        b"Z" | b"z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => time::zone_minutes([*h1, *h2], [*m1, *m2]).is_some(),
        _ => false,
    };
    fits && in_range && is_zone
}
