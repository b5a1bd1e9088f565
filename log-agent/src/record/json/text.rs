//! Strings: where one ends, whether it is right, and what it says once its escapes are gone.

use super::Reader;

/// A string, as it is written between its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Text<'a> {
    raw: &'a [u8],
    /// Where it begins in the text that was read.
    start: usize,
    escapes: Escapes,
}

/// Whether there are any in a string. As wide as what it stands beside: a [`Text`] is copied for every name and value, and a `bool` would be
/// copied with seven bytes of padding, in pieces that the processor has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
enum Escapes {
    None,
    Some,
}

impl<'a> Text<'a> {
    /// Its bytes; `scratch` is where they are written if they have to be.
    #[inline(always)]
    pub(crate) fn bytes<'b>(&self, scratch: &'b mut Vec<u8>) -> &'b [u8]
    where
        'a: 'b,
    {
        match self.escapes {
            Escapes::None => self.raw,
            Escapes::Some => unescaped(self.raw, scratch),
        }
    }

    /// What is between its quotes, escapes and all, and the beginning of that in the text that was read.
    #[inline(always)]
    pub(crate) fn raw(&self) -> (&'a [u8], usize) {
        (self.raw, self.start)
    }

    /// Its bytes and their beginning in the text that was read, where they stand there as they are.
    #[inline(always)]
    pub(crate) fn plain(&self) -> Option<(&'a [u8], usize)> {
        (self.escapes == Escapes::None).then_some((self.raw, self.start))
    }
}

impl<'a> Reader<'a> {
    /// A string, from behind its first quote to behind its last.
    #[inline(always)]
    pub(super) fn string(&mut self) -> Option<Text<'a>> {
        let start = self.at;
        let mut escapes = Escapes::None;
        let mut at = start;
        loop {
            at = self.marks.next(self.text, at)?;
            match self.text[at] {
                b'"' => {
                    self.at = at + 1;
                    return Some(Text { raw: &self.text[start..at], start, escapes });
                }
                b'\\' => {
                    escapes = Escapes::Some;
                    at += match self.text.get(at + 1)? {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                        b'u' if self.text.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) => 6,
                        _ => return None,
                    };
                }
                _ => return None,
            }
        }
    }
}

/// What a string says of which `raw` is between the quotes.
pub(crate) fn unescape<'b>(raw: &'b [u8], scratch: &'b mut Vec<u8>) -> &'b [u8] {
    if memchr::memchr(b'\\', raw).is_some() { unescaped(raw, scratch) } else { raw }
}

#[cold]
fn unescaped<'b>(raw: &[u8], scratch: &'b mut Vec<u8>) -> &'b [u8] {
    scratch.clear();
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        scratch.extend_from_slice(&rest[..at]);
        let Some((mark, after)) = rest[at + 1..].split_first() else { return scratch };
        rest = after;
        match mark {
            b'n' => scratch.push(b'\n'),
            b't' => scratch.push(b'\t'),
            b'r' => scratch.push(b'\r'),
            b'b' => scratch.push(8),
            b'f' => scratch.push(12),
            b'u' => {
                let (character, after) = unicode(rest);
                scratch.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
            }
            other => scratch.push(*other),
        }
    }
    scratch.extend_from_slice(rest);
    scratch
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
