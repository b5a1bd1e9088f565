//! How a container ends: an exit code that means something, and one last line that says why.
//!
//! The codes are those of BSD's `sysexits.h`, which init systems and people already know. The line goes to stderr and
//! to the termination message, where `kubectl describe pod` shows it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::{Container, Ignore as _};

/// How long stderr may take for the last line.
const LAST_LINE: Duration = Duration::from_secs(1);

/// The documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 1: a check, a page or the Pod that a program ran has failed, and the program itself has not. No container ends with it.
    Failed = 1,
    /// 64: a flag or its value is wrong.
    Usage = 64,
    /// 69: a source or sink that is needed right now cannot be reached.
    Unavailable = 69,
    /// 70: a defect of our own.
    Internal = 70,
    /// 74: the disk or the network of this machine refused.
    Io = 74,
    /// 78: content or configuration was read and refused.
    Refused = 78,
}

/// A container's end that is not a success: the code, and the reason in one line.
#[derive(Debug)]
pub struct Failure {
    /// What the process exits with.
    pub exit: Exit,
    reason: anyhow::Error,
}

impl Failure {
    /// A failure with a reason of its own.
    pub fn new(exit: Exit, reason: impl Into<String>) -> Self {
        Self { exit, reason: anyhow::Error::msg(reason.into()) }
    }
}

impl std::fmt::Display for Failure {
    /// The whole chain of causes, on one line whatever the causes contain.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&one_line(&format!("{:#}", self.reason)))
    }
}

/// Gives an error its exit code, where it leaves the library.
pub trait OrExit<T> {
    /// Turns the error into a [`Failure`] that ends the process with `exit`.
    ///
    /// # Errors
    /// The same error, with the code.
    fn or_exit(self, exit: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|error| Failure { exit, reason: error.into() })
    }
}

/// Ends `main`: nothing to say on success; on failure one line to the termination message and to stderr.
pub fn report(container: &Container, termination_log: &Path, outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let line = format!("{}: {failure}", container.name);
            report_fatal(termination_log, &line);
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// Writes `line` to the termination message, where the kubelet made the file, and to stderr. A terminal that was stopped with Ctrl-S
/// and a pipe whose reader hangs take nothing, and hold up the end for a second at most.
pub fn report_fatal(termination_log: &Path, line: &str) {
    write_termination_message(termination_log, line);
    let (written, end) = mpsc::channel();
    let line = format!("{line}\n");
    let write = move || {
        // There is nowhere left to report a failed write to.
        std::io::stderr().write_all(line.as_bytes()).ignore();
        written.send(()).ignore();
    };
    match thread::Builder::new().spawn(write.clone()) {
        // A line that was not taken by then is lost.
        Ok(_) => end.recv_timeout(LAST_LINE).ignore(),
        // No thread is to be had, and the line matters more than the time that it takes.
        Err(_) => write(),
    }
}

/// Writes the termination message alone, for a container that ends well and has something to say.
pub fn write_termination_message(termination_log: &Path, line: &str) {
    // The kubelet creates the file and mounts it. Where it is absent there is no kubelet, and a file that we made up
    // would only be litter.
    if let Ok(mut file) = OpenOptions::new().write(true).truncate(true).open(termination_log) {
        writeln!(file, "{line}").ignore();
    }
}

/// Makes a panic, which is a defect of ours, end the process as the contract says: one line, and exit code 70.
pub fn on_panic(container: &Container, termination_log: &'static str) {
    let name = container.name;
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or_else(|| "somewhere".to_owned(), ToString::to_string);
        let payload = panic.payload();
        let what =
            payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        let what = what.unwrap_or("no reason given");
        let line = format!("{name}: a defect at {place}: {}; please report it", one_line(what));
        report_fatal(termination_log.as_ref(), &line);
        std::process::exit(Exit::Internal as i32);
    }));
}

/// Folds line breaks, so that a message from a library cannot break the promise of one line.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    const CONTAINER: Container = Container { name: "web-server", admin_port: 9877, version: "0" };

    #[test]
    fn a_failure_is_one_line_with_its_causes() {
        let error: Result<(), _> = Err(anyhow::anyhow!("no such\nfile")).context("cannot open /srv");
        let failure = error.or_exit(Exit::Io).unwrap_err();
        assert_eq!(failure.to_string(), "cannot open /srv: no such file");
        assert_eq!(failure.exit, Exit::Io);
    }

    #[test]
    fn the_termination_message_is_written_only_where_the_kubelet_made_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("absent");
        let _code = report(&CONTAINER, &absent, Err(Failure::new(Exit::Refused, "no")));
        assert!(!absent.exists());

        let present = dir.path().join("termination-log");
        std::fs::write(&present, "an older and longer message").unwrap();
        let _code = report(&CONTAINER, &present, Err(Failure::new(Exit::Refused, "no")));
        assert_eq!(std::fs::read_to_string(&present).unwrap(), "web-server: no\n");
    }
}
