//! `healthcheck`: a container asks itself `/readyz`, for engines whose probe runs inside an image that has no shell
//! and no curl. The answer is the exit code: 0 ready, 69 not.
//!
//! The small kubelet asks the same way, and `/livez` besides ([`livez`]).

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::exit::{Exit, Failure};

/// The longest that the question may take, from connecting to the last byte.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The longest answer that is read: a status line, headers, and a sentence.
const ANSWER_MAX: usize = 16 * 1024;

/// The arguments of the `healthcheck` subcommand.
#[derive(Debug, Clone, clap::Args)]
pub struct Healthcheck {
    /// Admin address to ask; an unspecified address (`[::]`, `0.0.0.0`) is asked on the loopback interface
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin_addr: SocketAddr,
}

impl Healthcheck {
    /// Asks once.
    ///
    /// # Errors
    /// Exit code 69 with what `/readyz` answered, or why nothing answered.
    pub fn ask(&self) -> Result<(), Failure> {
        let (addr, ready) = self.probe();
        ready.map_err(|why| {
            let why = match why {
                ProbeFailure::NoAnswer(error) => format!("nothing answers on {addr}: {error}"),
                ProbeFailure::Answer { status, reason } => format!("{addr}/readyz answers {status} {reason}"),
            };
            Failure::new(Exit::Unavailable, format!("not ready: {why}"))
        })
    }

    /// Asks once, and tells which address was asked. `[::]` listens on both families where there are both: the first loopback
    /// address that takes the connection is asked.
    pub fn probe(&self) -> (SocketAddr, Result<(), ProbeFailure>) {
        let at = |ip: IpAddr| SocketAddr::new(ip, self.admin_addr.port());
        let (v4, v6) = (at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into()));
        match self.admin_addr.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => (v4, readyz(v4)),
            IpAddr::V6(ip) if ip.is_unspecified() => match readyz(v4) {
                Err(ProbeFailure::NoAnswer(error)) if error.kind() != io::ErrorKind::TimedOut => {
                    (v6, readyz(v6))
                }
                answered => (v4, answered),
            },
            _ => (self.admin_addr, readyz(self.admin_addr)),
        }
    }
}

/// Why a probe has failed.
#[derive(Debug)]
pub enum ProbeFailure {
    /// Nothing answers there, or not in time (`TimedOut`).
    NoAnswer(io::Error),
    /// The container says no.
    Answer {
        /// The status code, 503 for one that keeps the contract.
        status: String,
        /// The sentence in the body.
        reason: String,
    },
}

/// Asks `/livez` once, for `timeout` at most.
///
/// # Errors
/// What it answered, or why nothing answered.
pub fn livez(addr: SocketAddr, timeout: Duration) -> Result<(), ProbeFailure> {
    probe(addr, "/livez", timeout)
}

fn readyz(addr: SocketAddr) -> Result<(), ProbeFailure> {
    probe(addr, "/readyz", TIMEOUT)
}

fn probe(addr: SocketAddr, path: &str, timeout: Duration) -> Result<(), ProbeFailure> {
    let answered = ask(addr, path, timeout).map_err(|error| match error.kind() {
        // A read that reaches its timeout would block (socket(7)).
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {timeout:?}"))
        }
        _ => error,
    });
    let (status, reason) = answered.map_err(ProbeFailure::NoAnswer)?;
    if status == "200" { Ok(()) } else { Err(ProbeFailure::Answer { status, reason }) }
}

/// The status code and the body.
fn ask(addr: SocketAddr, path: &str, timeout: Duration) -> io::Result<(String, String)> {
    let deadline = Instant::now() + timeout;
    let mut stream = TcpStream::connect_timeout(&addr, timeout)?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while answer.len() < ANSWER_MAX {
        // One deadline for all reads: an answer that comes in drips is no answer.
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => break,
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or("nothing that is HTTP");
    Ok((status.to_owned(), crate::exit::one_line(body)))
}
