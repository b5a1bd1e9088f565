//! Sync requests from outside: `POST /sync` waits here for its turn, and for its answer.
//!
//! What was asked for before a sync begins is answered by that sync, all of it at once. What comes while one is running waits for the
//! next: the running one may have looked before the change that the asker knows of.

use http::StatusCode;
use lifecycle::Ignore as _;
use lifecycle::admin::{self, Answer};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

/// Askers that wait at the same time; more than this is no neighbour but a fault.
const WAITING: usize = 64;

/// What an asker is told.
#[derive(Debug, Clone)]
pub(crate) struct SyncReply {
    /// Whether the volume is in step.
    pub(crate) status: StatusCode,
    /// How the sync ended.
    pub(crate) body: Value,
}

/// The asking side.
#[derive(Debug, Clone)]
pub(crate) struct SyncHandle(mpsc::Sender<oneshot::Sender<SyncReply>>);

/// The answering side.
#[derive(Debug)]
pub(crate) struct SyncRequests(mpsc::Receiver<oneshot::Sender<SyncReply>>);

/// Callers that one sync will answer.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Vec<oneshot::Sender<SyncReply>>);

pub(crate) fn channel() -> (SyncHandle, SyncRequests) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (SyncHandle(sender), SyncRequests(receiver))
}

impl SyncHandle {
    /// Asks for a sync, and waits until it has ended.
    pub(crate) async fn ask(self) -> Answer {
        let (sender, receiver) = oneshot::channel();
        let refused = match self.0.try_send(sender) {
            Err(mpsc::error::TrySendError::Full(_)) => "too many are waiting for a sync already",
            // Accepted: then only the end of the puller leaves it without an answer.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => "the puller is stopping",
        };
        receiver.await.map_or_else(
            |_| admin::json(StatusCode::SERVICE_UNAVAILABLE, &json!({"result": "refused", "error": refused})),
            |reply| admin::json(reply.status, &reply.body),
        )
    }
}

impl SyncRequests {
    /// Waits for the next request.
    pub(crate) async fn next(&mut self) -> Waiters {
        match self.0.recv().await {
            Some(sender) => Waiters(vec![sender]),
            // No caller is left that could ask.
            None => std::future::pending().await,
        }
    }

    /// Adds all callers that have asked by now.
    pub(crate) fn drain_pending(&mut self, asked: &mut Waiters) {
        while let Ok(sender) = self.0.try_recv() {
            asked.0.push(sender);
        }
    }
}

impl Waiters {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn answer(self, reply: &SyncReply) {
        for sender in self.0 {
            // The client has hung up.
            sender.send(reply.clone()).ignore();
        }
    }
}
