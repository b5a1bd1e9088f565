//! A stream that is written to on a thread of its own: a terminal that was stopped with Ctrl-S, or a pipe whose reader hangs, holds
//! up neither a probe nor a restart.
//!
//! The queue is bounded. Lines for which it has no room are left out and counted, and the stream is told how many.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lifecycle::Ignore as _;
use parking_lot::{Condvar, Mutex};

/// How many texts wait at most: some seconds of all that a busy Pod says.
const ROOM: usize = 1_024;
/// How long a stream may take for what is left at the end.
const LAST_TEXTS: Duration = Duration::from_secs(1);

/// The writing end.
#[derive(Debug)]
pub(crate) struct Outlet(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    texts: VecDeque<String>,
    /// Lines that were left out since the last text.
    left_out: usize,
    /// Whether the thread is writing what it has taken.
    writing: bool,
}

impl Outlet {
    /// Starts the thread. It ends with the process.
    pub(crate) fn new(mut stream: impl Write + Send + 'static) -> Self {
        let shared = Arc::<Shared>::default();
        let read = Arc::clone(&shared);
        thread::spawn(move || {
            loop {
                let text = read.take();
                // A closed stream is no reason to stop a Pod.
                stream.write_all(text.as_bytes()).ignore();
            }
        });
        Self(shared)
    }

    /// Never waits.
    pub(crate) fn write(&self, text: String) {
        let mut queue = self.0.queue.lock();
        if queue.texts.len() >= ROOM {
            queue.left_out += text.matches('\n').count();
            return;
        }
        let notice = queue.notice();
        queue.texts.extend(notice);
        queue.texts.push_back(text);
        self.0.changed.notify_all();
    }

    /// Waits until everything is written, for a moment at most.
    pub(crate) fn flush(&self) {
        let mut queue = self.0.queue.lock();
        let is_busy = |queue: &mut Queue| queue.writing || !queue.is_empty();
        // What a stream has not taken by then is lost with it.
        self.0.changed.wait_while_for(&mut queue, is_busy, LAST_TEXTS);
    }
}

impl Shared {
    fn take(&self) -> String {
        let mut queue = self.queue.lock();
        queue.writing = false;
        self.changed.notify_all();
        self.changed.wait_while(&mut queue, |queue| queue.is_empty());
        queue.writing = true;
        queue.texts.pop_front().or_else(|| queue.notice()).unwrap_or_default()
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.left_out == 0
    }

    /// What stands in the place of the lines that were left out.
    fn notice(&mut self) -> Option<String> {
        let left_out = std::mem::take(&mut self.left_out);
        (left_out > 0).then(|| format!("{left_out} lines are left out here: they were not read in time\n"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_stream_that_is_not_read_holds_up_nothing_and_is_told_what_was_left_out() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let outlet = Outlet::new(writer);
        let line = format!("{}\n", "x".repeat(4_095));
        // More than the pipe and the queue have room for.
        let written = 4 * ROOM;
        for _ in 0..written {
            outlet.write(line.clone());
        }
        outlet.flush();
        // The pipe does not end, because the thread holds its other end: it is read until every line is accounted for.
        let (mut text, mut buffer) = (String::new(), vec![0; 64 << 10]);
        let (mut whole, mut left_out) = (0, 0);
        while whole + left_out < written {
            let read = reader.read(&mut buffer).unwrap();
            text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
            let end = text.rfind('\n').map_or(0, |end| end + 1);
            for said in text.drain(..end).collect::<String>().lines() {
                match said.strip_suffix(" lines are left out here: they were not read in time") {
                    Some(count) => left_out += count.parse::<usize>().unwrap(),
                    None => whole += usize::from(said.len() == line.len() - 1),
                }
            }
        }
        assert!(left_out > 0 && whole >= ROOM && whole + left_out == written, "{whole} and {left_out}");
    }

    #[test]
    fn what_is_flushed_is_in_the_stream() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let outlet = Outlet::new(writer);
        outlet.write("one\n".to_owned());
        outlet.flush();
        let mut buffer = [0; 8];
        let read = reader.read(&mut buffer).unwrap();
        assert_eq!(&buffer[..read], b"one\n");
    }
}
