//! Reads JSON: checks a line and hands over each value where it lies, in one pass.
//!
//! Nothing is built on the way. A string is a slice of the line, and only one with escapes in it has to be copied. Who wants
//! the values says what becomes of each ([`Visitor`]): an encoder writes them down as it is told of them, [`Ignore`] is for who only
//! wants to know whether the text is right. The compiler makes a reader of its own for each, so that what is not asked for is not computed.
//!
//! The text has to be UTF-8, which callers have checked. Everything else of RFC 8259 is checked here.

#![expect(clippy::inline_always, reason = "measured: calls between these steps cost as much as the steps")]

mod marks;
mod number;
mod text;
mod unique;

use std::ops::Range;

use marks::Marks;
pub(crate) use number::Number;
pub(crate) use text::{Text, unescape};
pub(crate) use unique::{SeenNames, unique};

/// Nested deeper, an array or an object is told as the text that it is.
const DEEPEST: u32 = 32;

/// What becomes of the values, where anything does. In an object each is told after its name.
pub(crate) trait Visitor<'a> {
    /// What an array or an object that was begun is remembered by.
    type Open;

    fn name(&mut self, _: Text<'a>) {}
    fn null(&mut self) {}
    fn boolean(&mut self, _: bool) {}
    fn number(&mut self, _: Number<'a>) {}
    fn text(&mut self, _: Text<'a>) {}
    /// An array or an object, as it is written.
    fn raw(&mut self, _: &'a [u8]) {}
    fn begin_array(&mut self) -> Self::Open;
    fn end_array(&mut self, _: Self::Open, _elements: u32) {}
    fn begin_object(&mut self) -> Self::Open;
    fn end_object(&mut self, _: Self::Open, _pairs: u32) {}
}

/// Discards values.
pub(crate) struct Ignore;

impl Visitor<'_> for Ignore {
    type Open = ();
    fn begin_array(&mut self) {}
    fn begin_object(&mut self) {}
}

/// Reads a text that is one object: tells its pairs, and how many they were; nothing where the text is anything else, of which some
/// may have been told by then.
pub(crate) fn object<'a>(text: &'a [u8], out: &mut impl Visitor<'a>) -> Option<u32> {
    let mut reader = Reader::new(text, 0);
    if reader.peek()? != b'{' {
        return None;
    }
    reader.at += 1;
    let (behind, pairs) = reader.pairs(out, 1)?;
    reader.at = behind;
    reader.peek().is_none().then_some(pairs)
}

pub(crate) struct Pair<'a> {
    pub(crate) name: Text<'a>,
    /// From the name's quote to the value's end.
    pub(crate) whole: &'a [u8],
    /// As it is written.
    pub(crate) value: &'a [u8],
}

impl<'a> Pair<'a> {
    /// What is before the value: the name and the colon.
    pub(crate) fn before_value(&self) -> &'a [u8] {
        &self.whole[..self.whole.len() - self.value.len()]
    }

    /// The value, where it is a string.
    pub(crate) fn text(&self) -> Option<Text<'a>> {
        let mut reader = Reader::new(self.value, 1);
        if self.value.first() == Some(&b'"') { reader.string() } else { None }
    }
}

/// The pairs of a text that is one object, down to whatever is wrong in it.
pub(crate) fn pairs(text: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    let mut reader = Reader::new(text, 0);
    std::iter::from_fn(move || {
        // The bracket before the first, the comma before the others.
        matches!(reader.peek()?, b'{' | b',').then(|| reader.at += 1)?;
        reader.peek()?;
        let start = reader.at;
        let name = reader.name()?;
        reader.peek()?;
        let value = reader.at;
        reader.value(&mut Ignore, 1)?;
        let slice = |range: Range<usize>| text.get(range).unwrap_or_default();
        Some(Pair { name, whole: slice(start..reader.at), value: slice(value..reader.at) })
    })
}

/// The elements of a text that is one array, as they are written, down to whatever is wrong in it.
fn elements(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut reader = Reader::new(text, 0);
    std::iter::from_fn(move || {
        matches!(reader.peek()?, b'[' | b',').then(|| reader.at += 1)?;
        reader.peek()?;
        let start = reader.at;
        reader.value(&mut Ignore, 1)?;
        text.get(start..reader.at)
    })
}

/// Handed on by value, so that it stays in registers from one value to the next.
#[derive(Clone, Copy)]
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    marks: Marks,
}

