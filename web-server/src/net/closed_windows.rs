//! Which clients have closed their receive windows, and what is left to send to them: [`closed_windows`].
//!
//! A client that takes nothing may be slow to read, or far away, or behind a network that loses packets. The kernel can tell: while
//! data is in flight, it waits for the acknowledgement; while nothing is in flight and something is unsent, it probes the client's
//! window (RFC 9293, section 3.8.6.1). `/proc/net/tcp` shows which of the two timers a connection has. It may have that of the probe for
//! a moment because packets are paced, so one look proves nothing; two between which the client has acknowledged nothing do.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::http::state::Moment;

/// How long a client must have taken nothing, with its window closed, before the connection may be closed for others.
pub(super) const STALLED_CLOSED: Duration = Duration::from_millis(50);
/// How long after a look its result counts.
pub(super) const LOOK_VALID: Duration = Duration::from_millis(200);

/// A connection's two ends, as the socket has them: one of both address families names an IPv4 address in IPv6's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Endpoints {
    ours: (IpAddr, u16),
    client: (IpAddr, u16),
}

/// Bytes that the client has not acknowledged, sent or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Queued(u32);

/// A window that all looks from the first to the last of these saw closed, with the same bytes queued.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClosedWindow {
    queued: Queued,
    first: Moment,
    last: Moment,
}

impl ClosedWindow {
    /// What a look at that moment saw, after what the look before it had seen.
    pub(super) fn seen(queued: Queued, at: Moment, before: Option<Self>) -> Self {
        let first = before.filter(|before| before.queued == queued).map_or(at, |before| before.first);
        Self { queued, first, last: at }
    }

    /// Whether the client has had its window closed for long enough, and has taken nothing from before the first look on.
    pub(super) fn is_closed_since(self, taken: Moment) -> bool {
        taken <= self.first
            && self.last.since(self.first) >= STALLED_CLOSED
            && self.last.elapsed() <= LOOK_VALID
    }
}

#[cfg(test)]
impl Queued {
    pub(super) fn of(bytes: u32) -> Self {
        Self(bytes)
    }
}

impl Endpoints {
    pub(crate) fn new(ours: SocketAddr, client: SocketAddr) -> Self {
        Self { ours: (ours.ip(), ours.port()), client: (client.ip(), client.port()) }
    }
}

/// Clients of the same listener as `one` that have closed their windows. Blocks, and takes time in proportion to the connections of the
/// whole machine.
///
/// # Errors
/// Where `/proc` cannot be read.
pub(super) fn closed_windows(one: Endpoints) -> io::Result<HashMap<Endpoints, Queued>> {
    let table = if one.ours.0.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
    read(BufReader::new(File::open(table)?), one.ours.1)
}

fn read(mut table: impl BufRead, port: u16) -> io::Result<HashMap<Endpoints, Queued>> {
    let mut closed = HashMap::new();
    let mut line = String::new();
    while table.read_line(&mut line)? > 0 {
        closed.extend(closed_window(&line).filter(|(endpoints, _)| endpoints.ours.1 == port));
        line.clear();
    }
    Ok(closed)
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:when …`, where a timer `tr` of 4 is the one of window probes: proc_pid_net(5).
fn closed_window(line: &str) -> Option<(Endpoints, Queued)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (ours, client, _state) = (fields.next()?, fields.next()?, fields.next()?);
    let (queues, timer) = (fields.next()?, fields.next()?);
    if !timer.starts_with("04:") {
        return None;
    }
    let endpoints = Endpoints { ours: socket_address(ours)?, client: socket_address(client)? };
    let unacknowledged = queues.split_once(':')?.0;
    Some((endpoints, Queued(u32::from_str_radix(unacknowledged, 16).ok()?)))
}

/// An address, as 32-bit words in the machine's byte order, and the port, all in hexadecimal.
fn socket_address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let word =
        |at: usize| Some(u32::from_str_radix(address.get(8 * at..8 * at + 8)?, 16).ok()?.to_ne_bytes());
    let address: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut octets = [0; 16];
            for (at, part) in octets.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(octets).into()
        }
        _ => return None,
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    fn closed(endpoints: Endpoints) -> Option<Queued> {
        closed_windows(endpoints).unwrap().get(&endpoints).copied()
    }

    fn a_client_that_does_not_read_is_told_from_others(listener: &TcpListener, address: SocketAddr) {
        let connect = || {
            let client = TcpStream::connect(address).unwrap();
            let (server, peer) = listener.accept().unwrap();
            let endpoints = Endpoints::new(server.local_addr().unwrap(), peer);
            (client, server, endpoints)
        };
        let (_resting, _server, rests) = connect();
        let (mut reader, mut server, reads) = connect();
        server.set_nonblocking(true).unwrap();
        while server.write(&[0; 16 * 1024]).is_ok() {}
        let deadline = Instant::now() + Duration::from_secs(10);
        while closed(reads).is_none() {
            assert!(Instant::now() < deadline, "{reads:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(closed(reads).unwrap().0 > 0);
        assert_eq!(closed(rests), None);
        server.shutdown(std::net::Shutdown::Write).unwrap();
        reader.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(closed(reads), None);
    }

    #[test]
    fn a_client_over_ipv4() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        a_client_that_does_not_read_is_told_from_others(&listener, listener.local_addr().unwrap());
    }

    /// Also a client over IPv4 of a listener for both families.
    #[test]
    fn a_client_over_ipv6() {
        for (ours, theirs) in [("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")] {
            // Not every machine has IPv6, or one socket for both.
            let Ok(listener) = TcpListener::bind(ours) else { continue };
            let port = listener.local_addr().unwrap().port();
            let address = SocketAddr::new(theirs.parse().unwrap(), port);
            if TcpStream::connect(address).is_ok() {
                drop(listener.accept().unwrap());
                a_client_that_does_not_read_is_told_from_others(&listener, address);
            }
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_tables() {
        let rest = "00000000     0        0 1 2 0";
        let text = format!(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2694 0200007F:C001 01 00001F40:00000000 04:00000014 {rest}
   1: 0100007F:2694 0200007F:C002 01 00001F40:00000000 01:00000014 {rest}
   2: 0100007F:2695 0200007F:C001 01 00001F40:00000000 04:00000014 {rest}
   3: 0000000000000000FFFF00000100007F:2694 0000000000000000FFFF00000200007F:C003 01 00000010:00000000 04:00000014 {rest}
"
        );
        let endpoints =
            |ours: &str, client: &str| Endpoints::new(ours.parse().unwrap(), client.parse().unwrap());
        let expected = HashMap::from([
            (endpoints("127.0.0.1:9876", "127.0.0.2:49153"), Queued(8000)),
            (endpoints("[::ffff:127.0.0.1]:9876", "[::ffff:127.0.0.2]:49155"), Queued(16)),
        ]);
        assert_eq!(read(text.as_bytes(), 9876).unwrap(), expected);
        for strange in ["", "0: 1 2 3 4 04:0", "0: é:1 é:1 01 0:0 04:0", "0: 0100007F:1 0100007F:1 01 0 04:0"]
        {
            assert!(read(strange.as_bytes(), 1).unwrap().is_empty(), "{strange}");
        }
    }
}
