//! The engine on a thread of its own, and the handle with which the event loop tells it what to do.
//!
//! The engine's disk calls are plain calls: they hold up the engine and nothing else. Probes, signals and timers are the event
//! loop's, which never waits for a disk.

use std::sync::Arc;
use std::thread;

use lifecycle::Ignore as _;
use lifecycle::exit::{Exit, Failure, OrExit as _};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use super::error::SyncError;
use super::outcome::{Awaited, Interrupt, Outcome, Revision, Verdict};
use crate::source::Source;

/// Threads besides the engine's own: one that writes what is downloaded, or unpacks.
const DISK_THREADS: usize = 2;

/// What the engine can be told to do. Commands are carried out one after another.
enum Command {
    Sync(oneshot::Sender<(Result<Outcome, SyncError>, Option<Revision>)>),
    Verify { interrupt: Interrupt, reply: oneshot::Sender<Result<Verdict, SyncError>> },
    AwaitChange { stop: CancellationToken, reply: oneshot::Sender<Result<Awaited, SyncError>> },
    Upkeep,
}

/// Tells the engine what to do. Once it is dropped, the engine ends after the command that it carries out.
#[derive(Debug)]
pub(crate) struct EngineHandle {
    commands: mpsc::UnboundedSender<Command>,
    ended: oneshot::Receiver<()>,
    source: Arc<Source>,
}

impl EngineHandle {
    /// Starts the thread.
    pub(crate) fn spawn(engine: Engine) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(DISK_THREADS)
            .build()
            .or_exit(Exit::Internal)?;
        let (commands, receiver) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        let source = engine.source();
        let run = move || {
            runtime.block_on(carry_out(engine, receiver));
            // Not received: then nothing waits for it.
            end.send(()).ignore();
        };
        thread::Builder::new().name("engine".to_owned()).spawn(run).or_exit(Exit::Internal)?;
        Ok(Self { commands, ended, source })
    }

    /// Brings the volume in step. Returns also what the published release is in its source, where that has names for its states.
    pub(crate) async fn sync(&self) -> (Result<Outcome, SyncError>, Option<Revision>) {
        self.tell(Command::Sync).await
    }

    /// Re-reads the published release and puts right what is damaged, unless it is interrupted.
    pub(crate) async fn verify(&self, interrupt: Interrupt) -> Result<Verdict, SyncError> {
        self.tell(|reply| Command::Verify { interrupt, reply }).await
    }

    /// Whether the source can be asked to wait, as far as its last answer says.
    pub(crate) fn can_wait(&self) -> bool {
        self.source.can_wait()
    }

    /// Waits until the source has something new. When `stop` is cancelled, it waits no longer, and what it has received by then is not used.
    pub(crate) async fn await_change(&self, stop: CancellationToken) -> Result<Awaited, SyncError> {
        self.tell(|reply| Command::AwaitChange { stop, reply }).await
    }

    /// Has the engine do what can wait until a sync is answered. Does not wait for it.
    pub(crate) fn upkeep(&self) {
        // Not received only when the engine has ended.
        self.commands.send(Command::Upkeep).ignore();
    }

    /// Waits until the engine has ended, once it has carried out what it was told before.
    pub(crate) async fn end(self) {
        let Self { commands, ended, .. } = self;
        drop(commands);
        // An engine that is gone has ended.
        ended.await.ignore();
    }

    async fn tell<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> T {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).ignore();
        match answer.await {
            Ok(answer) => answer,
            // The engine ends only after its handle, or with the whole process.
            Err(_) => std::future::pending().await,
        }
    }
}

async fn carry_out(mut engine: Engine, mut commands: mpsc::UnboundedReceiver<Command>) {
    while let Some(command) = commands.recv().await {
        // A reply is not received when the event loop has ended meanwhile.
        match command {
            Command::Sync(reply) => reply.send((engine.sync().await, engine.revision())).ignore(),
            Command::Verify { interrupt, reply } => reply.send(engine.verify(&interrupt).await).ignore(),
            Command::AwaitChange { stop, reply } => reply.send(engine.await_change(stop).await).ignore(),
            Command::Upkeep => engine.upkeep(),
        }
    }
}
