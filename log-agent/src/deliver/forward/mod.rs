//! `forward://` and `forward+tls://`: Fluentd's Forward protocol, version 1. A chunk is one PackedForward message, or one
//! CompressedPackedForward; it is confirmed when its id comes back as `ack`.
//!
//! One connection is kept. Whatever goes wrong on it ends it: the next attempt begins on a new one, and sends the same
//! chunk with the same id, by which a receiver can tell that it has it.

mod answer;
mod handshake;

use std::sync::Arc;
use std::time::Duration;

use lifecycle::exit::{Exit, Failure, OrExit as _};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::attempt::{DeliveryError, Payload};
use super::tls;
use super::transport::Settings;
use super::url::ForwardUrl;
use crate::record::encode::msgpack;
pub(crate) use handshake::SharedKey;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the first byte sent to the acknowledgement.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Nothing that a receiver answers is this long.
const ANSWER_LIMIT: usize = 64 * 1024;

/// A receiver.
pub(super) struct Forward {
    url: ForwardUrl,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    shared_key: Option<SharedKey>,
    connection: Option<Connection>,
}

impl std::fmt::Debug for Forward {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Forward({})", self.url.name())
    }
}

impl Forward {
    pub(super) fn new(url: ForwardUrl, settings: &Settings) -> Result<Self, Failure> {
        let tls = if url.tls {
            tls::install();
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(settings.roots.certificates());
            let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
            let name = ServerName::try_from(url.host.clone()).or_exit(Exit::Usage)?;
            Some((TlsConnector::from(Arc::new(config)), name))
        } else {
            None
        };
        Ok(Self { url, tls, shared_key: settings.shared_key.clone(), connection: None })
    }

    pub(super) async fn attempt(&mut self, payload: &Payload) -> Result<(), DeliveryError> {
        let kept = match self.connection.take() {
            Some(connection) => connection.if_usable().await,
            None => None,
        };
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let outcome = timeout(TIMEOUT, connection.send(&self.url.tag, payload)).await;
        outcome.map_err(|_| DeliveryError::retry(format!("no acknowledgement within {TIMEOUT:?}")))??;
        self.connection = Some(connection);
        Ok(())
    }

    async fn connect(&self) -> Result<Connection, DeliveryError> {
        let whole = async {
            let cannot = |error| DeliveryError::retry(format!("cannot connect: {error}"));
            let tcp = TcpStream::connect((self.url.address(), self.url.port)).await.map_err(cannot)?;
            // Messages are written whole: there is nothing to wait for.
            tcp.set_nodelay(true).map_err(cannot)?;
            let stream: Box<dyn Stream> = match &self.tls {
                Some((connector, name)) => {
                    let tls = connector.connect(name.clone(), tcp).await;
                    Box::new(tls.map_err(|error| DeliveryError::retry(format!("no TLS: {error}")))?)
                }
                None => Box::new(tcp),
            };
            let mut connection = Connection { stream, received: Vec::new() };
            if let Some(key) = &self.shared_key {
                handshake::introduce(&mut connection, key).await?;
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

    /// Sends one chunk, and waits until it is acknowledged.
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
        for part in [head.as_slice(), &payload.body, &options] {
            self.write(part).await?;
        }
        self.stream
            .flush()
            .await
            .map_err(|error| DeliveryError::retry(format!("the connection broke: {error}")))?;
        let answer = self.receive().await?;
        match answer.get("ack").and_then(answer::Value::bytes) {
            Some(ack) if ack == payload.key.as_bytes() => Ok(()),
            _ => Err(DeliveryError::retry("it acknowledges something else than what it was sent")),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), DeliveryError> {
        let written = self.stream.write_all(bytes).await;
        written.map_err(|error| DeliveryError::retry(format!("the connection broke: {error}")))
    }

    /// The next thing that the receiver says.
    async fn receive(&mut self) -> Result<answer::Value, DeliveryError> {
        loop {
            match answer::read(&self.received) {
                Ok((value, length)) => {
                    self.received.drain(..length);
                    return Ok(value);
                }
                Err(answer::Unread::Incomplete) if self.received.len() < ANSWER_LIMIT => {}
                Err(_) => {
                    return Err(DeliveryError::retry("its answer is no answer of the Forward protocol"));
                }
            }
            let read = self.stream.read_buf(&mut self.received).await;
            if read.map_err(|error| DeliveryError::retry(format!("the connection broke: {error}")))? == 0 {
                return Err(DeliveryError::retry("it closed the connection without an acknowledgement"));
            }
        }
    }
}
