//! Segments of files that a connection sends without reading them: `sendfile(2)` beneath HTTP.
//!
//! HTTP knows only bodies made of bytes. So a body that wants a file sent puts the segment into the connection's queue and hands
//! HTTP a placeholder: as many bytes of `PLACEHOLDER`, which exist once in this process and are never looked at. When HTTP
//! comes to write them, they are known by where they lie in memory, and what goes out in their place is the segment at the head of
//! the queue. HTTP/1.1 keeps a connection's bytes in order, so segments and placeholders meet in the order in which they were made.
//!
//! The kernel reads what the page cache lacks before it sends it, and the event loop would wait for the disk meanwhile. So what is
//! sent next is looked for in the page cache first, and read into it on another thread where it is not there.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use lifecycle::Ignore as _;
use parking_lot::Mutex;
use rustix::fs::sendfile;
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use crate::content::dir::FileState;
use crate::http::send_buffer::SendBuffer;

/// Longest segment: how much one client may have sent before the others get their turn.
pub(crate) const SEGMENT_MAX: usize = 256 * 1024;

/// No page is smaller.
const PAGE: usize = 4096;

/// Bytes that are never read: they are part of the program's file, and stay there. A pattern, so that they would be known where
/// they do not belong.
static PLACEHOLDER: [u8; SEGMENT_MAX] = [0xA5; SEGMENT_MAX];

/// What a connection has been given to send and has not sent yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct SendfileQueue {
    segments: Arc<Mutex<VecDeque<Segment>>>,
}

#[derive(Debug)]
struct Segment {
    file: Arc<File>,
    stamp: FileState,
    at: u64,
    left: usize,
    /// Whether the file was found to be unchanged.
    is_checked: bool,
    /// What is left of it is being read into the page cache, unless the connection ends before that has begun.
    reading: Option<AbortOnDropHandle<io::Result<()>>>,
}

impl SendfileQueue {
    /// Takes a segment of a file that begins at `at`, as long as asked for or [`SEGMENT_MAX`], and gives its placeholder.
    pub(crate) fn push(&self, file: Arc<File>, stamp: FileState, at: u64, length: u64) -> Bytes {
        let length = usize::try_from(length).map_or(SEGMENT_MAX, |length| length.min(SEGMENT_MAX));
        let segment = Segment { file, stamp, at, left: length, is_checked: false, reading: None };
        self.segments.lock().push_back(segment);
        Bytes::from_static(&PLACEHOLDER[..length])
    }

    /// Whether what is to be sent next is being read from the disk, so that it is not the client who is waited for.
    pub(crate) fn is_reading(&self) -> bool {
        self.segments.lock().front().is_some_and(|segment| segment.reading.is_some())
    }

    /// Writes bytes, or what they stand for.
    ///
    /// SECURITY: as long as a segment waits, HTTP has to come with its placeholder, whole or as much as is left of it. If HTTP
    /// copied a placeholder instead of handing it on, clients would get the pattern in place of a file, with the right length;
    /// here such a write is an error that ends the connection before its first byte.
    pub(crate) fn poll_write(
        &self,
        stream: &TcpStream,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        buffer: &mut SendBuffer,
    ) -> Poll<io::Result<usize>> {
        let mut segments = self.segments.lock();
        let placeholder = slices.iter().position(|slice| is_placeholder(slice));
        let announced = placeholder.map(|at| slices[at].len());
        if announced != segments.front().map(|segment| segment.left) {
            let error = io::Error::other("a placeholder was not handed on as it was made");
            tracing::error!(%error, ?announced, waiting = segments.len(), "cut a response short");
            return Poll::Ready(Err(error));
        }
        if let Some(segment) = segments.front_mut().filter(|_| placeholder == Some(0)) {
            // What a client cannot take yet need not be read either.
            ready!(stream.poll_write_ready(context))?;
            ready!(segment.poll_cached(context));
        }
        poll_try(stream, context, || {
            let sent = match placeholder {
                None => {
                    let share = buffer.allowance(stream, total(slices))?;
                    send_bytes(stream, slices, share)
                }
                Some(0) => {
                    let share = buffer.allowance(stream, slices[0].len())?;
                    send_segment(stream, &mut segments, share)
                }
                // The head shares a packet with the beginning of the file.
                Some(_) => {
                    let share = buffer.allowance(stream, slices[0].len())?;
                    send_bytes_more(stream, &slices[0], share)
                }
            }?;
            buffer.gave(sent);
            Ok(sent)
        })
    }
}

