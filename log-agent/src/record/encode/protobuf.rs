//! The four wire types of protobuf that OTLP's logs need, appended to a vector.

/// A message within a message, whose length is known when it ends.
#[derive(Debug)]
#[must_use = "a message that was begun has to be ended"]
pub(super) struct Open {
    start: usize,
    reserved: usize,
}

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;

/// Begins a message; `about` is a guess at its length, and a wrong guess costs moving its bytes once.
pub(super) fn begin(field: u32, about: usize, out: &mut Vec<u8>) -> Open {
    tag(field, LENGTH, out);
    let (start, reserved) = (out.len(), varint_len(about as u64));
    out.resize(start + reserved, 0);
    Open { start, reserved }
}

pub(super) fn end(open: &Open, out: &mut Vec<u8>) {
    let content = open.start + open.reserved;
    let length = (out.len() - content) as u64;
    let needed = varint_len(length);
    if needed > open.reserved {
        out.resize(out.len() + needed - open.reserved, 0);
        let to = open.start + needed;
        let end = content + usize::try_from(length).unwrap_or_default();
        out.copy_within(content..end, to);
    } else if needed < open.reserved {
        out.copy_within(content.., open.start + needed);
        out.truncate(out.len() - (open.reserved - needed));
    }
    let mut rest = length;
    for byte in &mut out[open.start..open.start + needed] {
        *byte = low7(rest) | 0x80;
        rest >>= 7;
    }
    out[open.start + needed - 1] &= 0x7f;
}

/// A `string`, `bytes` or ready message.
pub(super) fn bytes(field: u32, value: &[u8], out: &mut Vec<u8>) {
    tag(field, LENGTH, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// A `fixed64`, or a `double` by its bits.
pub(super) fn fixed64(field: u32, value: u64, out: &mut Vec<u8>) {
    tag(field, FIXED64, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A `uint64`, `int64` by its bits, `bool` or enumeration.
pub(super) fn number(field: u32, value: u64, out: &mut Vec<u8>) {
    tag(field, VARINT, out);
    varint(value, out);
}

/// The tag of a length-delimited field, for those who write its length themselves.
pub(super) fn length_tag(field: u32, out: &mut Vec<u8>) {
    tag(field, LENGTH, out);
}

/// The same tag as the byte that it is, of the first fifteen fields.
pub(super) const fn length_mark(field: u32) -> u8 {
    debug_assert!(field < 16, "its tag takes more than a byte");
    (field << 3 | LENGTH).to_le_bytes()[0]
}

/// How many bytes a number takes.
pub(super) fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[inline]
pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(low7(value) | 0x80);
        value >>= 7;
    }
    out.push(low7(value));
}

/// How many bytes a length-delimited field takes whose tag takes one.
pub(super) fn field_len(content: usize) -> usize {
    1 + varint_len(content as u64) + content
}

#[inline]
fn tag(field: u32, wire: u32, out: &mut Vec<u8>) {
    varint(u64::from(field << 3 | wire), out);
}

fn low7(value: u64) -> u8 {
    (value & 0x7f) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_right_whatever_was_guessed() {
        for (length, guess) in [(0, 0), (5, 300), (127, 1), (128, 1), (300, 300), (20_000, 0), (5, 1 << 20)] {
            let mut out = b"before".to_vec();
            let open = begin(1, guess, &mut out);
            let content: Vec<u8> = (0..=250).cycle().take(length).collect();
            out.extend_from_slice(&content);
            end(&open, &mut out);
            let mut expected = b"before".to_vec();
            bytes(1, &content, &mut expected);
            assert_eq!(out, expected, "{length} {guess}");
            assert_eq!(out.len() - 6, field_len(length));
        }
    }

    #[test]
    fn numbers_take_what_they_need() {
        for (value, length) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (u64::MAX, 10)] {
            let mut out = Vec::new();
            varint(value, &mut out);
            assert_eq!((out.len(), varint_len(value)), (length, length));
        }
    }
}
