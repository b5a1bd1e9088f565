//! Bytes from the event loop to a thread that reads them as a file: how an archive gets from the network to its unpacker.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use lifecycle::blocking;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::archive::ArchiveError;
use crate::content::Digest;
use crate::source::Body;

/// Chunks on their way; the network waits when the disk is slower.
const CHUNKS: usize = 8;

/// Held by the thread that reads. One that was given up reads on until it has all that had arrived, and what names may take in memory
/// is counted for one at a time (see `NamesBudget`).
static READING: Mutex<()> = Mutex::new(());

/// How much may arrive: `--max-archive-size`, less what came before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    max_archive_size: u64,
    used: u64,
}

impl Allowance {
    pub(crate) fn new(max_archive_size: u64) -> Self {
        Self { max_archive_size, used: 0 }
    }

    /// What is left of it after these bytes, which came before.
    pub(crate) fn after(self, used: u64) -> Self {
        Self { used, ..self }
    }

    fn check(self, arrived: u64) -> Result<(), ArchiveError> {
        if self.used.saturating_add(arrived) <= self.max_archive_size {
            return Ok(());
        }
        let limit = bytesize::ByteSize(self.max_archive_size);
        Err(ArchiveError::Refused(format!("it is larger than --max-archive-size {limit}")))
    }
}

/// Has a thread read a body as a file while it arrives. Returns what the thread made of it, and how many bytes there were.
pub(crate) async fn receive<T: Send + 'static>(
    body: Body,
    allowance: Allowance,
    promised: Option<Digest>,
    read: impl FnOnce(Feed) -> T + Send + 'static,
) -> Result<(T, u64), ArchiveError> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let feed = Feed { receiver, chunk: Bytes::new() };
    let read = move || {
        let _alone = READING.lock();
        read(feed)
    };
    let (arrived, made) = tokio::join!(pump(body, sender, allowance, promised), blocking(read));
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
    allowance: Allowance,
    promised: Option<Digest>,
) -> Result<u64, ArchiveError> {
    let mut moved = 0;
    let mut hasher = promised.map(|_| Sha256::new());
    while let Some(chunk) = body.chunk().await? {
        moved += chunk.len() as u64;
        allowance.check(moved)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_larger_than_what_is_left_names_the_flag_as_it_was_given() {
        let allowance = Allowance::new(2048).after(2000);
        assert!(allowance.check(48).is_ok());
        let error = allowance.check(49).unwrap_err().to_string();
        assert!(error.contains("--max-archive-size 2.0 KiB"), "{error}");
    }
}
