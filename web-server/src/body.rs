//! The bytes of a response: none, some in memory, or a part of a file that is read while it is sent.

use std::collections::VecDeque;
use std::fs::File;
use std::future::Future as _;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::confine::Stamp;
use crate::outbox::Outbox;

/// Read at once, and so the memory that a slow client costs: large enough for a disk, small enough for a thousand clients.
const CHUNK: u64 = 128 * 1024;

/// A body on its way.
#[derive(Debug)]
pub enum Payload {
    /// Nothing, or nothing more.
    Empty,
    /// From memory.
    Held(Bytes),
    /// From a file.
    File(Reading),
    /// One after the other.
    Chain(VecDeque<Payload>),
    /// Made while it is sent.
    Feed(Feed),
}

/// A body whose end nobody knows: pieces that are sent as they come.
pub struct Feed(Pin<Box<dyn Stream<Item = Bytes> + Send>>);

impl Feed {
    /// Of these pieces.
    pub fn new(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self(Box::pin(pieces))
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Feed(..)")
    }
}

/// A part of a file, read piece by piece on the blocking threads: a disk may stall, the event loop may not.
#[derive(Debug)]
pub struct Reading {
    file: Arc<File>,
    stamp: Stamp,
    keeper: Keeper,
    at: u64,
    left: u64,
    chunk: Option<JoinHandle<io::Result<Bytes>>>,
}

/// Who answers for a file's staying what it is while it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// Its publisher: a release never changes. So the kernel may send the file by itself.
    Publisher,
    /// Nobody: it may be edited in place, and pages on their way to the network with it. So each piece is read, and checked
    /// before it is sent.
    Nobody,
}

/// Where a body's bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// There are none.
    Nowhere,
    /// They were held.
    Memory,
    /// They are in a file.
    Volume,
}

impl Payload {
    /// `length` bytes of a file from `first` on, as long as the file stays what `stamp` says.
    pub fn from_file(file: Arc<File>, stamp: Stamp, keeper: Keeper, first: u64, length: u64) -> Self {
        Self::File(Reading { file, stamp, keeper, at: first, left: length, chunk: None })
    }

    /// Bytes still to come, where that is known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Feed(_) => None,
            Self::Empty | Self::Held(_) | Self::File(_) | Self::Chain(_) => Some(self.left()),
        }
    }

    /// Bytes still to come, or at least one.
    pub fn left(&self) -> u64 {
        match self {
            Self::Feed(_) => 1,
            Self::Empty => 0,
            Self::Held(bytes) => bytes.len() as u64,
            Self::File(reading) => reading.left,
            Self::Chain(payloads) => payloads.iter().map(Self::left).sum(),
        }
    }

    /// Where the bytes come from.
    pub fn origin(&self) -> Origin {
        match self {
            Self::Empty => Origin::Nowhere,
            Self::File(_) => Origin::Volume,
            Self::Chain(payloads) if payloads.iter().any(|one| one.origin() == Origin::Volume) => {
                Origin::Volume
            }
            Self::Held(_) | Self::Chain(_) | Self::Feed(_) => Origin::Memory,
        }
    }

    /// The next piece, or its stand-in where the connection has an outbox.
    pub fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        outbox: Option<&Outbox>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        if self.left() == 0 {
            *self = Self::Empty;
        }
        match self {
            Self::Chain(payloads) => {
                while payloads.front().is_some_and(|first| first.left() == 0) {
                    payloads.pop_front();
                }
                let first = payloads.front_mut();
                let piece = first.map_or(Poll::Ready(None), |first| first.poll_next(context, outbox));
                if let Poll::Ready(Some(Err(_))) = piece {
                    *self = Self::Empty;
                }
                piece
            }
            Self::Empty => Poll::Ready(None),
            Self::Held(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Self::Feed(Feed(pieces)) => pieces.as_mut().poll_next(context).map(|piece| piece.map(Ok)),
            Self::File(reading) => {
                let piece = ready!(reading.poll_piece(context, outbox));
                if piece.is_err() {
                    *self = Self::Empty;
                }
                Poll::Ready(Some(piece))
            }
        }
    }
}

impl Reading {
    fn poll_piece(&mut self, context: &mut Context<'_>, outbox: Option<&Outbox>) -> Poll<io::Result<Bytes>> {
        let Some(outbox) = outbox.filter(|_| self.keeper == Keeper::Publisher) else {
            return self.poll_chunk(context);
        };
        let stand_in = outbox.put(Arc::clone(&self.file), self.stamp, self.at, self.left);
        self.at += stand_in.len() as u64;
        self.left -= stand_in.len() as u64;
        Poll::Ready(Ok(stand_in))
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let (at, length, stamp) = (self.at, self.left.min(CHUNK), self.stamp);
        let file = &self.file;
        let chunk = self.chunk.get_or_insert_with(|| {
            let file = Arc::clone(file);
            spawn_blocking(move || read(&file, at, length, stamp))
        });
        let read = ready!(Pin::new(chunk).poll(context));
        self.chunk = None;
        let bytes = read.map_err(io::Error::other)??;
        self.at += length;
        self.left -= length;
        Poll::Ready(Ok(bytes))
    }
}

/// Exactly this part of the file, or an error: a client that gets fewer bytes than it was promised knows that something is
/// wrong, one that gets other bytes does not.
fn read(file: &File, at: u64, length: u64, stamp: Stamp) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, at)?;
    if Stamp::of_file(file)?.same_file(&stamp) {
        Ok(bytes.into())
    } else {
        Err(io::Error::other("the file was changed while it was being sent"))
    }
}
