//! Objects in which a name stands twice: RFC 8259 allows them, and most protocols do not.

use std::collections::HashMap;

use super::{DEEPEST, elements, pairs};

/// The text of an object with each name once, on every level: of several fields of one name the last one stays, as with most readers
/// of JSON. Fields of the object itself whose names are in `without` go.
pub(crate) fn unique(object: &[u8], without: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(object.len());
    write_object(object, without, 1, &mut out);
    out
}

fn write(value: &[u8], level: u32, out: &mut Vec<u8>) {
    match value.first() {
        Some(b'{') if level <= DEEPEST => write_object(value, &[], level, out),
        Some(b'[') if level <= DEEPEST => {
            out.push(b'[');
            for (number, element) in elements(value).enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                write(element, level + 1, out);
            }
            out.push(b']');
        }
        _ => out.extend_from_slice(value),
    }
}

fn write_object(object: &[u8], without: &[&[u8]], level: u32, out: &mut Vec<u8>) {
    let name = |text: super::Text<'_>| text.bytes(&mut Vec::new()).to_vec();
    let last: HashMap<_, _> =
        pairs(object).enumerate().map(|(number, pair)| (name(pair.name), number)).collect();
    let start = out.len();
    out.push(b'{');
    for (number, pair) in pairs(object).enumerate() {
        let name = name(pair.name);
        if last.get(&name) != Some(&number) || without.contains(&name.as_slice()) {
            continue;
        }
        if out.len() > start + 1 {
            out.push(b',');
        }
        out.extend_from_slice(pair.before_value());
        write(pair.value, level + 1, out);
    }
    out.push(b'}');
}

/// Tells whether a name was there before, without keeping the names: by their hashes. So it is never wrong that none was.
#[derive(Debug, Default)]
pub(crate) struct SeenNames {
    hashes: Vec<u64>,
    /// Where those of the object begin that is read now.
    object: usize,
    /// Of every hash that was noted, six bits: most names need not be compared with those before.
    marks: u64,
    repeated: bool,
}

/// More names than this are not compared: the caller has to look closely.
const MOST: usize = 128;

impl SeenNames {
    pub(crate) fn clear(&mut self) {
        self.hashes.clear();
        (self.object, self.marks, self.repeated) = (0, 0, false);
    }

    /// Notes a name of the object that is read now.
    #[inline]
    pub(crate) fn note(&mut self, name: &[u8]) {
        let hash = hash(name);
        let mark = 1 << (hash >> 58);
        let before = &self.hashes[self.object..];
        self.repeated |= before.len() >= MOST || (self.marks & mark != 0 && before.contains(&hash));
        self.marks |= mark;
        self.hashes.push(hash);
    }

    /// Some name is not the object's to have.
    pub(crate) fn refuse(&mut self) {
        self.repeated = true;
    }

    /// An object begins within the one that was read; gives what [`SeenNames::end`] wants.
    pub(crate) fn begin(&mut self) -> usize {
        std::mem::replace(&mut self.object, self.hashes.len())
    }

    /// It ends.
    pub(crate) fn end(&mut self, outer: usize) {
        self.hashes.truncate(self.object);
        self.object = outer;
    }

    /// Whether a name may have been there twice.
    pub(crate) fn repeated(&self) -> bool {
        self.repeated
    }
}

#[inline]
fn hash(name: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, word: u64| (sum.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    let (words, rest) = name.as_chunks::<8>();
    let sum = words.iter().fold(name.len() as u64, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    // The end in one word, too: with bytes before it that are in the sum already.
    let rest = match name.last_chunk::<8>() {
        Some(end) => u64::from_le_bytes(*end),
        None => rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    mix(sum, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_name_stays() {
        for (text, expected) in [
            (
                r#"{"a":1,"b":2,"a":{"c":1,"d":[{"x":1,"x":2},3],"c":4}}"#,
                r#"{"b":2,"a":{"d":[{"x":2},3],"c":4}}"#,
            ),
            (r#" { "\u0061" : 1 , "a" : 2.50 } "#, r#"{"a" : 2.50}"#),
            (r#"{"gone":1,"a":{"gone":[]}}"#, r#"{"a":{"gone":[]}}"#),
            ("{}", "{}"),
        ] {
            assert_eq!(String::from_utf8(unique(text.as_bytes(), &[b"gone"])).unwrap(), expected);
        }
    }

    #[test]
    fn repeated_names_are_seen_on_their_level() {
        let mut seen = SeenNames::default();
        seen.note(b"a");
        let outer = seen.begin();
        seen.note(b"a");
        seen.end(outer);
        seen.note(b"http.request.method");
        seen.note(b"http.request.methoD");
        assert!(!seen.repeated());
        seen.note(b"a");
        assert!(seen.repeated());
        seen.clear();
        (0..=MOST).for_each(|number| seen.note(number.to_string().as_bytes()));
        assert!(seen.repeated(), "too many to tell");
    }
}
