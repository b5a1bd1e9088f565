//! What a line says: an object whose fields keep their types, or text.
//!
//! A JSON line is checked, not taken apart: the record that is shipped carries the writer's own bytes, and only the
//! places of the few fields that the log data model has a name for are noted on the way. Lines of the other formats are
//! written as the JSON object that they stand for, and go the same way from there.

mod combined;
mod logfmt;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// How lines are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A line that begins with `{` as JSON, any other as text
    Auto,
    /// Every line as a JSON object; one that is not ships as text, marked and counted
    Json,
    /// Every line as an access log of Apache's or nginx's, combined or common
    Combined,
    /// Every line as name=value pairs
    Logfmt,
    /// Every line as text
    Raw,
}

/// What was found in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// One JSON object, whole.
    Object(Fields),
    /// Text, and meant to be.
    Text,
    /// Text, though it should have been more; it ships as it is, with the reason.
    Bad(BadLine),
}

/// Where an object keeps what the log data model has a name for; places are relative to the line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields {
    /// `timestamp`, where it looks like RFC 3339.
    pub timestamp: Option<Range<u32>>,
    /// `severity` or `level`, where it is a string.
    pub severity: Option<Range<u32>>,
}

/// Why a line is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadLine {
    /// Not UTF-8, which JSON has to be.
    NotUtf8,
    /// Not one JSON object.
    NotJsonObject,
    /// Not an access log's line.
    NotCombined,
    /// Not pairs.
    NotLogfmt,
}

impl BadLine {
    /// As it is written into the record and onto the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotUtf8 => "not_utf8",
            Self::NotJsonObject => "not_json_object",
            Self::NotCombined => "not_combined",
            Self::NotLogfmt => "not_logfmt",
        }
    }
}

impl Format {
    /// Reads one line, which has lost its line break: what was found, and the text that it was found in.
    pub fn parse(self, line: &[u8]) -> (Parsed, Cow<'_, [u8]>) {
        let looks_like_an_object = line.trim_ascii_start().starts_with(b"{");
        let outcome = match self {
            Self::Raw => Ok(Parsed::Text),
            Self::Auto if !looks_like_an_object => Ok(Parsed::Text),
            Self::Json if !looks_like_an_object => Err(BadLine::NotJsonObject),
            // The JSON reader does not look at the bytes of strings that it skips.
            Self::Auto | Self::Json => std::str::from_utf8(line)
                .map_err(|_| BadLine::NotUtf8)
                .and_then(|text| object(text).map(Parsed::Object).map_err(|_| BadLine::NotJsonObject)),
            Self::Combined => return rewritten(line, combined::parse, BadLine::NotCombined),
            Self::Logfmt => return rewritten(line, logfmt::parse, BadLine::NotLogfmt),
        };
        (outcome.unwrap_or_else(Parsed::Bad), Cow::Borrowed(line))
    }
}

/// Reads a line of another format and writes it as JSON.
fn rewritten(
    line: &[u8],
    parse: impl Fn(&str) -> Option<Map<String, Value>>,
    bad: BadLine,
) -> (Parsed, Cow<'_, [u8]>) {
    let Ok(text) = std::str::from_utf8(line) else {
        return (Parsed::Bad(BadLine::NotUtf8), Cow::Borrowed(line));
    };
    let Some(json) = parse(text).map(|object| Value::Object(object).to_string()) else {
        return (Parsed::Bad(bad), Cow::Borrowed(line));
    };
    match object(&json) {
        Ok(fields) => (Parsed::Object(fields), Cow::Owned(json.into_bytes())),
        Err(_) => (Parsed::Bad(bad), Cow::Borrowed(line)),
    }
}

fn object(text: &str) -> Result<Fields, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    let fields = json.deserialize_map(Object { text })?;
    json.end()?;
    Ok(fields)
}

/// Walks over an object's fields without building anything.
struct Object<'a> {
    text: &'a str,
}

impl<'a> Visitor<'a> for Object<'a> {
    type Value = Fields;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key_seed(Name)? {
            match name {
                Field::Timestamp => {
                    let value = map.next_value_seed(PlainString)?;
                    fields.timestamp = value.filter(|at| is_rfc3339(at)).and_then(|at| place(self.text, at));
                }
                Field::Severity => {
                    let value = map.next_value_seed(PlainString)?;
                    fields.severity = value.and_then(|level| place(self.text, level));
                }
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fields)
    }
}

