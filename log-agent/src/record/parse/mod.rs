//! What a line says: an object whose fields keep their types, or text.
//!
//! A JSON line is checked, not taken apart: the record that is shipped carries the writer's own bytes, and only the
//! places of the few fields that the log data model has a name for are noted on the way. Lines of the other formats are
//! written as the JSON object that they stand for, and go the same way from there.

mod combined;
pub(crate) mod container;
pub(crate) mod fields;
mod logfmt;

use std::borrow::Cow;

use serde_json::Value;

use fields::object;
pub(crate) use fields::{FieldNames, Fields, Level, LineTime, Message};

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
    /// Lines as containerd and CRI-O write them: time, stream and a tag before each; what is behind it as with auto
    Cri,
    /// Lines as Docker's json-file driver writes them; what is in "log" as with auto
    Docker,
    /// Every line as text
    Raw,
}

/// How the data ends that lines are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataEnd {
    /// At the end of the file, which no process writes to any more: not even the end of a last line.
    Final,
    /// At the end of the file, for now.
    Eof,
    /// There is more to read.
    More,
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

/// Why a line is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BadLine {
    /// Not UTF-8, which JSON has to be.
    NotUtf8,
    NotJsonObject,
    /// Not an access log's line.
    NotCombined,
    /// Not pairs.
    NotLogfmt,
    /// Not a line of a container runtime's.
    NotCri,
    /// Not a line of Docker's.
    NotDocker,
}

impl BadLine {
    /// As it is written into the record and onto the metric.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NotUtf8 => "not_utf8",
            Self::NotJsonObject => "not_json_object",
            Self::NotCombined => "not_combined",
            Self::NotLogfmt => "not_logfmt",
            Self::NotCri => "not_cri",
            Self::NotDocker => "not_docker",
        }
    }
}

/// How many NULs a line begins with that are no part of it: the hole that `copytruncate` leaves under a writer without
/// `O_APPEND`, or what a file system fills in after a power loss. A line of nothing else stays as it is.
pub(crate) fn leading_nuls(line: &[u8]) -> usize {
    if line.first() != Some(&0) {
        return 0;
    }
    line.iter().position(|byte| *byte != 0).filter(|at| !matches!(line[*at..], [b'\r'])).unwrap_or(0)
}

impl Format {
    /// Whether a container runtime wrote the lines.
    pub(crate) fn is_of_containers(self) -> bool {
        matches!(self, Self::Cri | Self::Docker)
    }

    /// Reads one line, which has lost its line break: what was found, and the text that it was found in.
    ///
    /// Of a container runtime's line, that is what the container wrote: the runtime's own words are [`container`]'s business.
    pub(crate) fn parse<'a>(self, line: &'a [u8], names: &FieldNames) -> (Parsed, Cow<'a, [u8]>) {
        let looks_like_an_object = line.trim_ascii_start().starts_with(b"{");
        let outcome = match self {
            Self::Raw => Ok(Parsed::Text),
            Self::Auto | Self::Cri | Self::Docker if !looks_like_an_object => Ok(Parsed::Text),
            Self::Json if !looks_like_an_object => Err(BadLine::NotJsonObject),
            // The JSON reader leaves it to its caller to look.
            Self::Auto | Self::Json | Self::Cri | Self::Docker => std::str::from_utf8(line)
                .map_err(|_| BadLine::NotUtf8)
                .and_then(|text| object(text, names).map(Parsed::Object).ok_or(BadLine::NotJsonObject)),
            Self::Combined => {
                let parse =
                    |line: &str| combined::parse(line).map(|object| Value::Object(object).to_string());
                return rewritten(line, names, parse, BadLine::NotCombined);
            }
            Self::Logfmt => return rewritten(line, names, logfmt::parse, BadLine::NotLogfmt),
        };
        (outcome.unwrap_or_else(Parsed::Bad), Cow::Borrowed(line))
    }
}

