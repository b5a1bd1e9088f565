//! For tests: a disk whose reads take as long as a test wants, for readers' threads.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};

static IS_STUCK: Mutex<bool> = Mutex::new(false);
static CHANGED: Condvar = Condvar::new();
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// While it lives, no read of a reader's thread returns.
pub(crate) struct Stuck(());

impl Stuck {
    pub(crate) fn begin() -> Self {
        *IS_STUCK.lock() = true;
        Self(())
    }
}

/// How many reads wait.
pub(crate) fn reads() -> usize {
    WAITING.load(Ordering::SeqCst)
}

impl Drop for Stuck {
    fn drop(&mut self) {
        *IS_STUCK.lock() = false;
        CHANGED.notify_all();
    }
}

/// Called by every read of a file.
pub(super) fn read() {
    if std::thread::current().name() != Some("reader") {
        return;
    }
    let mut is_stuck = IS_STUCK.lock();
    WAITING.fetch_add(1, Ordering::SeqCst);
    CHANGED.wait_while(&mut is_stuck, |is_stuck| *is_stuck);
    WAITING.fetch_sub(1, Ordering::SeqCst);
}
