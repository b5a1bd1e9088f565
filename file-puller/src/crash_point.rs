//! Places where a crash could leave a volume half done. A test counts them, and ends the process at each in turn.
//!
//! With the feature `fault-points`, which only tests turn on, the environment variable `FILE_PULLER_KILL_AT=n` makes the n-th
//! place that is passed the last: the process gets SIGKILL, as from an out-of-memory killer. Without it, [`crash_point`] is nothing.

/// A step that changes the volume has just been done.
#[cfg(not(feature = "fault-points"))]
#[inline]
pub(crate) const fn crash_point() {}

/// A step that changes the volume has just been done.
#[cfg(feature = "fault-points")]
pub(crate) fn crash_point() {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static KILL_AT: LazyLock<Option<u64>> =
        LazyLock::new(|| std::env::var("FILE_PULLER_KILL_AT").ok()?.parse().ok());
    static PASSED: AtomicU64 = AtomicU64::new(0);

    let Some(kill_at) = *KILL_AT else { return };
    if PASSED.fetch_add(1, Ordering::SeqCst) + 1 == kill_at {
        let killed = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        tracing::error!(?killed, "still alive after SIGKILL");
    }
}
