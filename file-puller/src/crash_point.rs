//! Places where a crash could leave a volume half done, and system calls that a file system may not have.
//!
//! With the feature `fault-points`, which only tests turn on, the environment variable `FILE_PULLER_KILL_AT=n` makes the n-th
//! place that is passed the last: the process gets SIGKILL, as from an out-of-memory killer. `FILE_PULLER_WITHOUT=link,syncfs`
//! takes these calls away, as on
//! NFS or FUSE; `FILE_PULLER_WITHOUT=retries` takes away the back-off, so that a failed sync is followed by another one only after
//! `--period` or when it is asked for, and a test knows which sync it looks at. `FILE_PULLER_STALL=read=50` (or `write`) makes that take 50 ms longer for each file. Without the feature, all
//! of them are nothing.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A step that changes the volume has just been done.
#[inline]
pub(crate) fn crash_point() {
    static KILL_AT: LazyLock<Option<u64>> =
        LazyLock::new(|| std::env::var("FILE_PULLER_KILL_AT").ok()?.parse().ok());
    static PASSED: AtomicU64 = AtomicU64::new(0);

    if !cfg!(feature = "fault-points") {
        return;
    }
    let Some(kill_at) = *KILL_AT else { return };
    if PASSED.fetch_add(1, Ordering::SeqCst) + 1 == kill_at {
        let killed = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        tracing::error!(?killed, "still alive after SIGKILL");
    }
}

/// Whether the file system is to seem to have no such call.
#[inline]
pub(crate) fn lacks(call: &str) -> bool {
    static WITHOUT: LazyLock<String> =
        LazyLock::new(|| std::env::var("FILE_PULLER_WITHOUT").unwrap_or_default());

    cfg!(feature = "fault-points") && WITHOUT.split(',').any(|missing| missing == call)
}

/// A disk that is slow at reading or writing.
#[inline]
pub(crate) fn stall(what: &str) {
    static STALL: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let stall = std::env::var("FILE_PULLER_STALL").ok()?;
        let (what, milliseconds) = stall.split_once('=')?;
        Some((what.to_owned(), milliseconds.parse().ok()?))
    });

    if !cfg!(feature = "fault-points") {
        return;
    }
    if let Some((_, milliseconds)) = STALL.as_ref().filter(|(stalled, _)| stalled == what) {
        std::thread::sleep(Duration::from_millis(*milliseconds));
    }
}
