//! One sink's side of the agent: a chunk that fills while the one before is delivered. Never more than these two, so that a
//! sink that is slow or down costs two chunks of memory, whatever waits in the files.

use tokio::task::JoinSet;

use crate::deliver::Sink;
use crate::loss::LossLedger;
use crate::record::chunk::Chunk;
use crate::tail::{Catalog, Progress, ReadOptions, ReadQueue, UnterminatedLine, Until};

/// A delivery that was confirmed: the sink and the chunk come back to the pipeline they left.
#[derive(Debug)]
pub(crate) struct Delivered {
    /// Which pipeline.
    pub(crate) pipeline: usize,
    sink: Sink,
    chunk: Chunk,
}

/// What a pipeline needs in order to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Something to happen.
    Wait,
    /// A look at all names: a file's content was replaced, and a copy of it may be there under another name.
    Scan,
}

/// From the files to one sink.
#[derive(Debug)]
pub(crate) struct Pipeline {
    index: usize,
    /// The files that may have something to read for it.
    pub(crate) queue: ReadQueue,
    filling: Chunk,
    /// What is not under way; both are while a delivery is.
    idle: Option<(Sink, Chunk)>,
}

impl Pipeline {
    /// For the sink with this index.
    pub(crate) fn new(index: usize, sink: Sink, chunk_size: usize) -> Self {
        let chunk = || Chunk::new(chunk_size, sink.purpose());
        let (filling, empty) = (chunk(), chunk());
        Self { index, queue: ReadQueue::default(), filling, idle: Some((sink, empty)) }
    }

    /// Reads as much as the chunk takes, and sends it off if nothing is under way. There is no waiting for a chunk to fill:
    /// while the sink is quick, a line leaves as soon as it is read; while it is slow, chunks fill by themselves.
    pub(crate) fn step(
        &mut self,
        catalog: &mut Catalog,
        until: Until,
        options: &mut ReadOptions,
        ledger: &LossLedger,
        deliveries: &mut JoinSet<Delivered>,
    ) -> Next {
        let mut next = Next::Wait;
        while !self.filling.is_full()
            && let Some(seq) = self.queue.next()
        {
            let last_line = match until {
                Until::EndOfFiles => UnterminatedLine::Emit,
                Until::Signalled => catalog.last_line(seq),
            };
            let Some(source) = catalog.source(seq) else {
                self.queue.remove_file(seq);
                continue;
            };
            match source.read(self.index, last_line, options, &mut self.filling, ledger) {
                Ok(Progress::More) => {}
                Ok(Progress::Replaced) => {
                    next = Next::Scan;
                    break;
                }
                Ok(Progress::AtEnd) => self.queue.remove(&source.family, seq),
                Err(error) => {
                    tracing::warn!(file = %source.path.display(), %error, "cannot read it: trying again at the next scan");
                    self.queue.remove(&source.family, seq);
                }
            }
        }
        if !self.filling.is_empty()
            && let Some((mut sink, empty)) = self.idle.take()
        {
            let (mut chunk, pipeline) = (std::mem::replace(&mut self.filling, empty), self.index);
            deliveries.spawn(async move {
                sink.deliver(&mut chunk).await;
                Delivered { pipeline, sink, chunk }
            });
        }
        next
    }

    /// Takes back what was delivered, and notes its ranges as confirmed.
    pub(crate) fn on_delivered(&mut self, delivered: Delivered, catalog: &mut Catalog) {
        let Delivered { sink, mut chunk, .. } = delivered;
        for part in chunk.parts() {
            catalog.confirm(self.index, &part.segment);
        }
        chunk.clear();
        self.idle = Some((sink, chunk));
    }

    /// Whether there is nothing to read, to send or to wait for.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.filling.is_empty() && self.idle.is_some()
    }
}
