//! logfmt: `level=info msg="it went well" took=1.5 cached`, as the object that it stands for.

use serde_json::{Map, Value};

/// Reads pairs of names and values; a name alone is true. Numbers, `true` and `false` keep their types unless quoted.
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
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
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
    fn anything_else_is_no_logfmt() {
        for line in ["", "just a sentence", "=x", r#"a="open"#, r#"a="b"c"#, r#""a"=b"#] {
            assert!(parse(line).is_none(), "{line}");
        }
    }
}
