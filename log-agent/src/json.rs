//! Walks over a JSON text that the parser has already found to be right, and hands over each value where it lies.
//!
//! Nothing is checked twice and nothing is built: a string is a slice of the line, and only one with escapes in it has to be
//! written anew. Should the text be wrong after all, the walk ends, and nobody panics.

/// A place in a text.
#[derive(Debug, Clone)]
pub(crate) struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A value. After an array or an object the walk is inside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    /// An integer that is no `i64`.
    Large(&'a [u8]),
    Float(f64),
    Text(Text<'a>),
    Array,
    Object,
}

/// A string, as it is written between its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Text<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl<'a> Text<'a> {
    /// Its bytes; `scratch` is where they are written if they have to be.
    pub(crate) fn bytes<'b>(&self, scratch: &'b mut Vec<u8>) -> &'b [u8]
    where
        'a: 'b,
    {
        if !self.escaped {
            return self.raw;
        }
        scratch.clear();
        unescape(self.raw, scratch);
        scratch
    }
}

impl<'a> Walk<'a> {
    /// At the beginning of a value.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next value.
    pub(crate) fn value(&mut self) -> Option<Value<'a>> {
        match self.mark()? {
            b'"' => {
                self.at += 1;
                Some(Value::Text(self.text()?))
            }
            b'{' => Some(self.step(1, Value::Object)),
            b'[' => Some(self.step(1, Value::Array)),
            b't' => Some(self.step(4, Value::Bool(true))),
            b'f' => Some(self.step(5, Value::Bool(false))),
            b'n' => Some(self.step(4, Value::Null)),
            _ => self.number(),
        }
    }

    /// In an object: the next name, with the walk before its value; nothing at the end, which is passed.
    pub(crate) fn name(&mut self) -> Option<Text<'a>> {
        if self.mark()? == b',' {
            self.at += 1;
        }
        let mark = self.mark()?;
        self.at += 1;
        if mark != b'"' {
            return None;
        }
        let name = self.text()?;
        // The colon.
        self.mark()?;
        self.at += 1;
        Some(name)
    }

    /// In an array: whether there is another element; the end is passed.
    pub(crate) fn element(&mut self) -> bool {
        if self.mark() == Some(b',') {
            self.at += 1;
        }
        match self.mark() {
            Some(b']') => {
                self.at += 1;
                false
            }
            mark => mark.is_some(),
        }
    }

    /// Passes the rest of the array or object that was just entered, and returns all of it as it is written.
    pub(crate) fn raw(&mut self) -> Option<&'a [u8]> {
        let start = self.at.checked_sub(1)?;
        let mut depth = 1;
        while depth > 0 {
            match self.bytes.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    self.text()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
        }
        self.bytes.get(start..self.at)
    }

    /// How far the walk has come.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Passes a value, and returns it as it is written.
    pub(crate) fn skip(&mut self) -> Option<&'a [u8]> {
        self.mark()?;
        let start = self.at;
        if matches!(self.value()?, Value::Array | Value::Object) {
            self.raw()?;
        }
        self.bytes.get(start..self.at)
    }

    /// The next byte that is not white space.
    fn mark(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if byte > b' ' {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    fn step(&mut self, by: usize, value: Value<'a>) -> Value<'a> {
        self.at += by;
        value
    }

    /// A string, from behind its first quote to behind its last.
    fn text(&mut self) -> Option<Text<'a>> {
        let rest = self.bytes.get(self.at..)?;
        let (mut end, mut escaped) = (0, false);
        loop {
            end += quote_or_backslash(rest.get(end..)?)?;
            if rest[end] == b'"' {
                break;
            }
            escaped = true;
            end += 2;
        }
        self.at += end + 1;
        Some(Text { raw: &rest[..end], escaped })
    }

    fn number(&mut self) -> Option<Value<'a>> {
        let rest = self.bytes.get(self.at..)?;
        let in_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let end = rest.iter().position(|byte| !in_number(byte)).unwrap_or(rest.len());
        let digits = rest.get(..end).filter(|digits| !digits.is_empty())?;
        self.at += end;
        if let Some(number) = small_integer(digits) {
            return Some(Value::Integer(number));
        }
        if let Some(number) = simple_float(digits) {
            return Some(Value::Float(number));
        }
        let text = std::str::from_utf8(digits).ok()?;
        if digits.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
            return text.parse().ok().map(Value::Float);
        }
        Some(text.parse().map_or(Value::Large(digits), Value::Integer))
    }
}

/// Most strings in a log are short: eight bytes are looked at in one step, without the cost of beginning a search that pays
/// only for long ones.
#[inline]
fn quote_or_backslash(bytes: &[u8]) -> Option<usize> {
    let mut words = bytes.chunks_exact(8);
    let mut at = 0;
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().ok()?);
        let found = zero_bytes(word ^ (LOW * 0x22)) | zero_bytes(word ^ (LOW * 0x5c));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = words.remainder().iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    Some(at + rest)
}

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bit of every byte that is zero, exact for the first of them.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(LOW) & !word & HIGH
}

/// A number with few digits and no exponent: its digits as an integer over a power of ten, both exact, so that the one division
/// is what rounds (Clinger 1990).
#[inline]
fn simple_float(digits: &[u8]) -> Option<f64> {
    const TENS: [f64; 16] =
        [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    let (negative, digits) = digits.strip_prefix(b"-").map_or((false, digits), |digits| (true, digits));
    if digits.len() > TENS.len() {
        return None;
    }
    let (mut sum, mut point) = (0_u64, None);
    for (at, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => sum = sum * 10 + u64::from(byte - b'0'),
            b'.' if point.is_none() => point = Some(at),
            _ => return None,
        }
    }
    let decimals = point.map_or(0, |point| digits.len() - 1 - point);
    #[expect(clippy::cast_precision_loss, reason = "at most 15 digits, which an f64 holds exactly")]
    let value = sum as f64 / TENS.get(decimals)?;
    Some(if negative { -value } else { value })
}

