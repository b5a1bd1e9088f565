//! The Pod's five ports: free before anything is started, or one line about who has them; and whether a container has its own.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use lifecycle::exit::{Exit, Failure};
use rustix::process::Pid;

use crate::flags::Flags;

/// This program, as the kernel calls it.
const KUBELET: &str = env!("CARGO_PKG_NAME");

/// Sees that every port is free. Exit code 69 where one is taken, 74 where the address is not this machine's; both name
/// the program that wanted the port, and the flags that move it.
pub(crate) fn check(flags: &Flags) -> Result<(), Failure> {
    let users =
        ["web-server", "web-server's admin", "file-puller's admin", "log-agent's admin", "content manager"];
    // Where the content manager runs elsewhere, its port here may be another program's.
    let needed = if flags.source.is_none() { 5 } else { 4 };
    for (offset, user) in (0..).zip(users).take(needed) {
        let addr = flags.addr(offset);
        let Err(error) = TcpListener::bind(addr) else { continue };
        let what = format!("cannot listen on {addr} for the {user}");
        if error.kind() != ErrorKind::AddrInUse {
            return Err(Failure::new(
                Exit::Io,
                format!("{what}: {error}; choose others with --ip and --port"),
            ));
        }
        let other = (flags.port % 50_000) + 100;
        let elsewhere = format!("start another with --port {other} or --ip 127.0.0.2");
        let reason = match holder(addr) {
            Some(Holder { pid, program }) if program == KUBELET => {
                let age = rough(age(pid).unwrap_or_default());
                format!(
                    "a Pod runs here for {age}, pid {pid}: stop it with Ctrl-C there or `kill {pid}`, or {elsewhere}"
                )
            }
            Some(Holder { pid, program }) => {
                format!("{what}: {program}, pid {pid}, has the port; {elsewhere}")
            }
            None => format!("{what}: the port is taken; {elsewhere}"),
        };
        return Err(Failure::new(Exit::Unavailable, reason));
    }
    Ok(())
}

/// The process that listens on a port: a kubelet by one of its containers, or another program.
#[derive(Debug, PartialEq, Eq)]
struct Holder {
    pid: i32,
    program: String,
}

/// The program that listens there, as far as /proc tells this user (proc(5)).
fn holder(addr: SocketAddr) -> Option<Holder> {
    let sockets = listening(addr);
    let pid = processes().find(|pid| has_one_of(*pid, &sockets))?;
    // A container's parent is its kubelet.
    let mut ancestor = pid;
    while ancestor > 1 {
        let program = program(ancestor)?;
        if program == KUBELET {
            return Some(Holder { pid: ancestor, program });
        }
        ancestor = stat(ancestor)?.get(1)?.parse().ok()?;
    }
    Some(Holder { pid, program: program(pid)? })
}

/// Whether a process of a container's group listens there.
///
/// # Errors
/// The program that does, as far as /proc tells this user.
pub(crate) fn is_of(group: Pid, addr: SocketAddr) -> Result<(), String> {
    let (sockets, leader) = (listening(addr), group.as_raw_nonzero().get());
    let is_in_group = |pid: i32| stat(pid).is_some_and(|stat| stat.get(2) == Some(&leader.to_string()));
    // Nearly always the process that was started.
    let mut own = std::iter::once(leader).chain(processes().filter(|pid| is_in_group(*pid)));
    if own.any(|pid| has_one_of(pid, &sockets)) {
        return Ok(());
    }
    let other = processes().find(|pid| has_one_of(*pid, &sockets));
    let other = other.and_then(|pid| Some(format!("{}, pid {pid}", program(pid)?)));
    Err(other.unwrap_or_else(|| "another program".to_owned()))
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The sockets that listen on this address, as the links in /proc/PID/fd name them. The address is this network namespace's, and so
/// are its tables: they are read once, however many processes there are.
fn listening(addr: SocketAddr) -> Vec<String> {
    let tables = ["tcp", "tcp6"].map(|table| Path::new("/proc/net").join(table));
    let tables = tables.map(|table| std::fs::read_to_string(table).unwrap_or_default());
    let rows = tables.iter().flat_map(|table| table.lines().skip(1));
    rows.filter_map(|row| listener(row, addr)).map(|inode| format!("socket:[{inode}]")).collect()
}

/// Whether the process has one of these sockets open.
fn has_one_of(pid: i32, sockets: &[String]) -> bool {
    let Ok(descriptors) = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else {
        return false;
    };
    let mut targets = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    !sockets.is_empty()
        && targets.any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
}

/// The inode of the socket in a row of /proc/net/tcp, where that listens on this port of this address or of all addresses.
fn listener(row: &str, addr: SocketAddr) -> Option<&str> {
    let fields: Vec<&str> = row.split_whitespace().collect();
    let [_, local, _, state, _, _, _, _, _, inode, ..] = fields[..] else { return None };
    let (ip, port) = local.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let all = ip.bytes().all(|digit| digit == b'0');
    // In IPv4's table an address is one number in the machine's byte order.
    let same = match addr.ip() {
        std::net::IpAddr::V4(v4) => {
            u32::from_str_radix(ip, 16).is_ok_and(|ip| ip == u32::from_ne_bytes(v4.octets()))
        }
        std::net::IpAddr::V6(_) => ip.len() == 32,
    };
    (state == "0A" && port == addr.port() && (all || same)).then_some(inode)
}

fn program(pid: i32) -> Option<String> {
    Some(std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned())
}

/// The fields of /proc/PID/stat after the name: the state is the first, the parent the second, the process group the third.
fn stat(pid: i32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// How long the process has been running: both numbers count from the boot.
fn age(pid: i32) -> Option<Duration> {
    let ticks: u64 = stat(pid)?.get(19)?.parse().ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
    let started = Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second());
    Some(Duration::from_secs_f64(uptime).saturating_sub(started))
}

/// A duration in its largest unit: enough to know a Pod by.
fn rough(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_found() {
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listening.local_addr().unwrap();
        let Holder { pid, .. } = holder(addr).unwrap();
        assert_eq!(pid.unsigned_abs(), std::process::id());
        assert!(age(pid).unwrap() < Duration::from_secs(3_600));
        drop(listening);
        assert_eq!(holder(addr), None);
    }

    #[test]
    fn ages_are_rough() {
        let of = |seconds| rough(Duration::from_secs(seconds));
        assert_eq!([of(59), of(600), of(7_200)], ["59 s", "10 min", "2 h"]);
    }
}
