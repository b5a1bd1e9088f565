//! Which clients have closed their receive windows: [`closed_windows`].
//!
//! A client that takes nothing may be slow to read, or far away, or behind a network that loses packets. The kernel can tell: while
//! data is in flight, it waits for the acknowledgement; while nothing is in flight and the client has no room for more, it probes the
//! client's window (RFC 9293, section 3.8.6.1). `/proc/net/tcp` shows which of the two timers a connection has.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A connection's key, here and in the kernel's tables: the client's address, and our port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Endpoints {
    client: (IpAddr, u16),
    port: u16,
}

impl Endpoints {
    /// Of a client's connection to one of our ports.
    pub(crate) fn new(client: SocketAddr, port: u16) -> Self {
        Self { client: (client.ip().to_canonical(), client.port()), port }
    }
}

/// The connections of this network namespace whose clients have closed their windows; empty where `/proc` cannot be read. Blocks, and
/// takes time in proportion to the number of connections.
pub(super) fn closed_windows() -> HashSet<Endpoints> {
    let mut closed = HashSet::new();
    // The second is missing where there is no IPv6.
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        if let Err(error) = File::open(table).and_then(|table| read(table, &mut closed)) {
            tracing::debug!(table, %error, "cannot tell which clients have closed their windows");
        }
    }
    closed
}

/// Reads a table line by line: the namespace may have many more connections than this process.
fn read(table: File, closed: &mut HashSet<Endpoints>) -> io::Result<()> {
    let mut table = BufReader::with_capacity(64 * 1024, table);
    let mut line = String::new();
    while table.read_line(&mut line)? > 0 {
        closed.extend(closed_window(&line));
        line.clear();
    }
    Ok(())
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:when …`, where a timer `tr` of 4 is the one of window probes: proc_pid_net(5).
fn closed_window(line: &str) -> Option<Endpoints> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (fields.next()?, fields.next()?);
    let timer = fields.nth(2)?;
    if !timer.starts_with("04:") {
        return None;
    }
    let (client, port) = (socket_address(remote)?, socket_address(local)?.port());
    Some(Endpoints::new(client, port))
}

/// Words of 32 bits as they lie in memory, and the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
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
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    /// Sends until the other end has no room for more.
    fn fill(stream: &TcpStream) {
        stream.set_nonblocking(true).unwrap();
        while { stream }.write(&[0; 16 * 1024]).is_ok() {}
    }

    fn is_closed_within(seconds: u64, endpoints: Endpoints) -> bool {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while !closed_windows().contains(&endpoints) {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    fn a_client_that_does_not_read_is_told_from_others(listener: &TcpListener, address: SocketAddr) {
        let port = address.port();
        let connect = || {
            let client = TcpStream::connect(address).unwrap();
            let endpoints = Endpoints::new(client.local_addr().unwrap(), port);
            (client, listener.accept().unwrap().0, endpoints)
        };
        let (_resting, _server, rests) = connect();
        let (mut reader, server, reads) = connect();
        fill(&server);
        assert!(is_closed_within(10, reads), "{reads:?}");
        assert!(!closed_windows().contains(&rests));
        assert!(!closed_windows().contains(&Endpoints { port: port ^ 1, ..reads }), "of another server");
        // It reads all there is, and has room again.
        server.shutdown(std::net::Shutdown::Write).unwrap();
        reader.read_to_end(&mut Vec::new()).unwrap();
        assert!(!closed_windows().contains(&reads));
    }

    #[test]
    fn a_client_over_ipv4() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        a_client_that_does_not_read_is_told_from_others(&listener, listener.local_addr().unwrap());
    }

    /// As an IPv4 client is seen by a listener for both families, too.
    #[test]
    fn a_client_over_ipv6() {
        let Ok(listener) = TcpListener::bind("[::]:0") else { return };
        let port = listener.local_addr().unwrap().port();
        for address in ["127.0.0.1", "::1"] {
            let address = SocketAddr::new(address.parse().unwrap(), port);
            a_client_that_does_not_read_is_told_from_others(&listener, address);
        }
    }

    #[test]
    fn lines_of_the_kernel() {
        let line = |timer| {
            format!(
                "   7: 0100007F:2694 0200007F:C001 01 00001000:00000000 {timer}:00000014 00000000     0        0 1 2 0"
            )
        };
        let endpoints = Endpoints::new("127.0.0.2:49153".parse().unwrap(), 9876);
        if cfg!(target_endian = "little") {
            assert_eq!(closed_window(&line("04")), Some(endpoints));
        }
        assert_eq!(closed_window(&line("01")), None, "something is on its way");
        for strange in
            ["", "  sl  local_address rem_address   st tx_queue", "0: 1 2 3 4 04:0", "0: é:1 é:1 01 0:0 04:0"]
        {
            assert_eq!(closed_window(strange), None, "{strange}");
        }
    }
}
