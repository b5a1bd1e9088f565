//! The bytes of a response: none, some in memory, or a part of a file that is read while it is sent.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use rustix::io::{ReadWriteFlags, preadv2};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::content::dir::FileState;
use crate::http::sendfile::SendfileQueue;
use crate::memory::{ChunkBudget, Room};

/// A body on its way.
pub(crate) enum Payload {
    /// Nothing, or nothing more.
    Empty,
    /// From memory.
    Held(Bytes),
    /// From a file.
    File(Reading),
    /// One after the other.
    Chain(VecDeque<Payload>),
    /// Made while it is sent.
    Stream(ByteStream),
}

/// A body of unknown length: pieces that are sent as they come.
pub(crate) struct ByteStream(Pin<Box<dyn Stream<Item = Bytes> + Send>>);

impl ByteStream {
    /// Of these pieces.
    pub(crate) fn new(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self(Box::pin(pieces))
    }
}

/// A part of a file, read piece by piece: from the page cache at once, from a disk on the blocking threads, because a disk may
/// stall, and the event loop may not.
pub(crate) struct Reading {
    file: Arc<File>,
    stamp: FileState,
    keeper: Mutability,
    at: u64,
    left: u64,
    chunk: ChunkState,
}

/// The next piece of a file that has to be read.
enum ChunkState {
    None,
    /// Other bodies have all the memory there is for chunks.
    NoRoom(Pin<Box<dyn Future<Output = Room> + Send>>),
    Reading(JoinHandle<io::Result<Bytes>>),
    Read(Bytes),
}

/// Whether a file may change while it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutability {
    /// A release never changes, so the kernel may send the file by itself.
    Immutable,
    /// A plain directory may be edited in place, and pages on their way to the network with it. So each piece is read, and
    /// checked before it is sent.
    Mutable,
}

impl Payload {
    /// `length` bytes of a file from `first` on, as long as the file stays what `stamp` says.
    pub(crate) fn from_file(
        file: Arc<File>,
        stamp: FileState,
        keeper: Mutability,
        first: u64,
        length: u64,
    ) -> Self {
        Self::File(Reading { file, stamp, keeper, at: first, left: length, chunk: ChunkState::None })
    }

    /// Bytes still to come, where that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Stream(_) => None,
            Self::Empty | Self::Held(_) | Self::File(_) | Self::Chain(_) => Some(self.left()),
        }
    }

    /// Bytes still to come, or at least one.
    pub(crate) fn left(&self) -> u64 {
        match self {
            Self::Stream(_) => 1,
            Self::Empty => 0,
            Self::Held(bytes) => bytes.len() as u64,
            Self::File(reading) => reading.left,
            Self::Chain(payloads) => payloads.iter().map(Self::left).sum(),
        }
    }

    /// Whether the next piece waits for memory that other bodies hold.
    pub(crate) fn lacks_room(&self) -> bool {
        match self {
            Self::File(reading) => matches!(reading.chunk, ChunkState::NoRoom(_)),
            Self::Chain(payloads) => payloads.front().is_some_and(Self::lacks_room),
            Self::Empty | Self::Held(_) | Self::Stream(_) => false,
        }
    }

    /// Whether some of it has to be read from a file.
    pub(crate) fn has_file(&self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Chain(payloads) => payloads.iter().any(Self::has_file),
            Self::Empty | Self::Held(_) | Self::Stream(_) => false,
        }
    }

    /// The next piece, or its placeholder where the connection has a queue.
    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        queue: Option<&SendfileQueue>,
        chunks: &ChunkBudget,
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
                let piece = first.map_or(Poll::Ready(None), |first| first.poll_next(context, queue, chunks));
                if let Poll::Ready(Some(Err(_))) = piece {
                    *self = Self::Empty;
                }
                piece
            }
            Self::Empty => Poll::Ready(None),
            Self::Held(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Self::Stream(ByteStream(pieces)) => pieces.as_mut().poll_next(context).map(|piece| piece.map(Ok)),
            Self::File(reading) => {
                let piece = ready!(reading.poll_piece(context, queue, chunks));
                if piece.is_err() {
                    *self = Self::Empty;
                }
                Poll::Ready(Some(piece))
            }
        }
    }
}

impl Reading {
    fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
        queue: Option<&SendfileQueue>,
        chunks: &ChunkBudget,
    ) -> Poll<io::Result<Bytes>> {
        let Some(queue) = queue.filter(|_| self.keeper == Mutability::Immutable) else {
            return self.poll_chunk(context, chunks);
        };
        let placeholder = queue.push(Arc::clone(&self.file), self.stamp, self.at, self.left);
        self.at += placeholder.len() as u64;
        self.left -= placeholder.len() as u64;
        Poll::Ready(Ok(placeholder))
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>, chunks: &ChunkBudget) -> Poll<io::Result<Bytes>> {
        loop {
            match &mut self.chunk {
                ChunkState::None => {
                    self.chunk = match chunks.try_take() {
                        Some(room) => self.begin_reading(room)?,
                        None => ChunkState::NoRoom(Box::pin(chunks.clone().take())),
                    };
                }
                ChunkState::NoRoom(room) => {
                    let room = ready!(room.as_mut().poll(context));
                    self.chunk = self.begin_reading(room)?;
                }
                ChunkState::Reading(read) => {
                    let bytes = ready!(Pin::new(read).poll(context)).map_err(io::Error::other)?;
                    self.chunk = ChunkState::Read(bytes?);
                }
                ChunkState::Read(bytes) => {
                    let bytes = std::mem::take(bytes);
                    self.chunk = ChunkState::None;
                    self.at += bytes.len() as u64;
                    self.left -= bytes.len() as u64;
                    return Poll::Ready(Ok(bytes));
                }
            }
        }
    }

    /// Reads what is in the page cache at once, and anything else on another thread.
    fn begin_reading(&self, room: Room) -> io::Result<ChunkState> {
        let (file, stamp, at) = (Arc::clone(&self.file), self.stamp, self.at);
        let length = usize::try_from(self.left.min(room.size())).map_err(io::Error::other)?;
        let mut bytes = room.buffer(length);
        if let Ok(read) = preadv2(&file, &mut [IoSliceMut::new(&mut bytes)], at, ReadWriteFlags::NOWAIT)
            && read == length
        {
            check(&file, stamp)?;
            return Ok(ChunkState::Read(room.fill(bytes)));
        }
        Ok(ChunkState::Reading(spawn_blocking(move || {
            // Exactly this part of the file, or an error.
            file.read_exact_at(&mut bytes, at)?;
            check(&file, stamp)?;
            Ok(room.fill(bytes))
        })))
    }
}

/// An error where the file was changed: a client that gets fewer bytes than it was promised knows that something is wrong, one
/// that gets other bytes does not.
fn check(file: &File, stamp: FileState) -> io::Result<()> {
    if FileState::of_file(file)?.same_file(&stamp) {
        Ok(())
    } else {
        Err(io::Error::other("the file was changed while it was being sent"))
    }
}
