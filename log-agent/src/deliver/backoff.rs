//! How long to wait before trying again: full-jitter exponential backoff, so that a thousand agents that lost the same
//! receiver do not come back to it in step.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// A receiver may ask for more patience than the backoff has, but not for a day's silence.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// The attempts so far.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure; what the receiver asked for is its floor.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let ceiling = FIRST.saturating_mul(2u32.saturating_pow(self.failures)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let jittered = ceiling.mul_f64(fastrand::f64());
        asked.map_or(jittered, |asked| asked.min(LONGEST_ASKED) + jittered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_a_limit_and_what_was_asked_for_is_the_floor() {
        let mut backoff = Backoff::default();
        assert!(backoff.next(None) <= FIRST);
        (0..100).for_each(|_| assert!(backoff.next(None) <= LONGEST));
        assert!(backoff.next(Some(Duration::from_secs(20))) >= Duration::from_secs(20));
        assert!(backoff.next(Some(Duration::from_secs(86_400))) <= LONGEST_ASKED + LONGEST);
    }
}
