//! An open connection to a receiver: what is said on it, and what comes back, one MessagePack value after the other.

use std::io::ErrorKind;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmpv::Value;
use rmpv::decode::{Error, read_value_with_max_depth};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::super::attempt::{DeliveryError, Payload};
use super::super::watchdog::Watchdog;
use crate::record::encode::msgpack;

/// Nothing that a receiver answers is this long.
const ANSWER_LIMIT: usize = 64 * 1024;
/// Nor this deep.
const DEPTH: usize = 8;

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for T {}

pub(super) struct Connection {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    /// Whether the receiver wants it to last for one message only.
    once: bool,
    watchdog: Watchdog,
}

impl Connection {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, received: Vec::new(), once: false, watchdog: Watchdog::default() }
    }

    /// The receiver has said that it is for one message.
    pub(super) fn use_once(&mut self) {
        self.once = true;
    }

    /// The connection, if it can be used again. Receivers close idle connections, which is no failure; and bytes that have arrived
    /// unasked are the answer to a chunk that was given up.
    pub(super) async fn if_usable(mut self) -> Option<Self> {
        if self.once {
            return None;
        }
        let silent = timeout(Duration::ZERO, self.stream.read_buf(&mut self.received)).await.is_err();
        (silent && self.received.is_empty()).then_some(self)
    }

    /// Sends one chunk, and waits until it is acknowledged; it may take any time as long as something moves.
    pub(super) async fn send(&mut self, tag: &str, payload: &Payload) -> Result<(), DeliveryError> {
        let mut head = Vec::with_capacity(64);
        msgpack::small_array(3, &mut head);
        msgpack::string(tag.as_bytes(), &mut head);
        msgpack::binary_head(payload.body.len(), &mut head);
        let mut options = Vec::with_capacity(96);
        let compressed = payload.compression.as_str();
        msgpack::small_map(2 + u8::from(compressed.is_some()), &mut options);
        msgpack::string(b"chunk", &mut options);
        let id = chunk_id(&payload.key);
        msgpack::string(id.as_bytes(), &mut options);
        msgpack::string(b"size", &mut options);
        msgpack::unsigned(payload.records as u64, &mut options);
        if let Some(encoding) = compressed {
            msgpack::string(b"compressed", &mut options);
            msgpack::string(encoding.as_bytes(), &mut options);
        }
        // Whatever moves is progress.
        let (limit, mut watchdog) = (payload.timeout, std::mem::take(&mut self.watchdog));
        let slow = || DeliveryError::slow(limit);
        for part in [head.as_slice(), &payload.body, &options] {
            let mut rest = part;
            while !rest.is_empty() {
                let taken = watchdog.within(limit, self.write_some(rest)).await.ok_or_else(slow)??;
                rest = &rest[taken..];
            }
        }
        watchdog.within(limit, self.flush()).await.ok_or_else(slow)??;
        let answer = watchdog.within(limit, self.receive()).await.ok_or_else(slow)??;
        self.watchdog = watchdog;
        match field(&answer, "ack") {
            Some(ack) if ack == id.as_bytes() => Ok(()),
            _ => Err(DeliveryError::retry("it acknowledges something else than what it was sent")),
        }
    }

    /// Sends as much as the connection takes at once, and says how much that was.
    async fn write_some(&mut self, bytes: &[u8]) -> Result<usize, DeliveryError> {
        match self.stream.write(bytes).await.map_err(broke)? {
            0 => Err(broke(ErrorKind::WriteZero.into())),
            taken => Ok(taken),
        }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), DeliveryError> {
        self.stream.write_all(bytes).await.map_err(broke)
    }

    pub(super) async fn flush(&mut self) -> Result<(), DeliveryError> {
        self.stream.flush().await.map_err(broke)
    }

    /// The next thing that the receiver says.
    pub(super) async fn receive(&mut self) -> Result<Value, DeliveryError> {
        loop {
            match first_value(&self.received) {
                Ok(Some((value, length))) => {
                    self.received.drain(..length);
                    return Ok(value);
                }
                Ok(None) if self.received.len() < ANSWER_LIMIT => {}
                Ok(None) | Err(_) => {
                    return Err(DeliveryError::retry("its answer is no answer of the Forward protocol"));
                }
            }
            if self.stream.read_buf(&mut self.received).await.map_err(broke)? == 0 {
                return Err(DeliveryError::retry("it closed the connection without an acknowledgement"));
            }
        }
    }
}

/// The id of a chunk as the protocol wants it: 128 bits in Base64.
fn chunk_id(key: &str) -> String {
    STANDARD.encode(u128::from_str_radix(key, 16).unwrap_or_default().to_be_bytes())
}

/// A field of a map. Receivers do not agree on what is a string and what is binary.
pub(super) fn field<'a>(map: &'a Value, name: &str) -> Option<&'a [u8]> {
    let (_, value) = map.as_map()?.iter().find(|(key, _)| key.as_slice() == Some(name.as_bytes()))?;
    value.as_slice()
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn broke(error: std::io::Error) -> DeliveryError {
    DeliveryError::retry(format!("the connection broke: {error}"))
}

/// The value at the beginning of what has come, and how long it was; none where not all of it has.
fn first_value(received: &[u8]) -> Result<Option<(Value, usize)>, Error> {
    let mut rest = received;
    match read_value_with_max_depth(&mut rest, DEPTH) {
        Ok(value) => Ok(Some((value, received.len() - rest.len()))),
        Err(Error::InvalidMarkerRead(error) | Error::InvalidDataRead(error))
            if error.kind() == ErrorKind::UnexpectedEof =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_whole_and_in_parts() {
        let ack = b"\x81\xa3ack\xd9\x20\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30\x30";
        let (value, length) = first_value(&[&ack[..], b"more"].concat()).unwrap().unwrap();
        assert_eq!((field(&value, "ack"), length), (Some([b'0'; 32].as_slice()), ack.len()));
        for end in 0..ack.len() {
            assert!(first_value(&ack[..end]).unwrap().is_none());
        }
    }

    #[test]
    fn an_answer_of_another_protocol() {
        assert_eq!(first_value(b"HTTP/1.1 400").unwrap().unwrap(), (Value::from(72), 1));
        assert!(first_value(&[0x91; 100]).is_err(), "too deep");
        // As long as it says that it will be: it is neither waited for nor given memory.
        assert!(first_value(b"\xdf\xff\xff\xff\xff").unwrap().is_none());
    }
}
