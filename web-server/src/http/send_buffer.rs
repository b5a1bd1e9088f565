//! How much of a response the kernel is given ahead of what the client takes.
//!
//! The kernel would take megabytes from each of many clients that come at once, before the first of them is known to take less
//! than it is sent. Where memory is limited, each connection may therefore have [`SHARE_MIN`] unsent bytes in the kernel, which
//! is part of what a connection is charged for; for more it takes a lease from the budget. What the network has in flight is no
//! part of it, so that a distant client is sent as much as its connection carries.

use std::io;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::memory::{Blocked, Budget, Room};

/// Unsent bytes that a connection may have in the kernel without a lease.
pub(crate) const SHARE_MIN: u32 = 4 * 1024;
/// Of a lease so much is given to the kernel at a time. The kernel takes more while less than half as much is unsent, and needs
/// up to as much again for itself: all that fits into the lease.
const SHARE_OF_LEASE: u64 = 4;

/// One connection's part of the kernel's send buffers.
#[derive(Debug)]
pub(crate) struct SendBuffer {
    budget: Arc<Budget>,
    /// The kernel's limit of unsent bytes as it was set last; 0 for its own.
    told: u32,
    lease: Option<Room>,
    /// Bytes that were given to the kernel since it was last seen to have room.
    given: usize,
    /// Where memory is not limited: the client takes less than it is sent.
    blocked: Option<Blocked>,
}

impl SendBuffer {
    /// Nothing was sent yet. Where memory is limited, the connection has the limit of unsent bytes from its listener.
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        let told = if budget.limit().is_some() { SHARE_MIN } else { 0 };
        Self { budget: Arc::clone(budget), told, lease: None, given: 0, blocked: None }
    }

    /// How much of `wanted` bytes may be given to the kernel now.
    ///
    /// # Errors
    /// `WouldBlock` where the client has to take some first, after which the stream becomes writable.
    pub(crate) fn allowance(&mut self, stream: &TcpStream, wanted: usize) -> io::Result<usize> {
        if self.budget.limit().is_none() {
            let share = self.budget.send_share().map_or(0, |share| u32::try_from(share).unwrap_or(u32::MAX));
            self.tell_roughly(stream, share);
            return Ok(if share == 0 { usize::MAX } else { share as usize });
        }
        if self.lease.is_none() && self.given + wanted > SHARE_MIN as usize {
            self.lease = self.budget.try_lend_send_buffer();
            self.tell(stream, self.share());
        }
        let share = self.share() as usize;
        if self.given >= share {
            if !has_room(stream)? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.given = 0;
        }
        Ok(share - self.given)
    }

    /// So much was given to the kernel.
    pub(crate) fn gave(&mut self, bytes: usize) {
        self.given = self.given.saturating_add(bytes);
    }

    /// The client takes less than it is sent.
    pub(crate) fn block(&mut self) {
        if self.budget.limit().is_none() && self.blocked.is_none() {
            self.blocked = Some(self.budget.block());
        }
    }

    /// A response was given to the kernel to its end.
    pub(crate) fn flushed(&mut self) {
        self.blocked = None;
    }

    /// The connection rests. What it had of the kernel's buffers is given back, if the client has been sent all.
    pub(crate) fn give_back(&mut self, stream: &TcpStream) {
        if self.lease.is_none() {
            return;
        }
        // With this limit there is room only where nothing is unsent.
        self.tell(stream, 1);
        if matches!(has_room(stream), Ok(true)) {
            self.lease = None;
            self.given = 0;
        }
        self.tell(stream, self.share());
    }

    fn share(&self) -> u32 {
        let share = self.lease.as_ref().map_or(0, |lease| lease.size() / SHARE_OF_LEASE);
        u32::try_from(share).unwrap_or(u32::MAX).max(SHARE_MIN)
    }

    fn tell(&mut self, stream: &TcpStream, share: u32) {
        if self.told != share && SockRef::from(stream).set_tcp_notsent_lowat(share).is_ok() {
            self.told = share;
        }
    }

    /// Not with each client that comes and goes.
    fn tell_roughly(&mut self, stream: &TcpStream, share: u32) {
        let before = self.told;
        let differs = if share == 0 || before == 0 {
            share != before
        } else {
            share / 2 >= before || before / 2 >= share
        };
        if differs {
            self.tell(stream, share);
        }
    }
}

/// Whether the kernel has less than half of its limit unsent. It takes more than its limit where a packet that waits is not full,
/// so it has to be asked before it is given more.
fn has_room(stream: &TcpStream) -> io::Result<bool> {
    let mut fds = [PollFd::new(stream, PollFlags::OUT)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    // A connection that has failed says so when it is written to.
    Ok(!fds[0].revents().is_empty())
}
