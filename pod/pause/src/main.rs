//! Holds a Pod's network namespace open, and does nothing else.
//!
//! In a cluster every Pod has such a container, made by the container runtime: it owns the network namespace, so that the
//! Pod keeps its address while the other containers come and go. Compose has no Pods and no such container, so
//! `deploy/compose.yaml` declares this one.
//!
//! Where the containers share a PID namespace as well, this process is its init: orphans are handed to it, and it reaps
//! them so that none stays a zombie.

use std::io;

use rustix::process::{WaitOptions, wait};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

fn main() -> io::Result<()> {
    // The kernel delivers to the first process of a PID namespace only the signals that it has a handler for.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGCHLD])?;
    for signal in signals.forever() {
        if signal != SIGCHLD {
            break;
        }
        // One SIGCHLD may stand for several children.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
    Ok(())
}
