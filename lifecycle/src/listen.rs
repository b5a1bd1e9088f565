//! A port to listen on, or one line that names the port and the flag that moves it.
//!
//! `[::]`, the default everywhere, means both address families: the socket takes IPv4 connections too (RFC 3493 section
//! 5.3), whatever `net.ipv6.bindv6only` says, and a machine without IPv6 gets `0.0.0.0` instead. So a Pod becomes ready in
//! an IPv4-only, an IPv6-only and a dual-stack cluster.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpSocket};

use crate::exit::{Exit, Failure};

/// Binds `addr`, and logs the address it got as `listening` with `listener = role`: with port 0 that line is how a
/// test, or a person, learns the port.
///
/// # Errors
/// Exit code 69 where the port is taken, 74 where the address is not ours to bind; both name `flag`.
pub fn bind(role: &'static str, addr: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    let listener = open(addr, Port::Own).map_err(|error| refused(&error, addr, flag))?;
    announce(role, &listener).map_err(|error| refused(&error, addr, flag))?;
    Ok(listener)
}

/// The address of a peer as people write it: one that came over IPv4 to a socket of both families (`::ffff:127.0.0.1`)
/// is the IPv4 address.
pub fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// Like [`bind`], but as many listeners on the same port as there are threads, among which the kernel deals connections out.
///
/// # Errors
/// As [`bind`].
pub fn bind_shared(
    role: &'static str,
    addr: SocketAddr,
    flag: &str,
    threads: u16,
) -> Result<Vec<TcpListener>, Failure> {
    let first = open(addr, Port::Own).map_err(|error| refused(&error, addr, flag))?;
    if threads <= 1 {
        announce(role, &first).map_err(|error| refused(&error, addr, flag))?;
        return Ok(vec![first]);
    }
    // Another process could share a shared port. The first socket has shown that none does, and gives the port back.
    let shared = first.local_addr().and_then(|addr| {
        drop(first);
        (0..threads).map(|_| open(addr, Port::Shared)).collect::<io::Result<Vec<_>>>()
    });
    let listeners = shared.map_err(|error| refused(&error, addr, flag))?;
    announce(role, &listeners[0]).map_err(|error| refused(&error, addr, flag))?;
    Ok(listeners)
}

/// Connections that wait to be accepted: as many as the kernel allows by default (`net.core.somaxconn`). A client that finds the
/// queue full waits for a second, and then twice as long each time.
const BACKLOG: u32 = 4096;

/// Whether other sockets may listen on the port, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Own,
    Shared,
}

fn open(addr: SocketAddr, port: Port) -> io::Result<TcpListener> {
    let IpAddr::V6(ip) = addr.ip() else { return listen(&TcpSocket::new_v4, addr, port) };
    match listen(&TcpSocket::new_v6, addr, port) {
        Err(error) if ip.is_unspecified() && lacks_ipv6(&error) => {
            let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), addr.port());
            listen(&TcpSocket::new_v4, everywhere, port)
        }
        outcome => outcome,
    }
}

/// The kernel has no IPv6, or this network namespace has it disabled.
fn lacks_ipv6(error: &io::Error) -> bool {
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL]
        .into_iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn listen(
    socket: &dyn Fn() -> io::Result<TcpSocket>,
    addr: SocketAddr,
    port: Port,
) -> io::Result<TcpListener> {
    let socket = socket()?;
    if addr.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
    }
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(port == Port::Shared)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn the_default_takes_both_families_and_names_ipv4_peers_as_such() {
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
        let listener = bind("test", any, "--listen-addr").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(canonical(peer), client.local_addr().unwrap());
    }

    #[tokio::test]
    async fn a_taken_port_names_the_flag() {
        let taken = bind("test", SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0), "--x").unwrap();
        let addr = taken.local_addr().unwrap();
        let failure = bind("test", addr, "--listen-addr").unwrap_err();
        assert_eq!(failure.exit, Exit::Unavailable);
        assert!(
            failure.to_string().ends_with("the port is taken; choose another with --listen-addr"),
            "{failure}"
        );
    }
}
