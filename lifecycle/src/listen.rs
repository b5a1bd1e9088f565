//! A port to listen on, or one line that names the port and the flag that moves it.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use crate::exit::{Exit, Failure};

/// Binds `addr`, and logs the address it got as `listening` with `listener = role`: with port 0 that line is how a
/// test, or a person, learns the port.
///
/// # Errors
/// Exit code 69 where the port is taken, 74 where the address is not ours to bind; both name `flag`.
pub async fn bind(role: &'static str, addr: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(addr).await.map_err(|error| refused(&error, addr, flag))?;
    announce(role, &listener).map_err(|error| refused(&error, addr, flag))?;
    Ok(listener)
}

/// Like [`bind`], but as many listeners on the same port as there are threads, among which the kernel deals connections out.
///
/// # Errors
/// As [`bind`].
pub async fn bind_shared(
    role: &'static str,
    addr: SocketAddr,
    flag: &str,
    threads: u16,
) -> Result<Vec<TcpListener>, Failure> {
    let first = TcpListener::bind(addr).await.map_err(|error| refused(&error, addr, flag))?;
    if threads <= 1 {
        announce(role, &first).map_err(|error| refused(&error, addr, flag))?;
        return Ok(vec![first]);
    }
    // A port may be shared with whoever else shares it. That nobody does is known now, so that it can be taken anew.
    let shared = first.local_addr().and_then(|addr| {
        drop(first);
        (0..threads).map(|_| share(addr)).collect::<io::Result<Vec<_>>>()
    });
    let listeners = shared.map_err(|error| refused(&error, addr, flag))?;
    announce(role, &listeners[0]).map_err(|error| refused(&error, addr, flag))?;
    Ok(listeners)
}

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

fn share(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

fn announce(role: &'static str, listener: &TcpListener) -> io::Result<()> {
    let addr = listener.local_addr()?;
    tracing::info!(listener = role, %addr, "listening");
    Ok(())
}

fn refused(error: &io::Error, addr: SocketAddr, flag: &str) -> Failure {
    match error {
        error if error.kind() == io::ErrorKind::AddrInUse => Failure::new(
            Exit::Unavailable,
            format!("cannot listen on {addr}: the port is taken; choose another with {flag}"),
        ),
        error => Failure::new(
            Exit::Io,
            format!("cannot listen on {addr}: {error}; choose another address with {flag}"),
        ),
    }
}
