//! Our JSON reader next to serde_json and jiter, on lines of an access log and of an application's log: decision 0006.
//!
//! ```text
//! cargo run --release --manifest-path benches/json/Cargo.toml
//! ```
//!
//! Each reader does what the agent does with a line: first it checks that the line is one object and finds three of its fields; then it
//! hands over every name and every value of it, with its type, to an encoder, for which stands a sum here. The readers take turns, so that
//! what else the machine does hits all of them; the figure is the best of the turns.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

#[allow(dead_code, unused_imports, unreachable_pub, clippy::all, clippy::pedantic)]
#[path = "../../../log-agent/src/record/json/mod.rs"]
mod json;
mod lines;

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::Hasher as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use jiter::{Jiter, Peek};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use self::lines::{ACCESS, APPLICATION};

const ROUNDS: usize = 40;
const LINES: usize = 2000;

/// What an encoder would write, so that no reader can leave anything out.
#[derive(Default)]
struct Sum(u64);

impl Sum {
    fn text(&mut self, text: &[u8]) {
        // The length and the ends: the same little for each reader.
        let ends = text
            .first()
            .zip(text.last())
            .map_or(0, |(first, last)| u64::from(*first) << 8 | u64::from(*last));
        self.0 = self.0.wrapping_mul(31).wrapping_add(ends ^ text.len() as u64);
    }
    fn number(&mut self, bits: u64) {
        self.0 = self.0.wrapping_mul(31).wrapping_add(bits);
    }
}

trait Reader {
    /// Checks a line, and finds three fields.
    fn find(&mut self, line: &[u8]) -> u64;
    /// Hands over everything.
    fn walk(&mut self, line: &[u8]) -> u64;
}

#[derive(Default)]
struct Ours {
    scratch: Vec<u8>,
}

struct OursFind<'a> {
    name: &'a [u8],
    level: u32,
    found: [usize; 3],
}

impl<'a> json::Visitor<'a> for OursFind<'a> {
    type Open = ();
    #[inline]
    fn name(&mut self, name: json::Text<'a>) {
        self.name = name.plain().map_or(b"", |(name, _)| name);
    }
    #[inline]
    fn text(&mut self, value: json::Text<'a>) {
        if self.level == 0 {
            match self.name {
                b"timestamp" | b"ts" => self.found[0] = value.plain().map_or(0, |(_, at)| at),
                b"level" => self.found[1] = value.plain().map_or(0, |(_, at)| at),
                _ => {}
            }
        }
    }
    #[inline]
    fn number(&mut self, value: json::Number<'a>) {
        if self.level == 0
            && self.name == b"http.response.status_code"
            && let json::Number::Integer(status) = value
        {
            self.found[2] = usize::try_from(status).unwrap_or(0);
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

struct OursWalk<'b> {
    sum: Sum,
    scratch: &'b mut Vec<u8>,
}

impl<'a> json::Visitor<'a> for OursWalk<'_> {
    type Open = ();
    #[inline]
    fn name(&mut self, name: json::Text<'a>) {
        self.sum.text(name.bytes(self.scratch));
    }
    #[inline]
    fn text(&mut self, value: json::Text<'a>) {
        self.sum.text(value.bytes(self.scratch));
    }
    #[inline]
    fn number(&mut self, value: json::Number<'a>) {
        match value {
            json::Number::Integer(value) => self.sum.number(value.cast_unsigned()),
            json::Number::Float(value) => self.sum.number(value.to_bits()),
            json::Number::Large(digits) => self.sum.text(digits),
        }
    }
    fn null(&mut self) {
        self.sum.number(0);
    }
    fn boolean(&mut self, value: bool) {
        self.sum.number(u64::from(value));
    }
    fn raw(&mut self, value: &'a [u8]) {
        self.sum.text(value);
    }
    fn begin_array(&mut self) {}
    fn end_array(&mut self, (): (), _: u32) {}
    fn begin_object(&mut self) {}
    fn end_object(&mut self, (): (), _: u32) {}
}

impl Reader for Ours {
    fn find(&mut self, line: &[u8]) -> u64 {
        // The reader leaves it to its caller to look at the encoding; the others look themselves.
        std::str::from_utf8(line).unwrap();
        let mut finder = OursFind { name: b"", level: 0, found: [0; 3] };
        json::object(line, &mut finder).unwrap();
        finder.found.iter().sum::<usize>() as u64
    }
    fn walk(&mut self, line: &[u8]) -> u64 {
        let mut walk = OursWalk { sum: Sum::default(), scratch: &mut self.scratch };
        json::object(line, &mut walk).unwrap();
        walk.sum.0
    }
}

/// serde_json with a visitor: nothing is built.
struct Serde;

struct SerdeFind;