impl Segment {
    /// Waits until the page cache has what is left of the segment. Nothing is waited for twice: under pressure the kernel may have
    /// taken the pages for others by then.
    fn poll_cached(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.reading.is_none() && !self.is_cached() {
            let (file, at, left) = (Arc::clone(&self.file), self.at, self.left);
            self.reading =
                Some(AbortOnDropHandle::new(spawn_blocking(move || read_through(&file, at, left))));
        }
        if let Some(reading) = &mut self.reading {
            // Sending meets the same error, and says so.
            ready!(Pin::new(reading).poll(context)).ignore();
            self.reading = None;
        }
        Poll::Ready(())
    }

    /// Whether the page cache has the first and the last page of what is left. The kernel reads ahead and forgets in order, so where
    /// it has both, it nearly always has those between them.
    fn is_cached(&self) -> bool {
        is_page_cached(&self.file, self.at)
            && (self.left <= PAGE || is_page_cached(&self.file, self.at + self.left as u64 - 1))
    }
}

/// Whether the page cache has the page of a file with the byte at `at`; also where that cannot be told.
fn is_page_cached(file: &File, at: u64) -> bool {
    let found = preadv2(file, &mut [IoSliceMut::new(&mut [0])], at, ReadWriteFlags::NOWAIT);
    !matches!(found, Err(Errno::AGAIN))
}

/// Reads a part of a file for the page cache alone: a byte of each page, for which the kernel reads ahead. Blocks.
fn read_through(file: &File, at: u64, length: usize) -> io::Result<()> {
    let end = at + length as u64;
    for at in (at..end).step_by(PAGE) {
        if file.read_at(&mut [0], at)? == 0 {
            break;
        }
    }
    Ok(())
}

fn send_segment(stream: &TcpStream, segments: &mut VecDeque<Segment>, share: usize) -> io::Result<usize> {
    let segment = segments.front_mut().ok_or_else(|| io::Error::other("nothing is in the queue"))?;
    if !segment.is_checked {
        // A client that gets fewer bytes than it was promised knows that something is wrong.
        if !FileState::of_file(&segment.file)?.same_file(&segment.stamp) {
            return Err(changed(segment));
        }
        segment.is_checked = true;
    }
    let sent = sendfile(stream, &segment.file, Some(&mut segment.at), segment.left.min(share))?;
    if sent == 0 {
        return Err(changed(segment));
    }
    segment.left -= sent;
    if segment.left == 0 {
        segments.pop_front();
    }
    Ok(sent)
}

fn send_bytes_more(stream: &TcpStream, bytes: &[u8], share: usize) -> io::Result<usize> {
    Ok(send(stream, &bytes[..bytes.len().min(share)], SendFlags::MORE | SendFlags::NOSIGNAL)?)
}

