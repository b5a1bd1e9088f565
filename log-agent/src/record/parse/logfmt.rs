//! logfmt: `level=info msg="it went well" took=1.5 cached`, as the object that it stands for. Every value keeps its spelling.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde_json::Value;

/// Reads pairs of names and values, and writes them as a JSON object; a name alone is true. What JSON has a number for is one, spelled
/// as it is, and `true` and `false` keep their type, unless quoted: the form of a value decides, so that a field has the same type in
/// each record.
pub(super) fn parse(line: &str) -> Option<String> {
    let mut fields = BTreeMap::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let end = rest.find(['=', ' ']).unwrap_or(rest.len());
        let name = &rest[..end];
        if name.is_empty() || name.contains('"') {
            return None;
        }
        rest = &rest[end..];
        let value = match rest.strip_prefix('=') {
            Some(after) if after.starts_with('"') => {
                let (value, after) = quoted(after)?;
                rest = after;
                value.into()
            }
            Some(after) => {
                let end = after.find(' ').unwrap_or(after.len());
                rest = &after[end..];
                plain(&after[..end])
            }
            None => "true".into(),
        };
        fields.insert(name, value);
        rest = rest.trim_start();
    }
    // Words without a single value are a sentence, not logfmt.
    line.contains('=').then(|| object(&fields))
}

/// The object with these fields, whose values are JSON.
fn object(fields: &BTreeMap<&str, Cow<'_, str>>) -> String {
    let pairs: Vec<_> = fields.iter().map(|(name, value)| format!("{}:{value}", json(name))).collect();
    format!("{{{}}}", pairs.join(","))
}

/// A text as a JSON string.
fn json(text: &str) -> String {
    Value::from(text).to_string()
}

fn plain(text: &str) -> Cow<'_, str> {
    let is_number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && text.ends_with(|last: char| last.is_ascii_digit())
        && serde_json::from_str::<IgnoredAny>(text).is_ok();
    if is_number || matches!(text, "true" | "false") { text.into() } else { json(text).into() }
}

/// A quoted value is a JSON string, escapes and all.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
    values.next()?.ok()?;
    let (value, rest) = text.split_at(values.byte_offset());
    (rest.is_empty() || rest.starts_with(' ')).then_some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pairs_become_typed_fields() {
        let line = r#"level=info msg="it \"went\" well" took=1.5 n=-3 ok=true id="7" at=10s cached empty="#;
        let expected = json!({
            "level": "info", "msg": "it \"went\" well", "took": 1.5, "n": -3, "ok": true, "id": "7", "at": "10s",
            "cached": true, "empty": "",
        });
        assert_eq!(serde_json::from_str::<Value>(&parse(line).unwrap()).unwrap(), expected);
    }

    #[test]
    fn a_value_keeps_its_spelling_and_its_form_decides_its_type() {
        for text in ["0.250", "0.251", "1.10", "1e-05", "1234e56", "12345678901234567890123", "1e999", "-0"] {
            assert_eq!(parse(&format!("x={text}")).unwrap(), format!(r#"{{"x":{text}}}"#));
        }
        for text in ["007", "1.", ".5", "+1", "1e", "-", "1.2.3", "0x1f", "NaN", "null", "1\t"] {
            let quoted = format!(r#"{{"x":{}}}"#, json(text));
            assert_eq!(parse(&format!("x={text} y=")).unwrap().replace(r#","y":"""#, ""), quoted);
        }
    }

    #[test]
    fn names_and_quoted_values_are_written_as_they_are() {
        assert_eq!(parse(r#"b\c="\u00e9\n" a=1 a=2"#).unwrap(), r#"{"a":2,"b\\c":"\u00e9\n"}"#);
    }

    #[test]
    fn anything_else_is_no_logfmt() {
        for line in ["", "just a sentence", "=x", r#"a="open"#, r#"a="b"c"#, r#""a"=b"#] {
            assert!(parse(line).is_none(), "{line}");
        }
    }
}