impl<'a> Reader<'a> {
    fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at, marks: Marks::NONE }
    }

    /// The next byte that is not white space.
    #[inline(always)]
    fn peek(&mut self) -> Option<u8> {
        let byte = *self.text.get(self.at)?;
        if byte > b' ' {
            return Some(byte);
        }
        self.at = behind_space(self.text, self.at);
        self.text.get(self.at).copied()
    }

    /// A value; `level` is how deep an array or an object here would be.
    #[inline(always)]
    fn value<W: Visitor<'a>>(&mut self, out: &mut W, level: u32) -> Option<()> {
        match self.peek()? {
            b'"' => {
                self.at += 1;
                out.text(self.string()?);
            }
            b'{' | b'[' => self.at = nested(self.text, self.at, out, level)?,
            b't' => {
                self.literal(b"true")?;
                out.boolean(true);
            }
            b'f' => {
                self.literal(b"false")?;
                out.boolean(false);
            }
            b'n' => {
                self.literal(b"null")?;
                out.null();
            }
            _ => out.number(self.number()?),
        }
        Some(())
    }

    fn literal(&mut self, word: &[u8]) -> Option<()> {
        self.text.get(self.at..)?.starts_with(word).then(|| self.at += word.len())
    }

    /// Passes an array or an object, however deep it is: on a stack of its own, of closing brackets.
    fn skip(&mut self) -> Option<()> {
        let mut open = Vec::new();
        loop {
            let close = match self.peek()? {
                b'{' => b'}',
                b'[' => b']',
                _ => 0,
            };
            if close == 0 {
                self.value(&mut Ignore, 0)?;
            } else {
                self.at += 1;
                if self.peek()? == close {
                    self.at += 1;
                } else {
                    open.push(close);
                    if close == b'}' {
                        self.name()?;
                    }
                    continue;
                }
            }
            // Behind a value: whatever ends with it, then on to the next.
            loop {
                let Some(close) = open.last().copied() else { return Some(()) };
                match self.peek()? {
                    b',' => {
                        self.at += 1;
                        if close == b'}' {
                            self.peek()?;
                            self.name()?;
                        }
                        break;
                    }
                    mark if mark == close => {
                        self.at += 1;
                        open.pop();
                    }
                    _ => return None,
                }
            }
        }
    }

    /// From behind an object's first bracket to behind its last.
    fn pairs<W: Visitor<'a>>(mut self, out: &mut W, level: u32) -> Option<(usize, u32)> {
        if self.peek()? == b'}' {
            self.at += 1;
            return Some((self.at, 0));
        }
        let mut count = 0;
        loop {
            self.peek()?;
            out.name(self.name()?);
            self.value(out, level)?;
            count += 1;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Some((self.at, count));
                }
                _ => return None,
            }
        }
    }

    /// A name, from its first quote to behind its colon.
    #[inline(always)]
    fn name(&mut self) -> Option<Text<'a>> {
        if self.text.get(self.at) != Some(&b'"') {
            return None;
        }
        self.at += 1;
        let name = self.string()?;
        if self.peek()? != b':' {
            return None;
        }
        self.at += 1;
        Some(name)
    }

    /// From behind an array's first bracket to behind its last.
    fn elements<W: Visitor<'a>>(mut self, out: &mut W, level: u32) -> Option<(usize, u32)> {
        if self.peek()? == b']' {
            self.at += 1;
            return Some((self.at, 0));
        }
        let mut count = 0;
        loop {
            self.value(out, level)?;
            count += 1;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Some((self.at, count));
                }
                _ => return None,
            }
        }
    }
}

/// An array or an object that begins at `at`: where it ends.
fn nested<'a, W: Visitor<'a>>(text: &'a [u8], at: usize, out: &mut W, level: u32) -> Option<usize> {
    let mut reader = Reader::new(text, at);
    if level > DEEPEST {
        reader.skip()?;
        out.raw(text.get(at..reader.at)?);
        return Some(reader.at);
    }
    reader.at += 1;
    if text.get(at) == Some(&b'{') {
        let open = out.begin_object();
        let (behind, pairs) = reader.pairs(out, level + 1)?;
        out.end_object(open, pairs);
        Some(behind)
    } else {
        let open = out.begin_array();
        let (behind, elements) = reader.elements(out, level + 1)?;
        out.end_array(open, elements);
        Some(behind)
    }
}

/// Behind the white space at `at`.
#[cold]
fn behind_space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\r' | b'\n') = text.get(at) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests;
