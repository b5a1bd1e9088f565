//! A shell that is typed into, and what its terminal shows.
//!
//! It is bash with job control, as at a prompt: every command is a process group of its own, so that Ctrl-C meets the
//! command and not the shell.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use lifecycle::Ignore as _;
use rustix::process::{Pid, Signal, kill_process_group};
use testkit::process::Lines;

use super::descendants::children;

const POLL: Duration = Duration::from_millis(10);
/// What no program prints, before the status of the command that has ended.
const MARK: char = '\u{1e}';

/// A shell and everything that was shown in its terminal.
#[derive(Debug)]
pub(crate) struct Shell {
    bash: Child,
    input: ChildStdin,
    lines: Lines,
    /// How many lines the page has come past.
    seen: usize,
}

/// How a command has ended, or that it has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With this exit code, and everything that it showed.
    Ended(i32, Vec<String>),
    /// It still runs, and has shown this so far.
    Runs(Vec<String>),
}

impl Shell {
    /// A shell in `folder`.
    pub(crate) fn open(folder: &Path, environment: &[(String, impl AsRef<OsStr>)]) -> io::Result<Self> {
        // One pipe for both streams, so that lines come in the order in which they were written, as on a screen.
        let (reader, writer) = io::pipe()?;
        // A shell cannot trap what was ignored when it started, and in the background of a script SIGINT is ignored.
        let mut bash = Command::new("env")
            .args(["--default-signal=INT", "bash", "--noprofile", "--norc"])
            .current_dir(folder)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("bash: {error}")))?;
        let mut input = bash.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        // As an option of its own, `-m` would ask for a terminal.
        writeln!(input, "set -m")?;
        let lines = Lines::of(reader);
        Ok(Self { bash, input, lines, seen: 0 })
    }

    /// Types a command. It reads nothing: what comes next is for the shell.
    pub(crate) fn type_in(&mut self, command: &str) -> io::Result<()> {
        self.seen = self.lines.so_far().len();
        write!(self.input, "{{\n{command}\n}} </dev/null\nprintf '\\n{MARK}%d\\n' $?\n")?;
        self.input.flush()
    }

    /// Presses Ctrl-C: SIGINT for the process group of the command that runs.
    pub(crate) fn interrupt(&mut self) -> io::Result<()> {
        self.seen = self.lines.so_far().len();
        // The last one that was begun: a command in the background is an earlier one. Each leads a group of its own.
        let foreground =
            children(Pid::from_child(&self.bash)).into_iter().max_by_key(|pid| pid.as_raw_nonzero());
        let foreground =
            foreground.ok_or_else(|| io::Error::other("^C, and nothing runs in this terminal"))?;
        Ok(kill_process_group(foreground, Signal::INT)?)
    }

    /// Waits until the command that was typed last has ended, for so long.
    pub(crate) fn wait(&mut self, limit: Duration) -> Outcome {
        let begun = Instant::now();
        loop {
            let lines = self.lines.so_far();
            let unseen = &lines[self.seen..];
            if let Some(end) = unseen.iter().position(|line| line.starts_with(MARK)) {
                let code = unseen[end][MARK.len_utf8()..].parse().unwrap_or(-1);
                // The mark stands on a line of its own: one line end before it is ours.
                let before = &unseen[..end];
                let said = before.strip_suffix(&[String::new()]).unwrap_or(before).to_vec();
                self.seen += end + 1;
                return Outcome::Ended(code, said);
            }
            if begun.elapsed() > limit || self.has_ended() {
                return Outcome::Runs(unseen.to_vec());
            }
            std::thread::sleep(POLL);
        }
    }

    /// What was shown since the page came past. Where a command has ended, there is a line that no page can show.
    pub(crate) fn unseen(&self) -> Vec<String> {
        let lines = self.lines.so_far();
        lines[self.seen.min(lines.len())..].to_vec()
    }

    /// Comes past so many lines of what was not seen yet.
    pub(crate) fn pass(&mut self, lines: usize) {
        self.seen += lines;
    }

    /// Says goodbye: the shell goes when it has nothing more to read.
    pub(crate) fn close(self) {
        let Self { mut bash, input, .. } = self;
        drop(input);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            if !matches!(bash.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(POLL);
        }
        // Both fail only where the shell has ended meanwhile.
        bash.kill().ignore();
        bash.wait().ignore();
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.bash.try_wait(), Ok(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    fn shell() -> Shell {
        Shell::open(Path::new("/"), &[] as &[(String, String)]).unwrap()
    }

    fn lines(text: &[&str]) -> Vec<String> {
        text.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn one_shell_sees_every_command() {
        let mut shell = shell();
        shell.type_in("greeting=hello; cd /tmp").unwrap();
        assert_eq!(shell.wait(TIMEOUT), Outcome::Ended(0, vec![]));
        shell.type_in("printf \"$greeting $PWD\"; false").unwrap();
        assert_eq!(shell.wait(TIMEOUT), Outcome::Ended(1, lines(&["hello /tmp"])));
        shell.type_in("echo to stderr >&2\necho\nread nothing || echo the end").unwrap();
        assert_eq!(shell.wait(TIMEOUT), Outcome::Ended(0, lines(&["to stderr", "", "the end"])));
    }

    #[test]
    fn ctrl_c_meets_the_command_and_not_the_shell() {
        let mut shell = shell();
        let command = "bash -c 'trap \"echo bye; exit 3\" INT; echo up; while :; do sleep 0.01; done'";
        shell.type_in(command).unwrap();
        let begun = Instant::now();
        while shell.unseen() != lines(&["up"]) {
            assert!(begun.elapsed() < TIMEOUT, "{:?}", shell.unseen());
            std::thread::sleep(POLL);
        }
        assert_eq!(shell.wait(Duration::ZERO), Outcome::Runs(lines(&["up"])));
        shell.interrupt().unwrap();
        let outcome = shell.wait(TIMEOUT);
        assert!(
            matches!(&outcome, Outcome::Ended(3, said) if said.contains(&"bye".to_owned())),
            "{outcome:?}"
        );
        shell.type_in("echo here").unwrap();
        assert_eq!(shell.wait(TIMEOUT), Outcome::Ended(0, lines(&["here"])));
    }
}
