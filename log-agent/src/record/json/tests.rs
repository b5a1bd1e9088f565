//! Against serde_json, which reads the same text into values.

use serde_json::{Map, Value};

use super::*;

/// Builds what it is told of.
#[derive(Default)]
struct Build {
    open: Vec<(Option<String>, Value)>,
    name: Option<String>,
}

impl Build {
    fn put(&mut self, value: Value) {
        match self.open.last_mut() {
            Some((_, Value::Array(array))) => array.push(value),
            Some((_, Value::Object(object))) => drop(object.insert(self.name.take().unwrap(), value)),
            _ => panic!("nothing is open"),
        }
    }

    fn begin(&mut self, value: Value) {
        self.open.push((self.name.take(), value));
    }

    fn end(&mut self, told: u32) {
        let (name, value) = self.open.pop().unwrap();
        let length = value.as_array().map_or_else(|| value.as_object().unwrap().len(), Vec::len);
        assert_eq!(length, told as usize);
        self.name = name;
        self.put(value);
    }
}

fn owned(text: Text<'_>) -> String {
    String::from_utf8(text.bytes(&mut Vec::new()).to_vec()).unwrap()
}

impl<'a> Visitor<'a> for Build {
    type Open = ();
    fn name(&mut self, name: Text<'a>) {
        self.name = Some(owned(name));
    }
    fn null(&mut self) {
        self.put(Value::Null);
    }
    fn boolean(&mut self, value: bool) {
        self.put(value.into());
    }
    fn number(&mut self, value: Number<'a>) {
        self.put(match value {
            Number::Integer(value) => value.into(),
            Number::Large(digits) => serde_json::from_slice(digits).unwrap(),
            Number::Float(value) => value.into(),
        });
    }
    fn text(&mut self, value: Text<'a>) {
        self.put(owned(value).into());
    }
    fn raw(&mut self, value: &'a [u8]) {
        self.put(serde_json::from_slice(value).unwrap());
    }
    fn begin_array(&mut self) {
        self.begin(Value::Array(Vec::new()));
    }
    fn end_array(&mut self, (): (), elements: u32) {
        self.end(elements);
    }
    fn begin_object(&mut self) {
        self.begin(Value::Object(Map::new()));
    }
    fn end_object(&mut self, (): (), pairs: u32) {
        self.end(pairs);
    }
}

fn read(text: &str) -> Option<Value> {
    let mut build = Build { open: vec![(None, Value::Object(Map::new()))], ..Build::default() };
    object(text.as_bytes(), &mut build)?;
    build.open.pop().map(|(_, value)| value)
}

#[test]
fn as_serde_json_reads_it() {
    for text in [
        r#"{"a":1,"b":-2.5e3,"c":[true,false,null,[],{}],"d":{"e":"f"}}"#,
        " { \"a\" : [ 1 , 2 ] ,\r\n\t\"b\":\"\" } ",
        r#"{"s":"a\"b\\c\/d\n\t\r\b\f\u00e9\ud83d\ude00"}"#,
        r#"{"long":"0123456789abcdef0123456789abcdef\\0123456789abcdef","é":"ü"}"#,
        r#"{"i":9223372036854775807,"j":-9223372036854775808,"u":18446744073709551615,"z":0,"y":0.0}"#,
        r#"{"a":0.000113,"b":-0.5,"c":123456.789012,"d":0.1,"e":9999999999999.9,"f":1E5,"g":1e-7}"#,
        r#"{"a":1.7976931348623157e308,"b":0.30000000000000004,"c":5e-324,"d":123456789012345678}"#,
        "{}",
    ] {
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(read(text), Some(expected), "{text}");
    }
}

/// Around what an `f64` holds exactly, where serde_json rounds otherwise than Rust's standard library.
#[test]
fn a_fraction_is_the_nearest_float() {
    for text in [
        "1515151515.123456",
        "0.9007199254740992",
        "-0.9007199254740993",
        "9007199254740993.0",
        "900719925474099.3",
        "0.123456789012345678",
        "12345678901234567.8901",
    ] {
        let expected: f64 = text.parse().unwrap();
        assert_eq!(read(&format!("{{\"a\":{text}}}")).unwrap()["a"].as_f64(), Some(expected), "{text}");
    }
}

