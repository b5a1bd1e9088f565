//! What a Forward receiver says, in the little of MessagePack that it has words for: acknowledgements and its side of the
//! handshake.

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Nil,
    Bool(bool),
    Number(u64),
    /// A string or binary: receivers do not agree on which is which.
    Bytes(Vec<u8>),
    Array(Vec<Self>),
    Map(Vec<(Self, Self)>),
}

impl Value {
    /// A field of a map.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Map(pairs) = self else { return None };
        pairs.iter().find(|(key, _)| key.bytes() == Some(name.as_bytes())).map(|(_, value)| value)
    }

    /// An element of an array.
    pub(super) fn at(&self, index: usize) -> Option<&Self> {
        let Self::Array(elements) = self else { return None };
        elements.get(index)
    }

    /// The bytes of a string or of binary.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        let Self::Bytes(bytes) = self else { return None };
        Some(bytes)
    }
}

/// Why there is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// Not all of it has come.
    Incomplete,
    /// It is something else.
    Unknown,
}

/// Deeper than anything that the protocol says.
const DEPTH: u32 = 8;

/// Reads a value from the beginning of what has come, and says how long it was.
pub(super) fn read(bytes: &[u8]) -> Result<(Value, usize), Unread> {
    let mut rest = bytes;
    let value = value(&mut rest, DEPTH)?;
    Ok((value, bytes.len() - rest.len()))
}

fn value(rest: &mut &[u8], depth: u32) -> Result<Value, Unread> {
    let depth = depth.checked_sub(1).ok_or(Unread::Unknown)?;
    let mark = *rest.split_off_first().ok_or(Unread::Incomplete)?;
    Ok(match mark {
        0x00..=0x7f => Value::Number(u64::from(mark)),
        0x80..=0x8f => map(u64::from(mark & 0x0f), rest, depth)?,
        0x90..=0x9f => array(u64::from(mark & 0x0f), rest, depth)?,
        0xa0..=0xbf => text(u64::from(mark & 0x1f), rest)?,
        0xc0 => Value::Nil,
        0xc2 => Value::Bool(false),
        0xc3 => Value::Bool(true),
        0xc4 | 0xd9 => length(1, rest).and_then(|length| text(length, rest))?,
        0xc5 | 0xda => length(2, rest).and_then(|length| text(length, rest))?,
        0xc6 | 0xdb => length(4, rest).and_then(|length| text(length, rest))?,
        0xcc => Value::Number(length(1, rest)?),
        0xcd => Value::Number(length(2, rest)?),
        0xce => Value::Number(length(4, rest)?),
        0xcf => Value::Number(length(8, rest)?),
        0xdc => length(2, rest).and_then(|count| array(count, rest, depth))?,
        0xde => length(2, rest).and_then(|count| map(count, rest, depth))?,
        _ => return Err(Unread::Unknown),
    })
}

fn length(bytes: usize, rest: &mut &[u8]) -> Result<u64, Unread> {
    let digits = rest.split_off(..bytes).ok_or(Unread::Incomplete)?;
    Ok(digits.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

fn text(length: u64, rest: &mut &[u8]) -> Result<Value, Unread> {
    let length = usize::try_from(length).map_err(|_| Unread::Unknown)?;
    rest.split_off(..length).map(|text| Value::Bytes(text.to_vec())).ok_or(Unread::Incomplete)
}

fn array(count: u64, rest: &mut &[u8], depth: u32) -> Result<Value, Unread> {
    (0..count).map(|_| value(rest, depth)).collect::<Result<_, _>>().map(Value::Array)
}

fn map(count: u64, rest: &mut &[u8], depth: u32) -> Result<Value, Unread> {
    (0..count)
        .map(|_| Ok((value(rest, depth)?, value(rest, depth)?)))
        .collect::<Result<_, _>>()
        .map(Value::Map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_whole_and_in_parts() {
        let ack = b"\x81\xa3ack\xd9\x20\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30";
        let (value, length) = read(&[&ack[..], b"more"].concat()).unwrap();
        assert_eq!((value.get("ack").unwrap().bytes(), length), (Some([b'0'; 32].as_slice()), ack.len()));
        for end in 0..ack.len() {
            assert_eq!(read(&ack[..end]), Err(Unread::Incomplete));
        }
    }

    #[test]
    fn what_nobody_should_say() {
        assert_eq!(read(b"HTTP/1.1 400"), Ok((Value::Number(72), 1)));
        assert_eq!(read(&[0x91; 100]), Err(Unread::Unknown));
        assert_eq!(read(b"\xdf\xff\xff\xff\xff"), Err(Unread::Unknown));
    }
}
