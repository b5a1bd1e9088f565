//! The event loop: it answers probes, talks to receivers, and has checkpoints written. Files are read on a thread of their own
//! (`reader`), so that no disk makes this loop wait.

mod checkpoint_schedule;
mod drain;
mod reader;
mod status;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use lifecycle::Ignore as _;
use lifecycle::exit::{Exit, Failure, OrExit as _};
use lifecycle::signals::Signals;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

use crate::checkpoint::CheckpointWriter;
use crate::deliver::Sink;
use crate::position::SinkIndex;
use crate::record::chunk::Chunk;
pub(crate) use checkpoint_schedule::Checkpoints;
use drain::Drain;
pub(crate) use reader::{Feed, Message, Reader, Report, Until};
pub(crate) use status::{FileLag, SinkStatus, Status};

/// The event loop and all that it works with.
pub(crate) struct Agent {
    pub(crate) to_reader: Sender<Message>,
    pub(crate) reports: UnboundedReceiver<Report>,
    pub(crate) sinks: JoinSet<()>,
    pub(crate) writer: CheckpointWriter,
    pub(crate) status: Arc<Status>,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) termination_log: PathBuf,
}

impl Agent {
    /// Works until it is told to stop, or until the reader has come to its end.
    ///
    /// # Errors
    /// 69 where a sink did not take everything in time; 70 where the reader's thread cannot be had.
    pub(crate) async fn work(mut self, reader: Reader, signals: &Signals) -> Result<(), Failure> {
        std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || reader.run())
            .or_exit(Exit::Internal)?;
        let mut drain: Option<Drain> = None;
        loop {
            let draining = drain.is_some();
            tokio::select! {
                biased;
                () = signals.shutdown.cancelled(), if !draining => {
                    drain = Some(Drain::within(self.shutdown_timeout));
                    self.tell(Message::Drain);
                }
                () = sleep_until(drain.map_or_else(tokio::time::Instant::now, |drain| drain.deliver_until)), if draining => break,
                report = self.reports.recv() => match report {
                    Some(Report::Checkpoint(entries)) => self.writer.write(entries),
                    Some(Report::Finished | Report::Ended(..)) | None => break,
                },
                written = self.writer.written() => self.tell(Message::Checkpointed(written)),
                () = signals.hangup.notified() => self.tell(Message::Rescan),
            }
        }
        let drain = drain.unwrap_or_else(|| Drain::within(self.shutdown_timeout));
        self.shut_down(drain).await
    }

    fn tell(&self, message: Message) {
        // Fails only where the reader has ended, which its report says.
        self.to_reader.send(message).ignore();
    }

    /// Ends what is under way, writes the last checkpoint and says how it went.
    async fn shut_down(mut self, drain: Drain) -> Result<(), Failure> {
        // What was confirmed until now counts, and nothing after it: what is entered as lost must not arrive.
        self.sinks.shutdown().await;
        self.tell(Message::Stop);
        let ended = timeout_at(drain.leave_by, async {
            while let Some(report) = self.reports.recv().await {
                if let Report::Ended(entries, remains) = report {
                    return Some((entries, remains));
                }
            }
            None
        });
        let Ok(Some((entries, remains))) = ended.await else {
            return Err(Failure::new(
                Exit::Unavailable,
                "drained: the thread that reads did not end in time, because a disk did not answer it or it got no CPU, so nothing is \
                 known of what remains; the next start ships it, from the last checkpoint on",
            ));
        };
        self.writer.write_by(drain.leave_by, entries).await;
        drain::verdict(&remains, &self.status, self.writer.failure(), &self.termination_log)
    }
}

/// Delivers chunks to a sink, one after the other, and tells the reader of each that was confirmed. Returns the way to the sink.
pub(crate) fn run_sink(
    sinks: &mut JoinSet<()>,
    index: SinkIndex,
    mut sink: Sink,
    reader: Sender<Message>,
) -> tokio::sync::mpsc::UnboundedSender<Chunk> {
    let (to, mut chunks) = unbounded_channel::<Chunk>();
    sinks.spawn(async move {
        while let Some(mut chunk) = chunks.recv().await {
            sink.deliver(&mut chunk).await;
            // Fails only where the reader has ended.
            reader.send(Message::Delivered(index, chunk)).ignore();
        }
    });
    to
}