#[test]
fn refused_where_serde_json_refuses() {
    let values = [
        "01",
        "1.",
        ".5",
        "-",
        "+1",
        "1e",
        "1e+",
        "--1",
        "0x1",
        "NaN",
        "tru",
        "truee",
        "nul",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\t\"",
        "\"\u{1f}\"",
        "'a'",
        "[1",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "1}",
        "1,",
        "1]",
        "\u{a0}1",
        "",
    ];
    for value in values {
        for text in
            [format!("{{\"k\":{value}}}"), format!("{{\"long enough for words\":{value}, \"and\":\"more\"}}")]
        {
            assert!(serde_json::from_str::<Value>(&text).is_err(), "{text}");
            assert_eq!(read(&text), None, "{text}");
        }
    }
    for text in ["", "{", "[]", "1", "\"a\"", "{} x", "{}{}", "x{}", "\u{b}{}", "{}\u{c}"] {
        assert_eq!(read(text), None, "{text}");
    }
}

#[test]
fn a_text_that_is_cut_off_anywhere_is_refused() {
    let text = r#"{"timestamp":"2026-11-23","n":[1,-2.5e3,{"a":"b\u00e9"}],"t":true}"#;
    assert!(read(text).is_some());
    for end in 0..text.len() {
        assert_eq!(read(&text[..end]), None, "{}", &text[..end]);
    }
}

#[test]
fn a_string_ends_where_it_ends() {
    // Past the end of two blocks of marks.
    for length in 0..140 {
        for special in ['"', '\\', 'é', '\u{7f}', '\u{80}', ' ', '!'] {
            let inside = format!("{}{special}{}", "x".repeat(length), "é".repeat(length / 2));
            let text = serde_json::json!({ &inside: &inside, "z": inside }).to_string();
            assert_eq!(read(&text), serde_json::from_str(&text).ok(), "{text}");
        }
        let text = format!("{{\"a\":\"{}\u{1}\"}}", "x".repeat(length));
        assert_eq!(read(&text), None, "a control character");
    }
}

#[test]
fn however_deep() {
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let objects = format!("{{\"a\":{}1{}}}", "{\"b\":[".repeat(40), "]}".repeat(40));
    for text in [nested(32), nested(33), nested(100), objects] {
        assert_eq!(read(&text), serde_json::from_str(&text).ok(), "{text}");
    }
    assert!(object(nested(1_000_000).as_bytes(), &mut Ignore).is_some());
    for inside in ["[1 2]", "[1,]", "{\"a\":1,}", "{\"a\" 1}", "{1:1}", "[1}", "{\"a\":[1]]", "[,]", "["] {
        let text = nested(40).replacen("[]", &format!("[{inside}]"), 1);
        assert_eq!(read(&text), None, "{text}");
    }
    for inside in ["[1 , 2]", "{}", "{\"a\":{},\"b\":[]}", "[[],[{}], \"]\"]"] {
        let text = nested(40).replacen("[]", &format!("[{inside}]"), 1);
        assert_eq!(read(&text), serde_json::from_str(&text).ok(), "{text}");
    }
}

#[test]
fn pairs_are_told_as_they_are_written() {
    let text = r#" { "a" : [1, "]"] ,"b":"x\"y","a":{} } "#;
    let found: Vec<_> = pairs(text.as_bytes())
        .map(|pair| {
            let said = pair.text().map(owned);
            let [whole, value] =
                [pair.whole, pair.value].map(|part| std::str::from_utf8(part).unwrap().to_owned());
            (owned(pair.name), whole, value, said)
        })
        .collect();
    let pair = |name: &str, whole: &str, value: &str, said: Option<&str>| {
        (name.to_owned(), whole.to_owned(), value.to_owned(), said.map(str::to_owned))
    };
    let expected = [
        pair("a", r#""a" : [1, "]"]"#, r#"[1, "]"]"#, None),
        pair("b", r#""b":"x\"y""#, r#""x\"y""#, Some("x\"y")),
        pair("a", r#""a":{}"#, "{}", None),
    ];
    assert_eq!(found, expected);
    assert_eq!(pairs(b"{}").count(), 0);
}