impl<'de> Visitor<'de> for SerdeFind {
    type Value = u64;
    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u64, A::Error> {
        let mut found = 0;
        // Borrowed where there is no escape, as with ours.
        while let Some(Name(name)) = map.next_key()? {
            match name.as_ref() {
                "timestamp" | "level" => found += map.next_value::<Name<'_>>()?.0.len() as u64,
                "http.response.status_code" => found += map.next_value::<u64>()?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

struct Name<'a>(std::borrow::Cow<'a, str>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Name<'de>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(text.into()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(text.to_owned().into()))
            }
        }
        deserializer.deserialize_str(Borrow)
    }
}

struct SerdeWalk<'b>(&'b mut Sum);

impl<'de> DeserializeSeed<'de> for SerdeWalk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for SerdeWalk<'_> {
    type Value = ();
    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.number(0);
        Ok(())
    }
    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.number(u64::from(value));
        Ok(())
    }
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.number(value.cast_unsigned());
        Ok(())
    }
    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.number(value);
        Ok(())
    }
    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.number(value.to_bits());
        Ok(())
    }
    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.0.text(value.as_bytes());
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(SerdeWalk(self.0))?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key_seed(SerdeWalk(self.0))?.is_some() {
            map.next_value_seed(SerdeWalk(self.0))?;
        }
        Ok(())
    }
}

impl Reader for Serde {
    fn find(&mut self, line: &[u8]) -> u64 {
        let text = std::str::from_utf8(line).unwrap();
        serde_json::Deserializer::from_str(text).deserialize_map(SerdeFind).unwrap()
    }
    fn walk(&mut self, line: &[u8]) -> u64 {
        let mut sum = Sum::default();
        // From text, so that the encoding is not checked a second time.
        let text = std::str::from_utf8(line).unwrap();
        SerdeWalk(&mut sum).deserialize(&mut serde_json::Deserializer::from_str(text)).unwrap();
        sum.0
    }
}

/// serde_json as it would have to be used to promise what ours promises: a number keeps its digits and a string the place of its text,
/// escapes and all, so every value is found as it is written before it is read.
struct Raw;

fn raw_walk(value: &RawValue, sum: &mut Sum) {
    let text = value.get();
    match text.as_bytes()[0] {
        b'{' => serde_json::Deserializer::from_str(text).deserialize_map(RawPairs(sum)).unwrap(),
        b'[' => serde_json::Deserializer::from_str(text).deserialize_seq(RawElements(sum)).unwrap(),
        b'"' => sum.text(serde_json::from_str::<Name<'_>>(text).unwrap().0.as_bytes()),
        b't' | b'f' => sum.number(u64::from(text == "true")),
        b'n' => sum.number(0),
        _ => written_number(text, sum),
    }
}

struct RawPairs<'b>(&'b mut Sum);

impl<'de> Visitor<'de> for RawPairs<'_> {
    type Value = ();
    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((Name(name), value)) = map.next_entry::<Name<'_>, &RawValue>()? {
            self.0.text(name.as_bytes());
            raw_walk(value, self.0);
        }
        Ok(())
    }
}

struct RawElements<'b>(&'b mut Sum);

impl<'de> Visitor<'de> for RawElements<'_> {
    type Value = ();
    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an array")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(value) = seq.next_element::<&RawValue>()? {
            raw_walk(value, self.0);
        }
        Ok(())
    }
}

impl Reader for Raw {
    fn find(&mut self, line: &[u8]) -> u64 {
        Serde.find(line)
    }
    fn walk(&mut self, line: &[u8]) -> u64 {
        let mut sum = Sum::default();
        let text = std::str::from_utf8(line).unwrap();
        serde_json::Deserializer::from_str(text).deserialize_map(RawPairs(&mut sum)).unwrap();
        sum.0
    }
}

/// jiter, with what it makes of a number: one beyond 64 bits is rounded.
struct JiterReader;

/// jiter as it would have to be used to promise what ours promises: every number is handed over as it is written, and read here.
struct JiterDigits;

fn jiter_walk(reader: &mut Jiter<'_>, peek: Peek, sum: &mut Sum, number: fn(&mut Jiter<'_>, Peek, &mut Sum)) {
    match peek {
        Peek::Null => {
            reader.known_null().unwrap();
            sum.number(0);
        }
        Peek::True | Peek::False => sum.number(u64::from(reader.known_bool(peek).unwrap())),
        Peek::String => sum.text(reader.known_str().unwrap().as_bytes()),
        Peek::Array => {
            let mut next = reader.known_array().unwrap();
            while let Some(peek) = next {
                jiter_walk(reader, peek, sum, number);
                next = reader.array_step().unwrap();
            }
        }
        Peek::Object => {
            let mut next = reader.known_object().unwrap().map(str::len);
            while let Some(length) = next {
                sum.number(length as u64);
                let peek = reader.peek().unwrap();
                jiter_walk(reader, peek, sum, number);
                next = reader.next_key().unwrap().map(str::len);
            }
        }
        _ => number(reader, peek, sum),
    }
}

