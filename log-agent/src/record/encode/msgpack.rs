//! The types of MessagePack that Forward needs, appended to a vector: by `rmp`, but for maps and arrays whose length is known only when
//! they end. A vector takes any bytes, so no result has to be looked at.

use lifecycle::Ignore as _;
use rmp::encode;

const ARRAY32: u8 = 0xdd;
const MAP32: u8 = 0xdf;

/// A map or an array whose length is known when it ends. It takes the long form of a length, whatever that turns out to be.
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

/// Begins a map of so many pairs.
pub(crate) fn small_map(count: u8, out: &mut Vec<u8>) {
    encode::write_map_len(out, count.into()).ignore();
}

/// Begins an array of so many elements.
pub(crate) fn small_array(count: u8, out: &mut Vec<u8>) {
    encode::write_array_len(out, count.into()).ignore();
}

/// Nothing.
pub(super) fn nil(out: &mut Vec<u8>) {
    encode::write_nil(out).ignore();
}

/// True or false.
pub(super) fn boolean(value: bool, out: &mut Vec<u8>) {
    encode::write_bool(out, value).ignore();
}

/// A string, which its writer knows to be UTF-8.
#[inline]
pub(crate) fn string(text: &[u8], out: &mut Vec<u8>) {
    encode::write_str_len(out, length(text.len())).ignore();
    out.extend_from_slice(text);
}

/// Bytes.
pub(super) fn binary(bytes: &[u8], out: &mut Vec<u8>) {
    binary_head(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// The head of this many bytes, which follow.
pub(crate) fn binary_head(bytes: usize, out: &mut Vec<u8>) {
    encode::write_bin_len(out, length(bytes)).ignore();
}

/// A line of 4 GiB is beyond what `--max-line` can keep in memory.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// An integer from 0 on.
pub(crate) fn unsigned(value: u64, out: &mut Vec<u8>) {
    encode::write_uint(out, value).ignore();
}

/// Any integer.
pub(super) fn integer(value: i64, out: &mut Vec<u8>) {
    encode::write_sint(out, value).ignore();
}

/// A number with a fraction.
pub(super) fn float(value: f64, out: &mut Vec<u8>) {
    encode::write_f64(out, value).ignore();
}

/// Eight bytes of an extension type.
pub(super) fn extension8(kind: i8, content: u64, out: &mut Vec<u8>) {
    encode::write_ext_meta(out, 8, kind).ignore();
    out.extend_from_slice(&content.to_be_bytes());
}
