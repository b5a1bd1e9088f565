//! One sink's side of the agent: a chunk that fills while the one before is delivered. Never more than these two, so that a
//! sink that is slow or down costs two chunks of memory, whatever waits in the files.

use tokio::task::JoinSet;

use crate::catalog::Catalog;
use crate::chunk::Chunk;
use crate::config::Until;
use crate::ledger::Ledger;
use crate::sink::Sink;
use crate::source::{LastLine, Progress, Reader};
use crate::turns::Turns;

/// A delivery that was confirmed: the sink and the chunk come back to the pipeline they left.
#[derive(Debug)]
pub struct Delivered {
    /// Which pipeline.
    pub pipeline: usize,
    sink: Sink,
    chunk: Chunk,
}

/// What a pipeline needs in order to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Something to happen.
    Wait,
    /// A look at all names: a file's content was replaced, and a copy of it may be there under another name.
    Scan,
}

/// From the files to one sink.
#[derive(Debug)]
pub struct Pipeline {
    index: usize,
    /// The files that may have something to read for it.
    pub turns: Turns,
    filling: Chunk,
    /// What is not under way; both are while a delivery is.
    idle: Option<(Sink, Chunk)>,
}

impl Pipeline {
    /// For the sink with this index.
    pub fn new(index: usize, sink: Sink, chunk_size: usize) -> Self {
        let chunk = || Chunk::new(chunk_size, sink.purpose());
        let (filling, empty) = (chunk(), chunk());
        Self { index, turns: Turns::default(), filling, idle: Some((sink, empty)) }
    }

    /// Reads as much as the chunk takes, and sends it off if nothing is under way. There is no waiting for a chunk to fill:
    /// while the sink is quick, a line leaves as soon as it is read; while it is slow, chunks fill by themselves.
    pub fn advance(
        &mut self,
        catalog: &mut Catalog,
        until: Until,
        reader: &mut Reader,
        ledger: &Ledger,
        deliveries: &mut JoinSet<Delivered>,
    ) -> Next {
        let mut next = Next::Wait;
        while !self.filling.is_full()
            && let Some(seq) = self.turns.take()
        {
            let last_line = match until {
                Until::EndOfFiles => LastLine::Take,
                Until::Signalled => catalog.last_line(seq),
            };
            let Some(source) = catalog.source(seq) else {
                self.turns.forget(seq);
                continue;
            };
            match source.read(self.index, last_line, reader, &mut self.filling, ledger) {
                Ok(Progress::More) => {}
                Ok(Progress::Replaced) => {
                    next = Next::Scan;
                    break;
                }
                Ok(Progress::AtEnd) => self.turns.done(&source.family, seq),
                Err(error) => {
                    tracing::warn!(file = %source.path.display(), %error, "cannot read it: trying again at the next scan");
                    self.turns.done(&source.family, seq);
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
    pub fn settle(&mut self, delivered: Delivered, catalog: &mut Catalog) {
        let Delivered { sink, mut chunk, .. } = delivered;
        for part in chunk.parts() {
            catalog.confirm(self.index, &part.segment);
        }
        chunk.clear();
        self.idle = Some((sink, chunk));
    }

    /// Whether there is nothing to read, to send or to wait for.
    pub fn is_idle(&self) -> bool {
        self.turns.is_empty() && self.filling.is_empty() && self.idle.is_some()
    }
}
