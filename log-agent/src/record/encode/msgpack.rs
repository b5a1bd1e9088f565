//! The types of MessagePack that Forward needs, appended to a vector, each as short as it can be.

const FIXMAP: u8 = 0x80;
const FIXARRAY: u8 = 0x90;
const FIXSTR: u8 = 0xa0;
const NIL: u8 = 0xc0;
const FALSE: u8 = 0xc2;
const TRUE: u8 = 0xc3;
const BIN8: u8 = 0xc4;
const BIN16: u8 = 0xc5;
const BIN32: u8 = 0xc6;
const FLOAT64: u8 = 0xcb;
const UINT8: u8 = 0xcc;
const UINT16: u8 = 0xcd;
const UINT32: u8 = 0xce;
const UINT64: u8 = 0xcf;
const INT64: u8 = 0xd3;
const FIXEXT8: u8 = 0xd7;
const STR8: u8 = 0xd9;
const STR16: u8 = 0xda;
const STR32: u8 = 0xdb;
const ARRAY32: u8 = 0xdd;
const MAP32: u8 = 0xdf;

/// A map or an array whose length is known when it ends. It takes the long form of a length, whatever that queue out to be.
#[derive(Debug)]
#[must_use = "what was begun has to be ended"]
pub(super) struct Open {
    at: usize,
}

/// Begins a map.
pub(super) fn begin_map(out: &mut Vec<u8>) -> Open {
    begin(MAP32, out)
}

/// Begins an array.
pub(super) fn begin_array(out: &mut Vec<u8>) -> Open {
    begin(ARRAY32, out)
}

fn begin(mark: u8, out: &mut Vec<u8>) -> Open {
    out.extend_from_slice(&[mark, 0, 0, 0, 0]);
    Open { at: out.len() - 4 }
}

/// Ends it, with this many pairs or elements.
pub(super) fn end(open: &Open, count: u32, out: &mut [u8]) {
    out[open.at..open.at + 4].copy_from_slice(&count.to_be_bytes());
}

/// Begins a map of so many pairs, at most 15.
pub(crate) fn small_map(count: u8, out: &mut Vec<u8>) {
    out.push(FIXMAP | count);
}

/// Begins an array of so many elements, at most 15.
pub(crate) fn small_array(count: u8, out: &mut Vec<u8>) {
    out.push(FIXARRAY | count);
}

/// Nothing.
pub(super) fn nil(out: &mut Vec<u8>) {
    out.push(NIL);
}

/// True or false.
pub(super) fn boolean(value: bool, out: &mut Vec<u8>) {
    out.push(if value { TRUE } else { FALSE });
}

/// A string, which its writer knows to be UTF-8.
#[inline]
pub(crate) fn string(text: &[u8], out: &mut Vec<u8>) {
    match text.len() {
        #[expect(clippy::cast_possible_truncation, reason = "less than 32")]
        length @ 0..32 => out.push(FIXSTR | length as u8),
        length => sized(length, Some(STR8), STR16, STR32, out),
    }
    out.extend_from_slice(text);
}

/// Bytes.
pub(crate) fn binary(bytes: &[u8], out: &mut Vec<u8>) {
    binary_head(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// The head of this many bytes, which follow.
pub(crate) fn binary_head(length: usize, out: &mut Vec<u8>) {
    sized(length, Some(BIN8), BIN16, BIN32, out);
}

fn sized(length: usize, in8: Option<u8>, in16: u8, in32: u8, out: &mut Vec<u8>) {
    if let (Some(mark), Ok(length)) = (in8, u8::try_from(length)) {
        out.extend_from_slice(&[mark, length]);
    } else if let Ok(length) = u16::try_from(length) {
        out.push(in16);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        // A line of 4 GiB is beyond what `--max-line` can keep in memory.
        out.push(in32);
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
}

/// An integer from 0 on.
pub(crate) fn unsigned(value: u64, out: &mut Vec<u8>) {
    if let Ok(value) = u8::try_from(value) {
        if value >= 0x80 {
            out.push(UINT8);
        }
        out.push(value);
    } else if let Ok(value) = u16::try_from(value) {
        out.push(UINT16);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = u32::try_from(value) {
        out.push(UINT32);
        out.extend_from_slice(&value.to_be_bytes());
    } else {
        out.push(UINT64);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Any integer.
pub(super) fn integer(value: i64, out: &mut Vec<u8>) {
    if let Ok(value) = u64::try_from(value) {
        unsigned(value, out);
    } else {
        out.push(INT64);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// A number with a fraction.
pub(super) fn float(value: f64, out: &mut Vec<u8>) {
    out.push(FLOAT64);
    out.extend_from_slice(&value.to_be_bytes());
}

/// Eight bytes of an extension type.
pub(super) fn extension8(kind: u8, content: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[FIXEXT8, kind]);
    out.extend_from_slice(&content.to_be_bytes());
}
