//! A port to listen on, or one line that names the port and the flag that moves it.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::exit::{Exit, Failure};

/// Binds `addr`, and logs the address it got as `listening` with `listener = role`: with port 0 that line is how a
/// test, or a person, learns the port.
///
/// # Errors
/// Exit code 69 where the port is taken, 74 where the address is not ours to bind; both name `flag`.
pub async fn bind(role: &'static str, addr: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind(addr).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
    match bound {
        Ok((addr, listener)) => {
            tracing::info!(listener = role, %addr, "listening");
            Ok(listener)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(Failure::new(
            Exit::Unavailable,
            format!("cannot listen on {addr}: the port is taken; choose another with {flag}"),
        )),
        Err(error) => Err(Failure::new(
            Exit::Io,
            format!("cannot listen on {addr}: {error}; choose another address with {flag}"),
        )),
    }
}
