//! The types of MessagePack that Forward needs, appended to a vector: by `rmp`, but for maps and arrays whose length is known only when
//! they end, and for what every line has a dozen of, which is written in one step. A vector takes any bytes, so no result has to be
//! looked at.

use lifecycle::Ignore as _;
use rmp::{Marker, encode};

// Computed here, because the function is not inlined.
const ARRAY32: u8 = Marker::Array32.to_u8();
const FIXSTR: u8 = Marker::FixStr(0).to_u8();
const MAP32: u8 = Marker::Map32.to_u8();
const UINT8: u8 = Marker::U8.to_u8();
const UINT16: u8 = Marker::U16.to_u8();
const FLOAT64: u8 = Marker::F64.to_u8();
const FIXEXT8: u8 = Marker::FixExt8.to_u8();

/// Longer strings have a length of their own behind the marker.
const SHORT: usize = 32;
/// Larger numbers have bytes of their own behind the marker.
const SMALL: u64 = 128;

/// A map or an array whose length is known when it ends. It takes the long form of a length, whatever that turns out to be.
#[derive(Debug)]
#[must_use = "what was begun has to be ended"]
pub(super) struct Open {
    at: usize,
}

pub(super) fn begin_map(out: &mut Vec<u8>) -> Open {
    begin(MAP32, out)
}

pub(super) fn begin_array(out: &mut Vec<u8>) -> Open {
    begin(ARRAY32, out)
}

fn begin(marker: u8, out: &mut Vec<u8>) -> Open {
    out.extend_from_slice(&[marker, 0, 0, 0, 0]);
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

/// A string, which its writer knows to be UTF-8.
#[inline]
pub(crate) fn string(text: &[u8], out: &mut Vec<u8>) {
    match text.len() {
        #[expect(clippy::cast_possible_truncation, reason = "less than 32")]
        length @ 0..SHORT => out.push(FIXSTR | length as u8),
        long => encode::write_str_len(out, length(long)).ignore(),
    }
    out.extend_from_slice(text);
}

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
#[inline]
pub(crate) fn unsigned(value: u64, out: &mut Vec<u8>) {
    let [.., high, low] = value.to_be_bytes();
    match value {
        0..SMALL => out.push(low),
        SMALL..0x100 => out.extend_from_slice(&[UINT8, low]),
        0x100..0x1_0000 => out.extend_from_slice(&[UINT16, high, low]),
        _ => encode::write_uint(out, value).ignore(),
    }
}

#[inline]
pub(super) fn integer(value: i64, out: &mut Vec<u8>) {
    match u64::try_from(value) {
        Ok(value) => unsigned(value, out),
        Err(_) => encode::write_sint(out, value).ignore(),
    }
}

#[inline]
pub(super) fn float(value: f64, out: &mut Vec<u8>) {
    let mut whole = [FLOAT64; 9];
    whole[1..].copy_from_slice(&value.to_be_bytes());
    out.extend_from_slice(&whole);
}

/// Eight bytes of an extension type.
#[inline]
pub(super) fn extension8(kind: i8, content: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[FIXEXT8, kind.cast_unsigned()]);
    out.extend_from_slice(&content.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_one_step_is_what_rmp_writes() {
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = b"before".to_vec();
            write(&mut out);
            out.split_off(6)
        };
        for length in [0, 1, 31, 32, 33, 255, 256, 65_535, 65_536] {
            let text = "x".repeat(length);
            let ours = written(&|out| string(text.as_bytes(), out));
            assert_eq!(ours, written(&|out| encode::write_str(out, &text).unwrap()), "{length}");
        }
        for shift in 0..64 {
            for value in [u64::MAX >> shift, (u64::MAX >> shift) - 1, 1 << shift] {
                let ours = written(&|out| unsigned(value, out));
                assert_eq!(
                    ours,
                    written(&|out| encode::write_uint(out, value).map(drop).unwrap()),
                    "{value}"
                );
                let signed = value.cast_signed();
                for signed in [signed, signed.wrapping_neg()] {
                    let ours = written(&|out| integer(signed, out));
                    let theirs = written(&|out| encode::write_sint(out, signed).map(drop).unwrap());
                    assert_eq!(ours, theirs, "{signed}");
                }
            }
        }
        for value in [0.0, -0.25, f64::MAX, f64::MIN_POSITIVE] {
            assert_eq!(
                written(&|out| float(value, out)),
                written(&|out| encode::write_f64(out, value).unwrap())
            );
        }
        let theirs = written(&|out| {
            encode::write_ext_meta(out, 8, -3).map(drop).unwrap();
            out.extend_from_slice(&7_u64.to_be_bytes());
        });
        assert_eq!(written(&|out| extension8(-3, 7, out)), theirs);
    }
}