/// The socket's own calls: `write(2)` and `writev(2)` find their way to the same ones, and that way costs a request some per cent.
fn send_bytes(stream: &TcpStream, slices: &[IoSlice<'_>], share: usize) -> io::Result<usize> {
    let sent = match slices {
        [first, ..] if first.len() >= share => send(stream, &first[..share], SendFlags::NOSIGNAL)?,
        [one] => send(stream, one, SendFlags::NOSIGNAL)?,
        several if total(several) <= share => {
            sendmsg(stream, several, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?
        }
        [first, ..] => send(stream, first, SendFlags::MORE | SendFlags::NOSIGNAL)?,
        [] => 0,
    };
    Ok(sent)
}

/// HTTP only learns that the connection failed, so it is said here.
fn changed(segment: &Segment) -> io::Error {
    let error = io::Error::other("a file was changed inside a published release");
    tracing::error!(inode = segment.stamp.inode, at = segment.at, %error, "cut a response short");
    error
}

fn total(slices: &[IoSlice<'_>]) -> usize {
    slices.iter().map(|slice| slice.len()).sum()
}

fn is_placeholder(slice: &[u8]) -> bool {
    PLACEHOLDER.as_ptr_range().contains(&slice.as_ptr()) && !slice.is_empty()
}

/// Does what would block only when it would not.
fn poll_try(
    stream: &TcpStream,
    context: &mut Context<'_>,
    mut write: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(context))?;
        match stream.try_io(Interest::WRITABLE, &mut write) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            written => return Poll::Ready(written),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Budget;
    use rustix::fs::{Advice, fadvise};
    use std::io::{Read as _, Write as _};

    #[test]
    fn only_the_placeholder_stands_in() {
        let bytes = Bytes::from_static(&PLACEHOLDER[..10]);
        assert!(is_placeholder(&bytes[9..]));
        assert!(!is_placeholder(&[0; 10]));
        assert!(!is_placeholder(&bytes[10..]));
    }

    /// A file that only its handle leads to.
    fn ten_digits() -> (Arc<File>, FileState) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let stamp = FileState::of_file(&file).unwrap();
        (Arc::new(file), stamp)
    }

    /// A connection, and where its other end can be accepted.
    async fn connected() -> (std::net::TcpListener, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener, stream)
    }

    /// What would happen if HTTP copied a placeholder, shortened it, or forgot it: the connection ends before a byte is sent.
    #[tokio::test]
    async fn a_placeholder_can_never_reach_a_client() {
        let (file, stamp) = ten_digits();
        let (listener, stream) = connected().await;
        let mut buffer = SendBuffer::new(&Budget::hidden(None));

        let queue = SendfileQueue::default();
        let placeholder = queue.push(file, stamp, 0, 10);
        let copied = placeholder.to_vec();
        let head: &[u8] = b"head ";
        let wrong: [&[&[u8]]; 4] = [&[&copied], &[head, &copied], &[head], &[head, &placeholder[1..]]];
        for slices in wrong {
            let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
            let written =
                std::future::poll_fn(|context| queue.poll_write(&stream, context, &slices, &mut buffer));
            written.await.unwrap_err();
        }
        // One for which nothing waits.
        let empty = SendfileQueue::default();
        let slices = [IoSlice::new(&placeholder)];
        let written =
            std::future::poll_fn(|context| empty.poll_write(&stream, context, &slices, &mut buffer));
        written.await.unwrap_err();
        drop(stream);
        let mut received = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"");
    }

    #[tokio::test]
    async fn bytes_and_parts_leave_in_order() {
        let (file, stamp) = ten_digits();

        let (listener, stream) = connected().await;
        let queue = SendfileQueue::default();
        let mut buffer = SendBuffer::new(&Budget::hidden(None));
        let pieces = [
            Bytes::from_static(b"head "),
            queue.push(Arc::clone(&file), stamp, 2, 3),
            Bytes::from_static(b" and "),
            queue.push(file, stamp, 7, 3),
        ];
        let mut left: Vec<&[u8]> = pieces.iter().map(AsRef::as_ref).collect();
        while !left.is_empty() {
            let slices: Vec<_> = left.iter().map(|piece| IoSlice::new(piece)).collect();
            let written =
                std::future::poll_fn(|context| queue.poll_write(&stream, context, &slices, &mut buffer))
                    .await
                    .unwrap();
            let mut skip = written;
            left = left
                .into_iter()
                .filter_map(|piece| {
                    let gone = skip.min(piece.len());
                    skip -= gone;
                    (gone < piece.len()).then(|| &piece[gone..])
                })
                .collect();
        }
        drop(stream);
        let mut received = String::new();
        listener.accept().unwrap().0.read_to_string(&mut received).unwrap();
        assert_eq!(received, "head 234 and 789");
    }

    #[tokio::test]
    async fn the_event_loop_does_not_wait_for_the_disk() {
        let body: Vec<u8> = (0_u32..).take(SEGMENT_MAX / 4).flat_map(u32::to_le_bytes).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&body).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let stamp = FileState::of_file(&file).unwrap();
        let last = body.len() as u64 - 1;
        if is_page_cached(&file, 0) {
            // A file system without a disk.
            return;
        }
        let file = Arc::new(file);
        let (listener, stream) = connected().await;
        let reader = std::thread::spawn(move || {
            let mut received = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
            received
        });
        let queue = SendfileQueue::default();
        let mut buffer = SendBuffer::new(&Budget::hidden(None));
        let mut left = queue.push(Arc::clone(&file), stamp, 0, body.len() as u64);
        let mut waited = false;
        while !left.is_empty() {
            let written = std::future::poll_fn(|context| {
                let written = queue.poll_write(&stream, context, &[IoSlice::new(&left)], &mut buffer);
                if written.is_pending() && queue.is_reading() {
                    waited = true;
                }
                written
            });
            left = left.slice(written.await.unwrap()..);
        }
        assert!(waited && is_page_cached(&file, last) && !queue.is_reading());
        drop(stream);
        assert_eq!(reader.join().unwrap(), body);
    }
}