/// Where `part` lies in `whole`, of which it is a slice.
fn place(whole: &str, part: &str) -> Option<Range<u32>> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    Some(u32::try_from(start).ok()?..u32::try_from(start + part.len()).ok()?)
}

/// By shape: four-digit year, `T`, and a zone. Enough not to promote a number or a word to a timestamp.
fn is_rfc3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mark = |at: usize, mark: u8| bytes.get(at) == Some(&mark);
    (20..=40).contains(&bytes.len())
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && mark(4, b'-')
        && mark(7, b'-')
        && (mark(10, b'T') || mark(10, b't'))
        && mark(13, b':')
        && mark(16, b':')
        && (text.ends_with(['Z', 'z']) || mark(bytes.len() - 3, b':'))
}

enum Field {
    Timestamp,
    Severity,
    Other,
}

struct Name;

impl<'a> DeserializeSeed<'a> for Name {
    type Value = Field;
    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<Field, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Field;
    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a field name")
    }
    fn visit_str<E: Error>(self, name: &str) -> Result<Field, E> {
        Ok(match name {
            "timestamp" => Field::Timestamp,
            "severity" | "level" => Field::Severity,
            _ => Field::Other,
        })
    }
}

/// A string that stands in the text as it is, without escapes; any other value is passed over.
struct PlainString;

impl<'a> DeserializeSeed<'a> for PlainString {
    type Value = Option<&'a str>;
    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for PlainString {
    type Value = Option<&'a str>;
    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any value")
    }
    fn visit_borrowed_str<E: Error>(self, text: &'a str) -> Result<Self::Value, E> {
        Ok(Some(text))
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(line: &str) -> (Option<&str>, Option<&str>) {
        let Parsed::Object(fields) = Format::Json.parse(line.as_bytes()).0 else { panic!("{line}") };
        let at = |range: Range<u32>| &line[range.start as usize..range.end as usize];
        (fields.timestamp.map(at), fields.severity.map(at))
    }

    #[test]
    fn an_object_is_checked_and_its_time_and_severity_are_found() {
        let line = r#"{"a":[1,{"timestamp":2}],"timestamp":"2026-11-23T18:02:03.123456Z","level":"warn"}"#;
        assert_eq!(fields(line), (Some("2026-11-23T18:02:03.123456Z"), Some("warn")));
        assert_eq!(
            fields(r#"{"timestamp":"2026-11-23T18:02:03+01:00"}"#).0,
            Some("2026-11-23T18:02:03+01:00")
        );
    }

    #[test]
    fn what_only_looks_like_a_time_is_left_where_it_is() {
        for value in
            ["1700000000", "\"yesterday\"", "null", "{\"x\":[1]}", "[1,2]", "\"\\u0032026-11-23T18:02:03Z\""]
        {
            assert_eq!(fields(&format!("{{\"timestamp\":{value},\"b\":1}}")).0, None, "{value}");
        }
        assert_eq!(fields("{}"), (None, None));
    }

    #[test]
    fn a_bad_line_is_text_with_a_reason() {
        let bad = Parsed::Bad(BadLine::NotJsonObject);
        for line in [r#"{"a":1"#, r#"{"a":1} x"#, r#"{"a":01}"#, "{'a':1}", "{\"a\":\"\u{1}\"}"] {
            assert_eq!(Format::Json.parse(line.as_bytes()).0, bad, "{line}");
            assert_eq!(Format::Auto.parse(line.as_bytes()).0, bad, "{line}");
        }
        assert_eq!(Format::Json.parse(b"hello").0, bad);
        assert_eq!(Format::Auto.parse(b"hello").0, Parsed::Text);
        assert_eq!(Format::Auto.parse(b"").0, Parsed::Text);
        assert_eq!(Format::Auto.parse(b"{\"a\":\"\xff\"}").0, Parsed::Bad(BadLine::NotUtf8));
        assert_eq!(Format::Raw.parse(br#"{"a":1}"#).0, Parsed::Text);
    }
}
