//! What the programs `verify` and `labs` share: lines on stdout, and the first Ctrl-C.

use std::io::{self, Write as _};

use lifecycle::Ignore as _;
use lifecycle::exit::{Exit, Failure};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Prints a line of the program's product to stdout. A closed pipe is no reason to stop half way and leave things behind.
pub fn say(line: std::fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).ignore();
}

/// What so many checks of this kind come to, for people and as an exit code.
///
/// # Errors
/// Exit code 1 where one has failed: that is no defect of the program that has found it.
pub fn verdict(passed: usize, failed: usize, kind: &str) -> Result<(), Failure> {
    say(format_args!("{passed} passed, {failed} failed"));
    if failed > 0 {
        return Err(Failure::new(Exit::Failed, format!("{failed} of {} {kind} failed", passed + failed)));
    }
    Ok(())
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
