//! `stdout:`: records on standard output, one a line, confirmed when the kernel has taken them.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lifecycle::blocking;
use lifecycle::exit::{Exit, Failure, OrExit as _};

use super::attempt::{DeliveryError, Payload};

/// A standard output that does not block (its owner made it so) is tried again after this.
const FULL_PIPE: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Stdout {
    out: Arc<File>,
    /// How much of the payload that was begun is out: what follows a failure is the rest of it, not all of it again.
    written: usize,
}

impl Stdout {
    pub(super) fn new() -> Result<Self, Failure> {
        // A handle of our own: the standard library's would buffer by lines, and not say how far a failed write came.
        let out = io::stdout().as_fd().try_clone_to_owned().or_exit(Exit::Io)?;
        Ok(Self { out: Arc::new(out.into()), written: 0 })
    }

    pub(super) async fn attempt(&mut self, payload: &Payload) -> Result<(), DeliveryError> {
        let (out, rest) = (Arc::clone(&self.out), payload.body.slice(self.written..));
        // A reader that is slow, or stopped, blocks a write for as long as it likes. The agent does not wait for that when it leaves.
        let (written, outcome) = blocking(move || write_all(&out, &rest)).await;
        self.written += written;
        outcome.map_err(|error| DeliveryError::retry(format!("cannot write: {error}")))?;
        self.written = 0;
        Ok(())
    }
}

/// Says how much was written, whatever the outcome.
fn write_all(mut out: &File, rest: &Bytes) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < rest.len() {
        match out.write(&rest[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(FULL_PIPE),
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}
