//! Bytes from the event loop to a thread that reads them as a file: how an archive gets from the network to its unpacker.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use lifecycle::blocking;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::archive::ArchiveError;
use crate::content::Digest;
use crate::source::Body;

/// Chunks on their way; the network waits when the disk is slower.
const CHUNKS: usize = 8;

/// Has a thread read a body as a file while it arrives. Returns what the thread made of it, and how many bytes there were.
pub(crate) async fn receive<T: Send + 'static>(
    body: Body,
    limit: u64,
    promised: Option<Digest>,
    read: impl FnOnce(Feed) -> T + Send + 'static,
) -> Result<(T, u64), ArchiveError> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let feed = Feed { receiver, chunk: Bytes::new() };
    let (arrived, made) = tokio::join!(pump(body, sender, limit, promised), blocking(move || read(feed)));
    // Where the connection broke, that the content is incomplete is only its consequence.
    Ok((made, arrived?))
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Feed {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

/// Moves a body into the feed until either end is done, and returns how many bytes there were.
async fn pump(
    mut body: Body,
    into: mpsc::Sender<Bytes>,
    limit: u64,
    promised: Option<Digest>,
) -> Result<u64, ArchiveError> {
    let mut moved = 0;
    let mut hasher = promised.map(|_| Sha256::new());
    while let Some(chunk) = body.chunk().await? {
        moved += chunk.len() as u64;
        if moved > limit {
            let why = format!("it is larger than --max-archive-size {}", bytesize::ByteSize(limit));
            return Err(ArchiveError::Refused(why));
        }
        if let Some(hasher) = &mut hasher {
            hasher.update(&chunk);
        }
        if into.send(chunk).await.is_err() {
            // The reader has seen enough, and says itself of what: it stops before the end only where it refuses.
            return Ok(moved);
        }
    }
    match (promised, hasher.map(Digest::of)) {
        (Some(promised), Some(found)) if promised != found => {
            let why = format!("its SHA-256 is {found} instead of sha256:{promised}");
            Err(ArchiveError::Refused(why))
        }
        _ => Ok(moved),
    }
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let read = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..read]);
        Ok(read)
    }
}
