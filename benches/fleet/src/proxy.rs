//! A network that tears answers: bytes go through as they are, but some answers end in their middle.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Bytes moved at a time.
const BUFFER: usize = 16 * 1024;

/// A proxy on a port of its own. Dropping it closes the port; what is connected goes on.
#[derive(Debug)]
pub(crate) struct Proxy {
    addr: SocketAddr,
    torn: Arc<AtomicUsize>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// Tears this share of the answers.
    pub(crate) async fn start(to: SocketAddr, share: f64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (addr, torn) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&torn);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let torn = Arc::clone(&counted);
                tokio::spawn(async move {
                    // A connection that ends is what this is for.
                    drop(relay(client, to, share, &torn).await);
                });
            }
        });
        Ok(Self { addr, torn, _accepting: accepting })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/manifest.json", self.addr)
    }

    /// Answers that were torn.
    pub(crate) fn torn(&self) -> usize {
        self.torn.load(Ordering::Relaxed)
    }
}

async fn relay(client: TcpStream, to: SocketAddr, share: f64, torn: &AtomicUsize) -> std::io::Result<()> {
    let server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let upwards = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from_server.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        // A puller has one request at a time on a connection, so an answer begins with what is read.
        if buffer.starts_with(b"HTTP/1.1 ") && fastrand::f64() < share {
            torn.fetch_add(1, Ordering::Relaxed);
            to_client.write_all(&buffer[..read / 2]).await?;
            break;
        }
        to_client.write_all(&buffer[..read]).await?;
    }
    upwards.abort();
    Ok(())
}
