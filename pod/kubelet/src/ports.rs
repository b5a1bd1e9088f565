//! The Pod's five ports: free before anything is started, or one line about who has them; and whether a container has its own.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use lifecycle::exit::{Exit, Failure};
use rustix::process::Pid;

use crate::flags::Flags;
use crate::proc::{age, kubelet_of, processes, program, stat};
use crate::{volumes, watcher};

/// This program, as the kernel calls it.
const KUBELET: &str = env!("CARGO_PKG_NAME");
/// The highest port that is the first of five.
const LAST_PORT: u16 = u16::MAX - 4;

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
        let elsewhere = elsewhere(flags);
        let reason = match holder(addr) {
            Some(Holder::Demo { pid }) => {
                let age = rough(age(pid).unwrap_or_default());
                format!(
                    "a Pod runs here for {age}, pid {pid}: stop it with Ctrl-C there or `kill {pid}`, or {elsewhere}"
                )
            }
            Some(Holder::KilledDemo { pid }) => left_behind(pid),
            Some(Holder::Other { pid, program }) => {
                format!("{what}: {program}, pid {pid}, has the port; {elsewhere}")
            }
            None => format!("{what}: the port is taken; {elsewhere}"),
        };
        return Err(Failure::new(Exit::Unavailable, reason));
    }
    Ok(())
}

/// The flags of a Pod beside this one.
fn elsewhere(flags: &Flags) -> String {
    let port = flags.port.checked_add(100).filter(|port| *port <= LAST_PORT).unwrap_or(flags.port - 100);
    match flags.ip {
        IpAddr::V4(ip) if ip.is_loopback() => {
            let [a, b, c, d] = ip.octets();
            format!("start another with --port {port} or --ip {}", Ipv4Addr::new(a, b, c, d % 254 + 1))
        }
        _ => format!("start another with --port {port}"),
    }
}

/// What a demo that was killed together with its watcher has left, and the command that ends it.
fn left_behind(kubelet: i32) -> String {
    let (watchers, containers): (Vec<i32>, Vec<i32>) =
        of_kubelet(kubelet).partition(|pid| program(*pid).is_some_and(|name| name == watcher::NAME));
    if !watchers.is_empty() {
        return format!("the Pod of a killed demo, pid {kubelet}, is being ended: try again in some seconds");
    }
    let pids: Vec<String> = containers.iter().map(ToString::to_string).collect();
    // SIGKILL, so that no process adds a file to the folder while that is removed.
    let kill = format!("kill -9 {}", pids.join(" "));
    let folder = volumes::left_by(kubelet, &containers);
    let command = match folder.as_deref().and_then(quoted) {
        Some(folder) => format!("{kill}; rm -r {folder}"),
        None => kill,
    };
    format!("a killed demo, pid {kubelet}, has left its Pod behind: end it with `{command}`, and try again")
}

/// A path as one word for a shell. None for a path that the line of a failure would not repeat as it is, because white space is
/// folded there.
fn quoted(path: &Path) -> Option<String> {
    let path = path.to_str()?;
    let folded = path.split_whitespace().collect::<Vec<_>>().join(" ");
    (folded == path && !path.contains(char::is_control)).then(|| format!("'{}'", path.replace('\'', r"'\''")))
}

/// The processes that this kubelet has started.
fn of_kubelet(kubelet: i32) -> impl Iterator<Item = i32> {
    processes().filter(move |pid| kubelet_of(*pid) == Some(kubelet))
}

/// Who listens on a port.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    /// A container of a demo that runs; `pid` is the kubelet's.
    Demo { pid: i32 },
    /// A container of a demo that runs no more.
    KilledDemo { pid: i32 },
    /// Another program.
    Other { pid: i32, program: String },
}

/// The program that listens there, as far as /proc tells this user (proc(5)).
fn holder(addr: SocketAddr) -> Option<Holder> {
    let sockets = listening(addr);
    let pid = processes().find(|pid| has_one_of(*pid, &sockets))?;
    match kubelet_of(pid) {
        Some(pid) if program(pid).is_some_and(|program| program == KUBELET) => Some(Holder::Demo { pid }),
        Some(pid) => Some(Holder::KilledDemo { pid }),
        None => Some(Holder::Other { pid, program: program(pid)? }),
    }
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
    use std::process::{Command, Stdio};

    use clap::Parser as _;

    use super::*;
    use crate::proc::KUBELET_PID;

    #[test]
    fn the_holder_of_a_port_is_found() {
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listening.local_addr().unwrap();
        let Some(Holder::Other { pid, .. }) = holder(addr) else { panic!("no holder, or a demo") };
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

    #[test]
    fn a_hint_names_a_port_and_an_address_that_are_not_the_taken_ones() {
        for (args, hint) in [
            (&["kubelet"][..], "--port 9976 or --ip 127.0.0.2"),
            (&["kubelet", "--ip", "127.0.0.2", "--port", "50000"], "--port 50100 or --ip 127.0.0.3"),
            (&["kubelet", "--ip", "127.0.0.254", "--port", "65531"], "--port 65431 or --ip 127.0.0.1"),
            (&["kubelet", "--ip", "::1"], "--port 9976"),
        ] {
            assert_eq!(elsewhere(&Flags::parse_from(args)), format!("start another with {hint}"));
        }
    }

    #[test]
    fn a_path_is_one_word_for_a_shell_or_is_not_offered() {
        assert_eq!(quoted(Path::new("/tmp/o'brien a")).as_deref(), Some(r"'/tmp/o'\''brien a'"));
        for folded in ["/tmp/a  b", "/tmp/a\nb", "/tmp/a\u{a0}b", "/tmp/a\u{1b}[2J"] {
            assert_eq!(quoted(Path::new(folded)), None, "{folded:?}");
        }
    }

    /// A watcher takes its time: each container has a grace period.
    #[test]
    fn a_pod_that_its_watcher_still_ends_is_told_from_one_that_is_left_behind() {
        // No kubelet has this number, and no other run of the tests.
        let kubelet = -i32::try_from(std::process::id()).unwrap();
        let start = |name: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("printf {name} > /proc/$$/comm; read end")]);
            command.env(KUBELET_PID, kubelet.to_string()).stdin(Stdio::piped());
            let child = command.spawn().unwrap();
            let pid = i32::try_from(child.id()).unwrap();
            testkit::wait_until("it has its name", || program(pid).is_some_and(|known| known == name));
            child
        };
        let (mut server, mut watcher) = (start("web-server"), start(watcher::NAME));
        assert!(left_behind(kubelet).contains("is being ended"), "{}", left_behind(kubelet));
        // Its input ends before it is waited for, and so does the process.
        watcher.wait().unwrap();
        let command = format!("`kill -9 {}`", server.id());
        assert!(left_behind(kubelet).contains(&command), "{}", left_behind(kubelet));
        server.wait().unwrap();
    }
}
