//! A neighbour in the Pod, and what was seen of it: whether it answers, what it said last, how often it was restarted.

use std::time::Duration;

use crate::client::Client;
use crate::snapshot::{Container, State};
use crate::status::Status;

/// How long a neighbour may take for an answer. Together with the time between two rounds it is how late a container that hangs
/// is seen to.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A neighbour, and what was seen of it.
#[derive(Debug)]
pub(super) struct Peer<S> {
    neighbour: Client,
    /// What it said last, however long ago.
    pub(super) last: Option<S>,
    restarts: u32,
}

impl<S: Status> Peer<S> {
    /// Nothing was seen of it yet.
    pub(super) fn new(neighbour: Client) -> Self {
        Self { neighbour, last: None, restarts: 0 }
    }

    /// No page watches: the connection to it is let go.
    pub(super) fn hang_up(&mut self) {
        self.neighbour.hang_up();
    }

    /// Asks it once.
    pub(super) async fn poll(&mut self) -> Container {
        let answer = self.neighbour.get("/status", TIMEOUT).await;
        let found = answer.and_then(|answer| S::read(&answer));
        let reason = match found {
            Ok(status) => {
                let known = self.last.as_ref().map(|last| &last.common().said.started);
                if known.is_some_and(|started| *started != status.common().said.started) {
                    self.restarts += 1;
                }
                self.last = Some(status);
                None
            }
            Err(reason) => Some(reason),
        };
        let last = self.last.as_ref().map(S::common);
        Container {
            name: S::NAME,
            admin: self.neighbour.addr().port(),
            state: if reason.is_none() { State::Up } else { State::Down },
            reason,
            last: last.map(|common| common.said.clone()),
            restarts: self.restarts,
            probes: last.and_then(|common| common.probes.clone()),
        }
    }
}
