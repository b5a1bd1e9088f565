//! What is left out of records, or changed in them, because the user said so: fields that are not needed, fields that no receiver may
//! see, lines that say nothing.
//!
//! What stays, stays byte for byte. Only objects have fields; text is shipped as it is. A line that should have had fields and cannot
//! be read may hold a secret in one of them: where fields are redacted, its text is withheld.

use std::borrow::Cow;
use std::str::FromStr;

use crate::record::json;
use crate::record::parse::{self, FieldNames, Parsed};

/// In the place of a redacted value.
const REDACTED: &[u8] = b"\"REDACTED\"";
/// In the place of a text that may have such a value in it.
const WITHHELD: &[u8] = b"REDACTED";

/// One `--drop`: a field and the value that makes its line not worth shipping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Match {
    field: String,
    value: String,
}

impl FromStr for Match {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((field, value)) if !field.is_empty() => {
                Ok(Self { field: field.to_owned(), value: value.to_owned() })
            }
            _ => Err("write it like url.path=/health".to_owned()),
        }
    }
}

/// All that the user said.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct Filter {
    /// Field of every record that is left out
    #[arg(long = "drop-field", value_name = "FIELD", value_delimiter = ',')]
    pub(crate) drop_fields: Vec<String>,

    /// Field of every record whose value is replaced by REDACTED, as is the whole text of a line whose fields cannot be read
    #[arg(long = "redact-field", value_name = "FIELD", value_delimiter = ',')]
    pub(crate) redact_fields: Vec<String>,

    /// Lines that are not shipped, such as url.path=/health; counted in log_agent_lost_bytes_total
    #[arg(long = "drop", value_name = "FIELD=VALUE")]
    pub(crate) drops: Vec<Match>,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filtered<'a> {
    /// It is shipped, like this.
    Keep(Parsed, Cow<'a, [u8]>),
    /// It is left out.
    Drop,
}

impl Filter {
    /// Shapes a line.
    pub(crate) fn apply<'a>(&self, parsed: Parsed, text: Cow<'a, [u8]>, names: &FieldNames) -> Filtered<'a> {
        // SECURITY: not UTF-8, or cut, or not well formed, an object has its fields all the same.
        if matches!(parsed, Parsed::Bad(_)) && !self.redact_fields.is_empty() {
            return Filtered::Keep(parsed, Cow::Borrowed(WITHHELD));
        }
        let is_object = matches!(parsed, Parsed::Object(_));
        if is_object && !self.drops.is_empty() && self.leaves_out(&text) {
            return Filtered::Drop;
        }
        if !is_object || (self.drop_fields.is_empty() && self.redact_fields.is_empty()) {
            return Filtered::Keep(parsed, text);
        }
        let rewritten = String::from_utf8(self.rewrite(&text)).ok();
        match rewritten.map(|text| (parse::fields::object(&text, names), text)) {
            Some((Some(fields), text)) => {
                Filtered::Keep(Parsed::Object(fields), Cow::Owned(text.into_bytes()))
            }
            // Cannot be: the line was one object. Should it, what may be secret is not shipped.
            _ => Filtered::Drop,
        }
    }

    fn leaves_out(&self, text: &[u8]) -> bool {
        let (mut names, mut values) = (Vec::new(), Vec::new());
        json::pairs(text).any(|pair| {
            let name = pair.name.bytes(&mut names);
            let value = match pair.text() {
                Some(text) => text.bytes(&mut values),
                None => pair.value,
            };
            self.drops.iter().any(|one| one.field.as_bytes() == name && one.value.as_bytes() == value)
        })
    }

    fn rewrite(&self, text: &[u8]) -> Vec<u8> {
        let mut names = Vec::new();
        let mut out = Vec::with_capacity(text.len());
        out.push(b'{');
        for pair in json::pairs(text) {
            let name = pair.name.bytes(&mut names);
            let is_in = |fields: &[String]| fields.iter().any(|field| field.as_bytes() == name);
            if is_in(&self.drop_fields) {
                continue;
            }
            if out.len() > 1 {
                out.push(b',');
            }
            if is_in(&self.redact_fields) {
                out.extend_from_slice(pair.before_value());
                out.extend_from_slice(REDACTED);
            } else {
                out.extend_from_slice(pair.whole);
            }
        }
        out.push(b'}');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::parse::{FieldNames, Format};

    fn shaped(shape: &Filter, line: &str) -> Option<String> {
        let names = FieldNames::default();
        let (parsed, text) = Format::Auto.parse(line.as_bytes(), &names);
        match shape.apply(parsed, text, &names) {
            Filtered::Keep(_, text) => Some(String::from_utf8(text.into_owned()).unwrap()),
            Filtered::Drop => None,
        }
    }

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn fields_are_left_out_and_redacted_and_the_rest_is_as_it_was() {
        let shape = Filter { drop_fields: words("a e"), redact_fields: words("c"), drops: Vec::new() };
        for (line, expected) in [
            (
                r#"{"a":1,"b":1.50,"c":"s","d":[{"a":2}],"e":{}}"#,
                r#"{"b":1.50,"c":"REDACTED","d":[{"a":2}]}"#,
            ),
            (r#" { "b" : 1 , "a" : 2 , "c" : {"x":[1]} } "#, r#"{"b" : 1,"c" : "REDACTED"}"#),
            (r#"{"a":1}"#, "{}"),
            (r#"{"\u0061":1,"b":2}"#, r#"{"b":2}"#),
            ("no object", "no object"),
        ] {
            assert_eq!(shaped(&shape, line).as_deref(), Some(expected));
        }
    }

    #[test]
    fn where_fields_are_redacted_a_line_whose_fields_cannot_be_read_is_withheld() {
        let names = FieldNames::default();
        let redacting = Filter { redact_fields: words("password"), ..Filter::default() };
        for (format, line) in [
            (Format::Auto, &b"{\"password\":\"s\",\"a\":\"\xff\"}"[..]),
            (Format::Auto, br#"{"password":"s","a":"cut off"#),
            (Format::Cri, br#"{"password":"s","a":"cut off"#),
            (Format::Logfmt, br#"password=s a="cut off"#),
        ] {
            let (parsed, text) = format.parse(line, &names);
            let Filtered::Keep(parsed, text) = redacting.apply(parsed, text, &names) else { panic!() };
            assert_eq!(&*text, b"REDACTED", "{}", line.escape_ascii());
            assert!(matches!(parsed, Parsed::Bad(_)), "and its record says why");
        }
        let dropping = Filter { drop_fields: words("password"), ..Filter::default() };
        for shape in [&dropping, &Filter::default()] {
            assert_eq!(shaped(shape, "{broken").as_deref(), Some("{broken"));
        }
    }

    #[test]
    fn lines_are_left_out_by_what_a_field_says() {
        let drops = vec![
            "url.path=/health".parse().unwrap(),
            "n=204".parse().unwrap(),
            "url.path=/b".parse().unwrap(),
        ];
        let shape = Filter { drops, ..Filter::default() };
        for left_out in [r#"{"url.path":"/health"}"#, r#"{"x":1,"n": 204 }"#, r#"{"url.path":"\/b"}"#] {
            assert_eq!(shaped(&shape, left_out), None, "{left_out}");
        }
        for kept in [r#"{"url.path":"/healthy"}"#, r#"{"n":2040}"#, r#"{"map":{"n":204}}"#, "n=204"] {
            assert!(shaped(&shape, kept).is_some(), "{kept}");
        }
        assert!("x".parse::<Match>().is_err());
    }
}
