//! How long a receiver may do nothing.
//!
//! Each chunk waits, and each wait that makes a timer of its own wakes the event loop, so that it learns of the timer. So there is one,
//! which stays: it goes off early where it was set for an earlier wait, and is then set for what is left.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

#[derive(Debug, Default)]
pub(super) struct Watchdog {
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watchdog {
    /// The outcome of `step`, or `None` where it takes longer than `timeout`.
    pub(super) async fn within<T>(&mut self, timeout: Duration, step: impl Future<Output = T>) -> Option<T> {
        let due = Instant::now() + timeout;
        tokio::select! {
            biased;
            outcome = step => Some(outcome),
            () = self.wait_until(due) => None,
        }
    }

    pub(super) async fn wait_until(&mut self, due: Instant) {
        while Instant::now() < due {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if timer.is_elapsed() || timer.deadline() > due {
                timer.as_mut().reset(due);
            }
            timer.as_mut().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_is_as_long_as_it_says_whatever_the_last_one_was() {
        let mut watchdog = Watchdog::default();
        let long = Duration::from_secs(3600);
        for millis in [5, 30, 1, 7, 7] {
            let timeout = Duration::from_millis(millis);
            // One that is given up on its way leaves its timer.
            let step = tokio::time::sleep(timeout);
            assert_eq!(watchdog.within(long, step).await, Some(()));
            let begin = Instant::now();
            assert_eq!(watchdog.within(timeout, std::future::pending::<()>()).await, None);
            assert!((timeout..long).contains(&begin.elapsed()), "{timeout:?}");
            assert_eq!(watchdog.within(timeout, async { millis }).await, Some(millis));
        }
    }
}
