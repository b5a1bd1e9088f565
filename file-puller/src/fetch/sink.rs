//! Pieces of files on their way from the downloads to the thread that writes, of which only so much may wait.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::store::VolumeError;

/// Bytes that were received and wait to be written, all downloads together.
const WAITING_BYTES: usize = 2 * 1024 * 1024;
/// Pieces that wait to be written. Small files are many, and each costs a little more than its bytes.
const WAITING: usize = 256;

/// What is to be done once a batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Continue,
    Finish,
    /// The batch is empty, and the file begins again.
    Restart,
}

/// A piece of a file on its way to the disk.
pub(super) struct Piece {
    pub(super) index: usize,
    pub(super) batch: Vec<Bytes>,
    pub(super) step: Step,
    /// Its share of [`WAITING_BYTES`], given back when it is written.
    _room: OwnedSemaphorePermit,
}

/// Where a download puts what it has received.
#[derive(Clone)]
pub(super) struct Sink {
    pieces: mpsc::Sender<Piece>,
    room: Arc<Semaphore>,
}

impl Sink {
    /// Both ends of the way.
    pub(super) fn new() -> (Self, mpsc::Receiver<Piece>) {
        let (pieces, waiting) = mpsc::channel(WAITING);
        (Self { pieces, room: Arc::new(Semaphore::new(WAITING_BYTES)) }, waiting)
    }

    /// Waits until there is room for a piece, and hands it over.
    pub(super) async fn send(
        &self,
        index: usize,
        batch: Vec<Bytes>,
        bytes: usize,
        step: Step,
    ) -> Result<(), VolumeError> {
        // One chunk may be larger than all the room there is: then it has to itself what there is.
        let share = u32::try_from(bytes.clamp(1, WAITING_BYTES)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(share).await;
        let room = room.map_err(|_closed| VolumeError::given_up())?;
        let piece = Piece { index, batch, step, _room: room };
        self.pieces.send(piece).await.map_err(|_closed| VolumeError::given_up())
    }
}
