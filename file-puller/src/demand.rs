//! Syncs that somebody asked for: `POST /sync` waits here for its turn, and for its answer.
//!
//! What was asked for before a sync begins is answered by that sync, all of it at once. What comes while one is running waits for the
//! next: the running one may have looked before the change that the asker knows of.

use http::StatusCode;
use lifecycle::admin::{self, Answer};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

/// Askers that wait at the same time; more than this is no neighbour but a fault.
const WAITING: usize = 64;

/// What an asker is told.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Whether the volume is in step.
    pub status: StatusCode,
    /// How the sync ended.
    pub body: Value,
}

/// The asking side.
#[derive(Debug, Clone)]
pub struct Asker(mpsc::Sender<oneshot::Sender<Reply>>);

/// The answering side.
#[derive(Debug)]
pub struct Demand(mpsc::Receiver<oneshot::Sender<Reply>>);

/// Those whom one sync will answer.
#[derive(Debug, Default)]
pub struct Asked(Vec<oneshot::Sender<Reply>>);

/// Both sides.
pub fn channel() -> (Asker, Demand) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Asker(sender), Demand(receiver))
}

impl Asker {
    /// Asks for a sync, and waits until it has ended.
    pub async fn ask(self) -> Answer {
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

impl Demand {
    /// Waits until somebody asks.
    pub async fn first(&mut self) -> Asked {
        match self.0.recv().await {
            Some(sender) => Asked(vec![sender]),
            // Nobody can ask any more; then nobody does.
            None => std::future::pending().await,
        }
    }

    /// Adds whoever has asked by now.
    pub fn join(&mut self, asked: &mut Asked) {
        while let Ok(sender) = self.0.try_recv() {
            asked.0.push(sender);
        }
    }
}

impl Asked {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells all of them.
    pub fn answer(self, reply: &Reply) {
        for sender in self.0 {
            // Who hung up does not want to know.
            drop(sender.send(reply.clone()));
        }
    }
}
