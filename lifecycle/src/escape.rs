//! Names and messages that come from outside, made safe to print.
//!
//! SECURITY: a file name, a header or a remote error can hold a line break, an ESC sequence or a bidirectional control
//! character, and with it forge a line of a log or change what a terminal shows (CWE-117, CWE-150, CVE-2021-42574).

use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};
use std::path::Path;

use crate::Ignore as _;

/// Displays `text` with everything that is not plain text written as an escape: `\n`, `\u{1b}`, `\u{202e}`. A backslash
/// stays as it is: the result is for people, and is not parsed again.
pub fn escaped(text: &str) -> Escaped<'_> {
    Escaped(text.into())
}

/// Displays a path in the same way, as far as it is UTF-8.
pub fn escaped_path(path: &Path) -> Escaped<'_> {
    Escaped(path.to_string_lossy())
}

/// A JSON text with what [`is_unsafe`] says written as escapes: C1 controls, line separators and bidirectional controls are legal in
/// JSON's strings, and a terminal or a reader that splits lines would act on them. A reader of JSON finds the same text.
pub fn json(text: &str) -> Cow<'_, str> {
    // White space between tokens; inside of strings it is escaped already, like all of C0.
    let is_harmful = |c: char| is_unsafe(c) && !c.is_ascii_whitespace();
    if !text.contains(is_harmful) {
        return text.into();
    }
    let mut escaped = String::with_capacity(2 * text.len());
    let mut rest = text;
    while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_harmful(*c)) {
        escaped.push_str(&rest[..at]);
        // All of them are in the basic plane: one escape each. Writing to a String cannot fail.
        write!(escaped, "\\u{:04x}", u32::from(c)).ignore();
        rest = &rest[at + c.len_utf8()..];
    }
    escaped.push_str(rest);
    escaped.into()
}

/// Whether `c` is refused in names and escaped in messages: C0 and C1 control characters, DEL, U+2028 and U+2029, and
/// the bidirectional controls of Unicode (UAX #9).
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// See [`escaped`].
#[derive(Debug, Clone)]
pub struct Escaped<'a>(Cow<'a, str>);

impl Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = &*self.0;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_unsafe(*c)) {
            out.write_str(&rest[..at])?;
            for escape in c.escape_default() {
                out.write_char(escape)?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        out.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_and_controls_are_shown() {
        assert_eq!(escaped("año 2026/ü b\\c").to_string(), "año 2026/ü b\\c");
        assert_eq!(escaped("a\nb\u{1b}[2Jc").to_string(), "a\\nb\\u{1b}[2Jc");
        assert_eq!(escaped("\u{9b}31m\u{202e}gpj.exe").to_string(), "\\u{9b}31m\\u{202e}gpj.exe");
        assert_eq!(escaped("\u{2028}").to_string(), "\\u{2028}");
    }

    #[test]
    fn json_says_the_same_in_plain_text() {
        let text = "a\u{85}b\u{9b}2J\u{2028}\u{2029}\u{202e}\u{2066}\u{7f}\n\"\\é";
        let written = serde_json::Value::from(text).to_string();
        assert!(!json(&written).contains(is_unsafe), "{}", json(&written));
        assert_eq!(serde_json::from_str::<String>(&json(&written)).unwrap(), text);
        assert!(matches!(json("{\"a\": \"é\"}\n"), Cow::Borrowed(_)));
    }
}
