//! An object's fields, walked over without building anything: the text is checked, and the places of the few that the log
//! data model has a name for are noted.

use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Fields;

/// Checks that a text is one object, and finds its fields.
pub(crate) fn object(text: &str) -> Result<Fields, serde_json::Error> {
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
                Field::Status => fields.status = map.next_value_seed(SmallNumber)?,
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
    Status,
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
            "http.response.status_code" => Field::Status,
            _ => Field::Other,
        })
    }
}

/// A string that stands in the text as it is, without escapes; any other value is passed over.
struct PlainString;

/// A number that fits; any other value is passed over.
struct SmallNumber;

impl<'a> DeserializeSeed<'a> for PlainString {
    type Value = Option<&'a str>;
    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<Self::Value, D::Error> {
        Ok(match json.deserialize_any(Plain)? {
            Found::Text(text) => Some(text),
            Found::Number(_) | Found::Other => None,
        })
    }
}

impl<'a> DeserializeSeed<'a> for SmallNumber {
    type Value = Option<u16>;
    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<Self::Value, D::Error> {
        Ok(match json.deserialize_any(Plain)? {
            Found::Number(number) => u16::try_from(number).ok(),
            Found::Text(_) | Found::Other => None,
        })
    }
}

/// What there was in a value.
enum Found<'a> {
    Text(&'a str),
    Number(u64),
    Other,
}

struct Plain;

impl<'a> Visitor<'a> for Plain {
    type Value = Found<'a>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any value")
    }
    fn visit_borrowed_str<E: Error>(self, text: &'a str) -> Result<Self::Value, E> {
        Ok(Found::Text(text))
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Found::Other)
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Found::Other)
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Found::Other)
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Found::Number(number))
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Found::Other)
    }
    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Found::Other)
    }
    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::Other)
    }
    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Found::Other)
    }
}
