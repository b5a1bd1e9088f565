//! The commands that an engine is driven with: each one whole, with its own words when it fails, and none left running
//! when the user interrupts.

use std::ffi::OsStr;
use std::io::{self, Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lifecycle::Ignore as _;
use parking_lot::RwLock;

/// Set once, by the first Ctrl-C.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Held shared by every command that runs, so that who wants to clean up can wait until none does.
static RUNNING: RwLock<()> = RwLock::new(());
const POLL: Duration = Duration::from_millis(5);

/// Whether a command is part of the work or of clearing up after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Work,
    CleanUp,
}

/// Ends all commands that are running, and refuses new ones but those that clean up.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
    drop(RUNNING.write());
}

/// Whether the user has interrupted; what fails from then on has not failed by itself.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Runs a command to its end and returns what it printed.
pub fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> io::Result<Vec<u8>> {
    carry_out(Command::new(program).args(args), &[], Purpose::Work)
}

/// Runs a command as prepared, which reads `input`.
pub fn feed(command: &mut Command, input: &str) -> io::Result<Vec<u8>> {
    carry_out(command, input.as_bytes(), Purpose::Work)
}

/// Runs a command as prepared: its environment, its folder.
pub fn run_prepared(command: &mut Command) -> io::Result<Vec<u8>> {
    carry_out(command, &[], Purpose::Work)
}

/// Runs a command that clears up: also after an interrupt.
pub fn clean_up(command: &mut Command) -> io::Result<Vec<u8>> {
    carry_out(command, &[], Purpose::CleanUp)
}

/// What a command writes to stderr, or why it cannot: for `logs` commands, which pass a container's diagnostics on there.
pub fn diagnostics(command: &mut Command) -> String {
    match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output() {
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => format!("{}: {error}\n", describe(command)),
    }
}

/// What a command printed, as a line of text.
pub fn text(printed: &[u8]) -> String {
    String::from_utf8_lossy(printed).trim().to_owned()
}

fn carry_out(command: &mut Command, input: &[u8], purpose: Purpose) -> io::Result<Vec<u8>> {
    let _running = (purpose == Purpose::Work).then(|| RUNNING.read());
    let unwanted = || purpose == Purpose::Work && interrupted();
    if unwanted() {
        return Err(io::ErrorKind::Interrupted.into());
    }
    let named = describe(command);
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| io::Error::new(error.kind(), format!("{named}: {error}")))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read to the end has its reasons, and says them itself.
        stdin.write_all(input).ignore();
    }
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if unwanted() {
            end(&mut child);
            return Err(io::ErrorKind::Interrupted.into());
        }
        std::thread::sleep(POLL);
    };
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    if status.success() {
        return Ok(stdout);
    }
    Err(io::Error::other(format!("{named}: {status}: {}", last_words(&String::from_utf8_lossy(&stderr)))))
}

/// The end of what a command said, on one line: the cause is there, whatever was said before it.
fn last_words(stderr: &str) -> String {
    const ENOUGH: usize = 600;
    let words: Vec<&str> = stderr.split_whitespace().collect();
    let said = words.join(" ");
    let cut = said.char_indices().rev().nth(ENOUGH).map_or(0, |(at, _)| at);
    if said.is_empty() { "it does not say why".to_owned() } else { said[cut..].to_owned() }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before a pipe broke is still worth having.
            pipe.read_to_end(&mut all).ignore();
        }
        all
    })
}

/// Ends a child and takes its status, so that no zombie stays.
pub(super) fn end(child: &mut Child) {
    // Already ended is as good as killed.
    child.kill().ignore();
    child.wait().ignore();
}

/// The program and its first words: enough to know it by, short enough for one line.
fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args()).take(8);
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_which_command_and_why() {
        let error = run("sh", ["-c", "echo the reason >&2; exit 3"]).unwrap_err().to_string();
        assert!(error.starts_with("sh -c") && error.ends_with("exit status: 3: the reason"), "{error}");
        let error = run("no-such-engine", ["up"]).unwrap_err().to_string();
        assert!(error.starts_with("no-such-engine up: "), "{error}");
    }

    #[test]
    fn what_goes_in_and_what_comes_out() {
        assert_eq!(feed(&mut Command::new("cat"), "hello").unwrap(), b"hello");
        assert_eq!(text(&run("echo", ["hello"]).unwrap()), "hello");
    }
}
