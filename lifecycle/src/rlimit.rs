//! How many files and connections a container may hold open at once.

use std::os::fd::RawFd;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Ignore as _;

/// Raises the limit of open descriptors as far as it may be had for the asking, and says how many there are. The limit that
/// a process starts with, often 1,024, is meant for programs that use select(2).
pub fn raise_limit() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "the limit of open descriptors stays as it is");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Makes room in the kernel's table of this process's descriptors for so many at once, as far as the limit allows.
///
/// The table doubles whenever it is full, and in a process of several threads each time waits for all processors to let go of the old
/// one: a tenth of a second on a busy machine, in which no other thread opens or accepts anything. So this is called before the second
/// thread is started. The table never shrinks, and takes 8 bytes a descriptor.
pub fn make_room(descriptors: u64) {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let last = descriptors.min(limit).saturating_sub(1);
    let Ok(last) = RawFd::try_from(last) else { return };
    // Closed at once. Where it cannot be had, the table grows when it has to.
    fcntl_dupfd_cloexec(std::io::stderr(), last).map(drop).ignore();
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_has_room_from_then_on() {
        super::make_room(5000);
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).map(str::trim);
        let size: u64 = size.unwrap().parse().unwrap();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(size >= limit.min(5000), "{size}");
    }

    #[test]
    fn the_limit_becomes_the_hard_one() {
        let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
        assert_eq!(super::raise_limit(), hard);
    }
}
