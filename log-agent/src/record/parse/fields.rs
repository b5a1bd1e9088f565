//! The few fields of an object that the log data model has a name for: their places are noted while the text is checked.

use std::ops::Range;

use super::Fields;
use crate::record::json::{self, Number, Text, Visitor};

/// Checks that a text is one object, and finds its fields.
pub(crate) fn object(text: &str) -> Option<Fields> {
    let mut finder = Finder { fields: Fields::default(), name: b"", level: 0 };
    json::object(text.as_bytes(), &mut finder)?;
    Some(finder.fields)
}

struct Finder<'a> {
    fields: Fields,
    /// Of the value that comes next; a name with escapes in it is none of those that are looked for.
    name: &'a [u8],
    /// How deep in arrays and objects within the object.
    level: u32,
}

impl<'a> Visitor<'a> for Finder<'a> {
    type Open = ();

    #[inline]
    fn name(&mut self, name: Text<'a>) {
        self.name = name.plain().map_or(b"", |(name, _)| name);
    }

    #[inline]
    fn text(&mut self, value: Text<'a>) {
        if self.level > 0 {
            return;
        }
        match self.name {
            b"timestamp" => {
                let plain = value.plain().filter(|(at, _)| is_rfc3339(at));
                self.fields.timestamp = plain.and_then(place);
            }
            b"severity" | b"level" => self.fields.severity = value.plain().and_then(place),
            _ => {}
        }
    }

    #[inline]
    fn number(&mut self, value: Number<'a>) {
        if self.level == 0 && self.name == b"http.response.status_code" {
            self.fields.status = match value {
                Number::Integer(status) => u16::try_from(status).ok(),
                Number::Large(_) | Number::Float(_) => None,
            };
        }
    }

    fn null(&mut self) {}
    fn boolean(&mut self, _: bool) {}
    fn raw(&mut self, _: &'a [u8]) {}
    fn begin_array(&mut self) {
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

fn place((text, start): (&[u8], usize)) -> Option<Range<u32>> {
    Some(u32::try_from(start).ok()?..u32::try_from(start + text.len()).ok()?)
}

/// By shape: four-digit year, `T`, and a zone. Enough not to promote a number or a word to a timestamp.
fn is_rfc3339(text: &[u8]) -> bool {
    let mark = |at: usize, mark: u8| text.get(at) == Some(&mark);
    (20..=40).contains(&text.len())
        && text[..4].iter().all(u8::is_ascii_digit)
        && mark(4, b'-')
        && mark(7, b'-')
        && (mark(10, b'T') || mark(10, b't'))
        && mark(13, b':')
        && mark(16, b':')
        && (text.ends_with(b"Z") || text.ends_with(b"z") || mark(text.len() - 3, b':'))
}
