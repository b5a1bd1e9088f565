//! `stdout:`: records on standard output, one a line, confirmed when the kernel has taken them.
//!
//! A reader that is slow, or stopped, blocks a write for as long as it likes. So the writing is done by a thread of its
//! own, which the agent never waits for when it leaves.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use lifecycle::Ignore as _;
use lifecycle::exit::{Exit, Failure, OrExit as _};
use tokio::sync::oneshot;

use super::attempt::{DeliveryError, Payload};

/// A standard output that does not block (its owner made it so) is tried again after this.
const FULL_PIPE: Duration = Duration::from_millis(10);

/// The agent's end of the thread.
#[derive(Debug)]
pub(super) struct Stdout {
    jobs: mpsc::Sender<Job>,
    /// How much of the payload that was begun is out: what follows a failure is the rest of it, not all of it again.
    written: usize,
}

#[derive(Debug)]
struct Job {
    rest: Bytes,
    done: oneshot::Sender<(usize, io::Result<()>)>,
}

impl Stdout {
    /// Starts the thread.
    pub(super) fn start() -> Result<Self, Failure> {
        // A handle of our own: the standard library's would buffer by lines, and not say how far a failed write came.
        let out = io::stdout().as_fd().try_clone_to_owned().or_exit(Exit::Io)?;
        let (jobs, todo) = mpsc::channel();
        std::thread::Builder::new()
            .name("stdout".to_owned())
            .spawn(move || write_all(File::from(out), &todo))
            .or_exit(Exit::Internal)?;
        Ok(Self { jobs, written: 0 })
    }

    pub(super) async fn attempt(&mut self, payload: &Payload) -> Result<(), DeliveryError> {
        let (done, answer) = oneshot::channel();
        let rest = payload.body.slice(self.written..);
        let thread_ended = || DeliveryError::retry("its thread has ended");
        self.jobs.send(Job { rest, done }).map_err(|_| thread_ended())?;
        let (written, outcome) = answer.await.map_err(|_| thread_ended())?;
        self.written += written;
        outcome.map_err(|error| DeliveryError::retry(format!("cannot write: {error}")))?;
        self.written = 0;
        Ok(())
    }
}

fn write_all(mut out: File, todo: &mpsc::Receiver<Job>) {
    while let Ok(Job { rest, done }) = todo.recv() {
        let mut written = 0;
        let outcome = loop {
            if written == rest.len() {
                break Ok(());
            }
            match out.write(&rest[written..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(FULL_PIPE),
                Err(error) => break Err(error),
            }
        };
        // Let go first, so that the memory can be used for the next payload.
        drop(rest);
        // There is no receiver left once the agent's time to drain is over.
        done.send((written, outcome)).ignore();
    }
}
