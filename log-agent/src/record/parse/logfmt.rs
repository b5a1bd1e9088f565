//! logfmt: `level=info msg="it went well" took=1.5 cached`, as the object that it stands for. Every value keeps its spelling.

use serde_json::{Map, Value};

/// Reads pairs of names and values; a name alone is true. Numbers, `true` and `false` keep their types unless quoted. What would be
/// another text as a number is no number: the version 1.10, or an id of more digits than numbers have.
pub(super) fn parse(line: &str) -> Option<Map<String, Value>> {
    let mut object = Map::new();
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
                value
            }
            Some(after) => {
                let end = after.find(' ').unwrap_or(after.len());
                rest = &after[end..];
                plain(&after[..end])
            }
            None => Value::Bool(true),
        };
        object.insert(name.to_owned(), value);
        rest = rest.trim_start();
    }
    // Words without a single value are a sentence, not logfmt.
    line.contains('=').then_some(object)
}

fn plain(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ Value::Bool(_)) => value,
        // An integer has only one spelling.
        Ok(Value::Number(number)) if !number.is_f64() || number.to_string() == text => Value::Number(number),
        _ => Value::from(text),
    }
}

/// A quoted value is a JSON string, escapes and all.
fn quoted(text: &str) -> Option<(Value, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let value = values.next()?.ok()?;
    let rest = &text[values.byte_offset()..];
    (rest.is_empty() || rest.starts_with(' ')).then(|| (Value::from(value), rest))
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
        assert_eq!(Value::from(parse(line).unwrap()), expected);
    }

    #[test]
    fn a_value_keeps_its_spelling() {
        for text in ["1.10", "1234e56", "12345678901234567890123", "1e5", "-0", "1.0e1"] {
            assert_eq!(parse(&format!("x={text}")).unwrap()["x"], text);
        }
        for text in ["18446744073709551615", "-9223372036854775808", "0", "1.5", "1.0", "0.001"] {
            let value = &parse(&format!("x={text}")).unwrap()["x"];
            assert!(value.is_number(), "{text}: {value:?}");
            assert_eq!(value.to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_no_logfmt() {
        for line in ["", "just a sentence", "=x", r#"a="open"#, r#"a="b"c"#, r#""a"=b"#] {
            assert!(parse(line).is_none(), "{line}");
        }
    }
}
