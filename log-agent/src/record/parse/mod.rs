//! What a line says: an object whose fields keep their types, or text.
//!
//! A JSON line is checked, not taken apart: the record that is shipped carries the writer's own bytes, and only the
//! places of the few fields that the log data model has a name for are noted on the way. Lines of the other formats are
//! written as the JSON object that they stand for, and go the same way from there.

mod combined;
pub(crate) mod fields;
mod logfmt;

use std::borrow::Cow;
use std::ops::Range;

use serde_json::{Map, Value};

use fields::object;

/// How lines are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
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
pub(crate) enum Parsed {
    /// One JSON object, whole.
    Object(Fields),
    /// Text, and meant to be.
    Text,
    /// Text, though it should have been more; it ships as it is, with the reason.
    Bad(BadLine),
}

/// Where an object keeps what the log data model has a name for; places are relative to the line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fields {
    /// `timestamp`, where it looks like RFC 3339.
    pub(crate) timestamp: Option<Range<u32>>,
    /// `severity` or `level`, where it is a string.
    pub(crate) severity: Option<Range<u32>>,
    /// `http.response.status_code`, where it is a number that can be one.
    pub(crate) status: Option<u16>,
}

/// Why a line is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadLine {
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
    pub(crate) fn as_str(self) -> &'static str {
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
    pub(crate) fn parse(self, line: &[u8]) -> (Parsed, Cow<'_, [u8]>) {
        let looks_like_an_object = line.trim_ascii_start().starts_with(b"{");
        let outcome = match self {
            Self::Raw => Ok(Parsed::Text),
            Self::Auto if !looks_like_an_object => Ok(Parsed::Text),
            Self::Json if !looks_like_an_object => Err(BadLine::NotJsonObject),
            // The JSON reader leaves it to its caller to look.
            Self::Auto | Self::Json => std::str::from_utf8(line)
                .map_err(|_| BadLine::NotUtf8)
                .and_then(|text| object(text).map(Parsed::Object).ok_or(BadLine::NotJsonObject)),
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
        Some(fields) => (Parsed::Object(fields), Cow::Owned(json.into_bytes())),
        None => (Parsed::Bad(bad), Cow::Borrowed(line)),
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