/// Up to 18 digits: what cannot overflow.
fn small_integer(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = digits.strip_prefix(b"-").map_or((false, digits), |digits| (true, digits));
    if digits.len() > 18 {
        return None;
    }
    let mut sum = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        sum = sum * 10 + i64::from(digit - b'0');
    }
    Some(if negative { -sum } else { sum })
}

fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let (mark, after) = match rest[at + 1..].split_first() {
            Some((mark, after)) => (*mark, after),
            None => return,
        };
        rest = after;
        match mark {
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'r' => out.push(b'\r'),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'u' => {
                let (character, after) = unicode(rest);
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
            }
            other => out.push(other),
        }
    }
    out.extend_from_slice(rest);
}

/// The character of a `\u`, whose digits `rest` begins with, and what follows; half a pair of surrogates is the
/// replacement character.
fn unicode(rest: &[u8]) -> (char, &[u8]) {
    let Some((first, after)) = hex4(rest) else { return (char::REPLACEMENT_CHARACTER, rest) };
    if !(0xd800..0xdc00).contains(&first) {
        return (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), after);
    }
    if let Some((second, behind)) = after.strip_prefix(b"\\u").and_then(hex4)
        && (0xdc00..0xe000).contains(&second)
    {
        let both = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(both).unwrap_or(char::REPLACEMENT_CHARACTER), behind);
    }
    (char::REPLACEMENT_CHARACTER, after)
}

fn hex4(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, after) = bytes.split_at_checked(4)?;
    Some((u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds what serde_json would, from the walk alone.
    fn build(walk: &mut Walk<'_>) -> Option<serde_json::Value> {
        let mut scratch = Vec::new();
        let owned = |text: Text<'_>| String::from_utf8(text.bytes(&mut Vec::new()).to_vec()).unwrap();
        Some(match walk.value()? {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => value.into(),
            Value::Integer(value) => value.into(),
            Value::Large(digits) => serde_json::from_slice(digits).unwrap(),
            Value::Float(value) => value.into(),
            Value::Text(text) => String::from_utf8(text.bytes(&mut scratch).to_vec()).unwrap().into(),
            Value::Array => {
                let mut array = Vec::new();
                while walk.element() {
                    array.push(build(walk)?);
                }
                array.into()
            }
            Value::Object => {
                let mut object = serde_json::Map::new();
                while let Some(name) = walk.name() {
                    object.insert(owned(name), build(walk)?);
                }
                object.into()
            }
        })
    }

    #[test]
    fn as_serde_json_reads_it() {
        for text in [
            r#"{"a":1,"b":-2.5e3,"c":[true,false,null,[],{}],"d":{"e":"f"}}"#,
            " { \"a\" : [ 1 , 2 ] ,\n\t\"b\":\"\" } ",
            r#"{"s":"a\"b\\c\/d\n\t\r\b\f\u00e9\ud83d\ude00"}"#,
            r#"{"long":"0123456789abcdef0123456789abcdef\\0123456789abcdef","é":"ü"}"#,
            r#"{"i":9223372036854775807,"j":-9223372036854775808,"u":18446744073709551615,"z":-0,"y":0.0}"#,
            "{}",
        ] {
            let expected: serde_json::Value = serde_json::from_str(text).unwrap();
            let found = build(&mut Walk::new(text.as_bytes())).unwrap();
            // -0 is an integer here.
            assert_eq!(found.to_string(), expected.to_string().replace("-0.0", "0"), "{text}");
        }
    }

    #[test]
    fn floats_are_as_the_standard_library_reads_them() {
        for text in [
            "0.000113",
            "-0.5",
            "123456.789012",
            "0.1",
            "9999999999999.9",
            "1.7976931348623157e308",
            "0.30000000000000004",
            "5e-324",
        ] {
            assert_eq!(
                Walk::new(text.as_bytes()).value(),
                Some(Value::Float(text.parse().unwrap())),
                "{text}"
            );
        }
    }

    #[test]
    fn a_string_ends_where_it_ends() {
        for length in 0..40 {
            let text = format!("\"{}\\\"{}\"!\"\"", "x".repeat(length), "\u{e9}y".repeat(length));
            let mut walk = Walk::new(text.as_bytes());
            let Some(Value::Text(found)) = walk.value() else { panic!("{text}") };
            let expected = format!("{}\"{}", "x".repeat(length), "\u{e9}y".repeat(length));
            assert_eq!(found.bytes(&mut Vec::new()), expected.as_bytes());
        }
    }

    #[test]
    fn a_wrong_text_ends_the_walk() {
        for text in [
            "",
            "{",
            r#"{"a"#,
            r#"{"a":"#,
            r#"{"a":"\"#,
            r#"{"a":1"#,
            "x",
            "[1",
            r#"{"a":tr"#,
            r#"{"a":"\u12"}"#,
        ] {
            build(&mut Walk::new(text.as_bytes()));
        }
    }

    #[test]
    fn raw_is_all_of_a_value() {
        let mut walk = Walk::new(br#"{"a":[1,"]",{"b":2}],"c":3}"#);
        assert_eq!(walk.value(), Some(Value::Object));
        walk.name().unwrap();
        assert_eq!(walk.value(), Some(Value::Array));
        assert_eq!(walk.raw(), Some(br#"[1,"]",{"b":2}]"#.as_slice()));
        assert!(walk.name().is_some());
        assert_eq!(walk.value(), Some(Value::Integer(3)));
        assert!(walk.name().is_none());
    }
}
