//! `forward://` and `forward+tls://`: Fluentd's Forward protocol, version 1. A chunk is one PackedForward message, or one
//! CompressedPackedForward; it is confirmed when its id comes back as `ack`.
//!
//! One connection is kept. Whatever goes wrong on it ends it: the next attempt begins on a new one, and sends the same
//! chunk with the same id, by which a receiver can tell that it has it.

mod connection;
mod handshake;

use std::time::Duration;

use lifecycle::exit::{Exit, Failure, OrExit as _};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::attempt::{DeliveryError, Payload};
use super::credentials::WatchedCredentials;
use super::url::ForwardUrl;
use connection::{Connection, Stream};
use handshake::Name;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Forward {
    url: ForwardUrl,
    server_name: Option<ServerName<'static>>,
    credentials: WatchedCredentials,
    name: Name,
    connection: Option<Connection>,
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
            let tcp = TcpStream::connect((self.url.host.as_str(), self.url.port)).await.map_err(cannot)?;
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
            let mut connection = Connection::new(stream);
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