/// Reads a line of another format and writes it as JSON.
fn rewritten<'a>(
    line: &'a [u8],
    names: &FieldNames,
    parse: impl Fn(&str) -> Option<String>,
    bad: BadLine,
) -> (Parsed, Cow<'a, [u8]>) {
    let Ok(text) = std::str::from_utf8(line) else {
        return (Parsed::Bad(BadLine::NotUtf8), Cow::Borrowed(line));
    };
    let Some(json) = parse(text) else {
        return (Parsed::Bad(bad), Cow::Borrowed(line));
    };
    match object(&json, names) {
        Some(fields) => (Parsed::Object(fields), Cow::Owned(json.into_bytes())),
        None => (Parsed::Bad(bad), Cow::Borrowed(line)),
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    fn parse(format: Format, line: &[u8]) -> Parsed {
        format.parse(line, &FieldNames::default()).0
    }

    fn fields(line: &str) -> Fields {
        let Parsed::Object(fields) = parse(Format::Json, line.as_bytes()) else { panic!("{line}") };
        fields
    }

    fn texts(line: &str) -> (Option<&str>, Option<&str>) {
        let fields = fields(line);
        let at = |range: Range<u32>| &line[range.start as usize..range.end as usize];
        let time = fields.time.map(|time| match time {
            LineTime::Text(range) => at(range),
            LineTime::Nanos(nanos) => panic!("{line}: {nanos}"),
        });
        let level = fields.level.map(|level| match level {
            Level::Text(range) => at(range),
            Level::Number(number) => panic!("{line}: {number}"),
        });
        (time, level)
    }

    #[test]
    fn nuls_before_a_line_are_no_part_of_it() {
        assert_eq!(leading_nuls(b"\0\0a\0b"), 2);
        assert_eq!(leading_nuls(b"a\0"), 0);
        assert_eq!(leading_nuls(b"\0\0"), 0, "a line of nothing else");
        assert_eq!(leading_nuls(b"\0\r"), 0, "nor one with a carriage return");
        assert_eq!(leading_nuls(b""), 0);
    }

    #[test]
    fn an_object_is_checked_and_its_time_and_severity_are_found() {
        let line = r#"{"a":[1,{"timestamp":2}],"timestamp":"2026-11-23T18:02:03.123456Z","level":"warn"}"#;
        assert_eq!(texts(line), (Some("2026-11-23T18:02:03.123456Z"), Some("warn")));
        assert_eq!(
            texts(r#"{"timestamp":"2026-11-23T18:02:03+01:00"}"#).0,
            Some("2026-11-23T18:02:03+01:00")
        );
    }

    #[test]
    fn what_only_looks_like_a_time_is_none() {
        let time = |text: &str| fields(&format!("{{\"time\":\"{text}\"}}")).time;
        for text in [
            "2026-11-23T18:02:03Z",
            "2026-11-23t18:02:03.123456789z",
            "2028-02-29T23:59:60.0+23:59",
            "9999-12-31T00:00:00-00:00",
        ] {
            assert!(matches!(time(text), Some(LineTime::Text(_))), "{text}");
        }
        for text in [
            "2026-ab-cdTef:gh:ijZ",
            "2026-13-01T00:00:00Z",
            "2026-01-32T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:61Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00,5Z",
            "2026-01-01T00:00:00 at noon:00",
            "2026-01-01T00:00:00+0a:00",
        ] {
            assert!(!matches!(time(text), Some(LineTime::Text(_))), "{text}");
        }
        assert_eq!(time("2026-ab-cdTef:gh:ijZ"), None);
    }

    #[test]
    fn a_time_is_a_number_too_and_a_word_is_none() {
        let at = |value: &str| match fields(&format!("{{\"ts\":{value},\"b\":1}}")).time {
            Some(LineTime::Nanos(nanos)) => Some(nanos),
            Some(LineTime::Text(_)) => panic!("{value}"),
            None => None,
        };
        let second = 1_700_000_000_000_000_000;
        for value in [
            "1700000000",
            "1700000000000",
            "1700000000000000",
            "1700000000000000000",
            "1.7e9",
            "1700000000000.0",
        ] {
            assert_eq!(at(value), Some(second), "{value}");
        }
        assert_eq!(at("1700000000.25"), Some(second + 250_000_000));
        assert_eq!(at("1700000000.123456"), Some(second + 123_456_000));
        assert_eq!(at("\"2023-11-14 22:13:20Z\""), Some(second));
        assert_eq!(at("\"2023-11-14T23:13:20.5+0100\""), Some(second + 500_000_000));
        for value in [
            "12",
            "-1700000000",
            "\"yesterday\"",
            "null",
            "{\"x\":[1]}",
            "[1700000000,2]",
            "\"\\u0032026-11-23T18:02:03Z\"",
            "1e300",
        ] {
            assert_eq!(at(value), None, "{value}");
        }
        assert_eq!(texts("{}"), (None, None));
    }

    #[test]
    fn of_several_names_the_first_of_the_list_counts() {
        let line = r#"{"ts":1,"time":"2026-01-01T00:00:00Z","timestamp":"2026-02-01T00:00:00Z","level":30,"severity":"ERROR"}"#;
        assert_eq!(texts(line), (Some("2026-02-01T00:00:00Z"), Some("ERROR")));
        let names = FieldNames {
            time: Some("when".to_owned()),
            level: Some("how bad".to_owned()),
            body: Some("text".parse().unwrap()),
        };
        let line = r#"{"timestamp":"2026-02-01T00:00:00Z","level":"info","when":1700000000,"how bad":"warn","text":"a\n","msg":"b"}"#;
        let (Parsed::Object(fields), _) = Format::Json.parse(line.as_bytes(), &names) else {
            panic!("{line}")
        };
        assert_eq!(fields.time, Some(LineTime::Nanos(1_700_000_000_000_000_000)));
        let at = |range: Range<u32>| &line[range.start as usize..range.end as usize];
        assert!(matches!(fields.level, Some(Level::Text(range)) if at(range.clone()) == "warn"));
        assert!(matches!(fields.message, Some(Message::Field(range)) if at(range.clone()) == "a\\n"));
    }

    #[test]
    fn a_bad_line_is_text_with_a_reason() {
        let bad = Parsed::Bad(BadLine::NotJsonObject);
        for line in [r#"{"a":1"#, r#"{"a":1} x"#, r#"{"a":01}"#, "{'a':1}", "{\"a\":\"\u{1}\"}"] {
            assert_eq!(parse(Format::Json, line.as_bytes()), bad, "{line}");
            assert_eq!(parse(Format::Auto, line.as_bytes()), bad, "{line}");
        }
        assert_eq!(parse(Format::Json, b"hello"), bad);
        assert_eq!(parse(Format::Auto, b"hello"), Parsed::Text);
        assert_eq!(parse(Format::Auto, b""), Parsed::Text);
        assert_eq!(parse(Format::Auto, b"{\"a\":\"\xff\"}"), Parsed::Bad(BadLine::NotUtf8));
        assert_eq!(parse(Format::Raw, br#"{"a":1}"#), Parsed::Text);
    }
}
