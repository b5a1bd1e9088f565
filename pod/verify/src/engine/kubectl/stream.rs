//! What a container says, from its first line to its last: through its restarts, and beyond the end of its Pod.
//!
//! `kubectl logs` alone knows the present container and the one before it, as long as there is a Pod, and as much as the
//! kubelet has not rotated away.

use std::io::{self, BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::Context;
use crate::engine::command::end;

/// Between two attempts, when a container is not there at the moment.
const AGAIN: Duration = Duration::from_millis(200);
/// How long after its Pod's end a stream may still bring lines.
const LAST_LINES: Duration = Duration::from_secs(120);
/// Attempts without a line after which there is nothing to come, whatever became of the Pod.
const IN_VAIN: u32 = 50;

/// A line, and when the container wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) at: SystemTime,
    pub(super) text: String,
}

/// One container's lines, collected in the background until this is let go of.
#[derive(Debug)]
pub(super) struct LogStream {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Vec<Line>>,
    state: Mutex<State>,
    /// The Pod is no more, so what an attempt does not bring will never come.
    pod_is_gone: AtomicBool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Waiting,
    Reading(Child),
    Over,
}

impl LogStream {
    /// Begins with all that the present container has said so far.
    pub(super) fn follow(context: &Context, namespace: &str, pod: &str, container: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let collecting = Arc::clone(&shared);
        let place = ["--namespace", namespace, "logs", pod, "--container", container].map(str::to_owned);
        let context = context.clone();
        std::thread::spawn(move || collecting.collect(&context, &place));
        Self { shared }
    }

    /// All lines so far.
    pub(super) fn lines(&self) -> Vec<Line> {
        self.shared.lines.lock().clone()
    }

    /// To be told when the Pod has gone: waits until nothing more can come.
    pub(super) fn until_its_end(&self) -> io::Result<()> {
        self.shared.pod_is_gone.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        while !matches!(*self.shared.state.lock(), State::Over) {
            if begun.elapsed() > LAST_LINES {
                return Err(io::Error::other("a log stream outlives its Pod"));
            }
            std::thread::sleep(AGAIN);
        }
        Ok(())
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        if let State::Reading(child) = &mut *state {
            end(child);
        }
        *state = State::Over;
    }
}

impl Shared {
    /// One life of the container after the other.
    fn collect(&self, context: &Context, place: &[String]) {
        let mut in_vain = 0;
        while in_vain < IN_VAIN {
            let gone = self.pod_is_gone.load(Ordering::Relaxed);
            let before = self.lines.lock().last().map(|line| line.at);
            // Where a life was cut off, what it said at the very end is in the log of the previous container.
            self.read(context, place, &["--previous"], before);
            if !self.read(context, place, &["--follow"], before) {
                return;
            }
            let now = self.lines.lock().last().map(|line| line.at);
            in_vain = if now > before { 0 } else { in_vain + 1 };
            if gone && in_vain > 0 {
                break;
            }
            std::thread::sleep(AGAIN);
        }
        *self.state.lock() = State::Over;
    }

    /// Takes in what is later than `before`, and tells whether to go on.
    fn read(&self, context: &Context, place: &[String], args: &[&str], before: Option<SystemTime>) -> bool {
        let mut command = context.kubectl();
        command.args(place).arg("--timestamps").args(args);
        let stdout = {
            let mut state = self.state.lock();
            if matches!(*state, State::Over) {
                return false;
            }
            let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
            let Ok(mut child) = child else { return true };
            let stdout = child.stdout.take();
            *state = State::Reading(child);
            stdout
        };
        for line in stdout.map(BufReader::new).into_iter().flat_map(BufReader::lines).map_while(Result::ok) {
            if let Some(line) = parse(&line).filter(|line| before.is_none_or(|before| line.at > before)) {
                self.lines.lock().push(line);
            }
        }
        let mut state = self.state.lock();
        match &mut *state {
            State::Reading(child) => {
                end(child);
                *state = State::Waiting;
                true
            }
            _ => false,
        }
    }
}

/// Reads `2026-11-23T18:02:03.123456789Z text`.
fn parse(line: &str) -> Option<Line> {
    let (at, text) = line.split_once(' ')?;
    Some(Line { at: humantime::parse_rfc3339(at).ok()?, text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_as_kubectl_gives_it() {
        let line = parse("2026-11-23T18:02:03.5Z {\"id\": \"1\"}").unwrap();
        assert_eq!(line.text, "{\"id\": \"1\"}");
        assert_eq!(line.at, humantime::parse_rfc3339("2026-11-23T18:02:03.5Z").unwrap());
        assert_eq!(parse("nonsense"), None);
    }
}
