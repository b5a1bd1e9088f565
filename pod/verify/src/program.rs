//! What the programs `verify` and `labs` share: lines on stdout, and the first Ctrl-C.

use std::io::{self, Write as _};

use lifecycle::Ignore as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Prints a line of the program's product to stdout. A closed pipe is no reason to stop half way and leave things behind.
pub fn say(line: std::fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).ignore();
}

/// Calls `action` on a thread of its own at the first SIGINT or SIGTERM, with the exit code that shells give a program
/// that a signal has ended.
pub fn on_interrupt(action: impl FnOnce(i32) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            action(128 + signal);
        }
    });
    Ok(())
}
