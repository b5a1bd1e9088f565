//! How long to wait before trying again: full-jitter exponential backoff, so that a thousand agents that lost the same
//! receiver do not come back to it in step.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// A receiver may ask for a longer wait than the backoff's, but not for a day's silence.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// The attempts so far.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure; what the receiver asked for is its floor.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let jittered = self.ceiling().mul_f64(fastrand::f64());
        self.failures = self.failures.saturating_add(1);
        asked.map_or(jittered, |asked| asked.min(LONGEST_ASKED) + jittered)
    }

    /// What the next wait is below, where the receiver does not ask for more.
    fn ceiling(&self) -> Duration {
        FIRST.saturating_mul(2u32.saturating_pow(self.failures)).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_a_limit_and_what_was_asked_for_is_the_floor() {
        // Of a hundred waits below a ceiling, one at least is in its upper half.
        let longest =
            |failures: u32| (0..100).map(|_| Backoff { failures }.next(None)).max().unwrap_or_default();
        let mut ceiling = FIRST;
        for failures in 0..7 {
            let wait = longest(failures);
            assert!(ceiling / 2 < wait && wait < ceiling, "after {failures} failures: {wait:?}");
            ceiling *= 2;
        }
        for failures in [7, 30, u32::MAX] {
            let wait = longest(failures);
            assert!(LONGEST / 2 < wait && wait < LONGEST, "after {failures} failures: {wait:?}");
        }
        let mut backoff = Backoff::default();
        (0..10).for_each(|_| _ = backoff.next(None));
        assert_eq!(backoff.failures, 10, "each wait is after one more failure");
        assert!(backoff.next(Some(Duration::from_secs(20))) >= Duration::from_secs(20));
        assert!(backoff.next(Some(Duration::from_secs(86_400))) <= LONGEST_ASKED + LONGEST);
    }
}