fn jiter_number(reader: &mut Jiter<'_>, peek: Peek, sum: &mut Sum) {
    match reader.known_number(peek).unwrap() {
        jiter::NumberAny::Int(jiter::NumberInt::Int(value)) => sum.number(value.cast_unsigned()),
        jiter::NumberAny::Float(value) => sum.number(value.to_bits()),
    }
}

fn jiter_digits(reader: &mut Jiter<'_>, peek: Peek, sum: &mut Sum) {
    written_number(std::str::from_utf8(reader.known_number_bytes(peek).unwrap()).unwrap(), sum);
}

/// A number, from how it is written.
fn written_number(text: &str, sum: &mut Sum) {
    match (text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(value), _) => sum.number(value.cast_unsigned()),
        (_, Ok(value)) if value.is_finite() => sum.number(value.to_bits()),
        _ => sum.text(text.as_bytes()),
    }
}

impl Reader for JiterReader {
    fn find(&mut self, line: &[u8]) -> u64 {
        let mut reader = Jiter::new(line);
        let mut found = 0;
        let mut next = reader.next_object().unwrap().map(which);
        while let Some(wanted) = next {
            match wanted {
                Wanted::Text => found += reader.next_str().unwrap().len() as u64,
                Wanted::Number => {
                    let jiter::NumberInt::Int(status) = reader.next_int().unwrap();
                    found += status.cast_unsigned();
                }
                Wanted::Nothing => reader.next_skip().unwrap(),
            }
            next = reader.next_key().unwrap().map(which);
        }
        reader.finish().unwrap();
        found
    }
    fn walk(&mut self, line: &[u8]) -> u64 {
        jiter_line(line, jiter_number)
    }
}

impl Reader for JiterDigits {
    fn find(&mut self, line: &[u8]) -> u64 {
        JiterReader.find(line)
    }
    fn walk(&mut self, line: &[u8]) -> u64 {
        jiter_line(line, jiter_digits)
    }
}

fn jiter_line(line: &[u8], number: fn(&mut Jiter<'_>, Peek, &mut Sum)) -> u64 {
    let (mut reader, mut sum) = (Jiter::new(line), Sum::default());
    let peek = reader.peek().unwrap();
    jiter_walk(&mut reader, peek, &mut sum, number);
    reader.finish().unwrap();
    sum.0
}

enum Wanted {
    Text,
    Number,
    Nothing,
}

fn which(name: &str) -> Wanted {
    match name {
        "timestamp" | "level" => Wanted::Text,
        "http.response.status_code" => Wanted::Number,
        _ => Wanted::Nothing,
    }
}

/// The best time of a line, for finding and for walking.
fn measure(reader: &mut dyn Reader, line: &str) -> (Duration, Duration) {
    let mut turn = |work: &mut dyn FnMut(&mut dyn Reader) -> u64| {
        let began = Instant::now();
        let mut hash = DefaultHasher::new();
        for _ in 0..LINES {
            hash.write_u64(work(reader));
        }
        black_box(hash.finish());
        began.elapsed() / u32::try_from(LINES).unwrap()
    };
    let find = turn(&mut |reader| reader.find(black_box(line.as_bytes())));
    let walk = turn(&mut |reader| reader.walk(black_box(line.as_bytes())));
    (find, walk)
}

fn main() {
    for (what, line) in [("access log", ACCESS), ("application", APPLICATION)] {
        println!("{what}, {} bytes a line", line.len());
        let mut readers: [(&str, Box<dyn Reader>); 5] = [
            ("ours", Box::new(Ours::default())),
            ("serde_json", Box::new(Serde)),
            ("RawValue", Box::new(Raw)),
            ("jiter", Box::new(JiterReader)),
            ("jiter, digits", Box::new(JiterDigits)),
        ];
        let mut best = [(Duration::MAX, Duration::MAX); 5];
        for _ in 0..ROUNDS {
            for ((_, reader), best) in readers.iter_mut().zip(&mut best) {
                let (find, walk) = measure(reader.as_mut(), line);
                *best = (best.0.min(find), best.1.min(walk));
            }
        }
        let ours = best[0].0 + best[0].1;
        for ((name, _), (find, walk)) in readers.iter().zip(best) {
            let times = (find + walk).as_secs_f64() / ours.as_secs_f64();
            println!(
                "  {name:13} find {find:>7.0?}  walk {walk:>7.0?}  both {:>7.0?}  {times:.2} times ours",
                find + walk
            );
        }
    }
}
