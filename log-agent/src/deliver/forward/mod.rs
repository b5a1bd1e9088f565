//! `forward://` and `forward+tls://`: Fluentd's Forward protocol, version 1. A chunk is one PackedForward message, or one
//! CompressedPackedForward; it is confirmed when its id comes back as `ack`.
//!
//! One connection is kept. Whatever goes wrong on it ends it: the next attempt begins on a new one, and sends the same
//! chunk with the same id, by which a receiver can tell that it has it.

mod handshake;

use std::io::ErrorKind;
use std::time::Duration;

use lifecycle::exit::{Exit, Failure, OrExit as _};
use rmpv::Value;
use rmpv::decode::{Error, read_value_with_max_depth};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::attempt::{DeliveryError, Payload};
use super::credentials::WatchedCredentials;
use super::url::ForwardUrl;
use crate::record::encode::msgpack;
use handshake::Name;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Nothing that a receiver answers is this long.
const ANSWER_LIMIT: usize = 64 * 1024;
/// Nor this deep.
const DEPTH: usize = 8;
/// Written at once: small enough to see a slow receiver take one after the other.
const PIECE: usize = 64 * 1024;

/// A receiver.
pub(super) struct Forward {
    url: ForwardUrl,
    server_name: Option<ServerName<'static>>,
    credentials: WatchedCredentials,
    name: Name,
    connection: Option<Connection>,
}

impl std::fmt::Debug for Forward {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Forward({})", self.url.name())
    }
}

impl Forward {
    pub(super) fn new(url: ForwardUrl, credentials: WatchedCredentials) -> Result<Self, Failure> {
        let server_name =
            if url.tls { Some(ServerName::try_from(url.host.clone()).or_exit(Exit::Usage)?) } else { None };
        Ok(Self { url, server_name, credentials, name: Name::new(), connection: None })
    }

    pub(super) async fn attempt(&mut self, payload: &Payload) -> Result<(), DeliveryError> {
        if self.credentials.refresh().await {
            self.connection = None;
        }
        let kept = match self.connection.take() {
            Some(connection) => connection.if_usable().await,
            None => None,
        };
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        connection.send(&self.url.tag, payload).await?;
        self.connection = Some(connection);
        Ok(())
    }

    async fn connect(&self) -> Result<Connection, DeliveryError> {
        let whole = async {
            let cannot = |error| DeliveryError::retry(format!("cannot connect: {error}"));
            let tcp = TcpStream::connect((self.url.address(), self.url.port)).await.map_err(cannot)?;
            // Messages are written whole: there is nothing to wait for.
            tcp.set_nodelay(true).map_err(cannot)?;
            let credentials = self.credentials.current();
            let stream: Box<dyn Stream> = match &self.server_name {
                Some(name) => {
                    let connector = TlsConnector::from(credentials.tls.clone());
                    let tls = connector.connect(name.clone(), tcp).await;
                    Box::new(tls.map_err(|error| DeliveryError::retry(format!("no TLS: {error}")))?)
                }
                None => Box::new(tcp),
            };
            let mut connection = Connection { stream, received: Vec::new() };
            if let Some(key) = &credentials.shared_key {
                let user = credentials.user.as_deref().map(|user| (user, credentials.password.as_slice()));
                handshake::introduce(&mut connection, &self.name, key, user).await?;
            }
            Ok(connection)
        };
        timeout(CONNECT_TIMEOUT, whole)
            .await
            .map_err(|_| DeliveryError::retry(format!("no connection within {CONNECT_TIMEOUT:?}")))?
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for T {}

/// An open connection and what has come over it.
struct Connection {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
}

impl Connection {
    /// Itself, if it is as it was left. Receivers close what is idle, which is no failure; and what has come that nobody asked
    /// for belongs to a chunk that was given up.
    async fn if_usable(mut self) -> Option<Self> {
        let silent = timeout(Duration::ZERO, self.stream.read_buf(&mut self.received)).await.is_err();
        (silent && self.received.is_empty()).then_some(self)
    }

    /// Sends one chunk, and waits until it is acknowledged; it may take any time as long as something moves.
    async fn send(&mut self, tag: &str, payload: &Payload) -> Result<(), DeliveryError> {
        let mut head = Vec::with_capacity(64);
        msgpack::small_array(3, &mut head);
        msgpack::string(tag.as_bytes(), &mut head);
        msgpack::binary_head(payload.body.len(), &mut head);
        let mut options = Vec::with_capacity(96);
        let compressed = payload.compression.as_str();
        msgpack::small_map(2 + u8::from(compressed.is_some()), &mut options);
        msgpack::string(b"chunk", &mut options);
        msgpack::string(payload.key.as_bytes(), &mut options);
        msgpack::string(b"size", &mut options);
        msgpack::unsigned(payload.records as u64, &mut options);
        if let Some(encoding) = compressed {
            msgpack::string(b"compressed", &mut options);
            msgpack::string(encoding.as_bytes(), &mut options);
        }
        let slow = |_| DeliveryError::slow(payload.timeout);
        for part in [head.as_slice(), &payload.body, &options] {
            for piece in part.chunks(PIECE) {
                timeout(payload.timeout, self.write(piece)).await.map_err(slow)??;
            }
        }
        timeout(payload.timeout, self.flush()).await.map_err(slow)??;
        let answer = timeout(payload.timeout, self.receive()).await.map_err(slow)??;
        match field(&answer, "ack") {
            Some(ack) if ack == payload.key.as_bytes() => Ok(()),
            _ => Err(DeliveryError::retry("it acknowledges something else than what it was sent")),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), DeliveryError> {
        self.stream.write_all(bytes).await.map_err(broke)
    }

    async fn flush(&mut self) -> Result<(), DeliveryError> {
        self.stream.flush().await.map_err(broke)
    }

    /// The next thing that the receiver says.
    async fn receive(&mut self) -> Result<Value, DeliveryError> {
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

/// A field of a map. Receivers do not agree on what is a string and what is binary.
fn field<'a>(map: &'a Value, name: &str) -> Option<&'a [u8]> {
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
        // As long as it says that it will be, which nobody waits for, and no memory is taken for.
        assert!(first_value(b"\xdf\xff\xff\xff\xff").unwrap().is_none());
    }
}
