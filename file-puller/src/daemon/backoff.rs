//! When to ask again: the period with a tenth of jitter after a success, exponential backoff with full jitter after a failure.
//!
//! Both spread out many Pods that started, or lost the content manager, at the same moment. After an outage the pullers are back
//! within as long again as it lasted: a puller that drew short waits, and so has failed more often, waits no longer than the others.

use std::time::{Duration, Instant};

/// The first wait after a failure is at most this, or the period if that is shorter.
const FIRST: Duration = Duration::from_secs(1);
/// The most that a source's `Retry-After` is given. A header that is wrong by a month must not stop a Pod for a month.
const LONGEST_FLOOR: Duration = Duration::from_secs(3600);

/// How many syncs have failed in a row, and what follows from it.
#[derive(Debug)]
pub(crate) struct Backoff {
    period: Duration,
    longest: Duration,
    failures: u32,
    /// Since when every sync has failed.
    failing_since: Option<Instant>,
}

impl Backoff {
    /// No failure yet.
    pub(crate) fn new(period: Duration, longest: Duration) -> Self {
        Self { period, longest, failures: 0, failing_since: None }
    }

    /// Failures in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// The time until the next sync, after one that succeeded: 90 to 110 % of the period.
    pub(crate) fn after_success(&mut self) -> Duration {
        self.failures = 0;
        self.failing_since = None;
        self.period.mul_f64(0.9 + 0.2 * fastrand::f64())
    }

    /// The time until the next sync, after the source was cut off while it held a question: soon, and not all at once.
    pub(crate) fn after_cut(&self) -> Duration {
        self.soon().mul_f64(fastrand::f64())
    }

    /// What is soon, measured by the period.
    pub(crate) fn soon(&self) -> Duration {
        FIRST.min(self.period)
    }

    /// The time until the next sync, after one whose release was not let through: as after a success, since nothing is broken.
    pub(crate) fn after_refusal(&mut self) -> Duration {
        let pause = self.after_success();
        self.failures = 1;
        pause
    }

    /// The time until the next sync, after one that failed: any time up to a bound that doubles, on top of the time for which the
    /// source asked to be left alone. It says the same to every puller that it refuses, and they should not all come back at once.
    pub(crate) fn after_failure(&mut self, retry_after: Option<Duration>) -> Duration {
        self.after_failure_at(Instant::now(), retry_after)
    }

    fn after_failure_at(&mut self, now: Instant, retry_after: Option<Duration>) -> Duration {
        let since = *self.failing_since.get_or_insert(now);
        let outage = now.saturating_duration_since(since);
        let wait = self.bound().min(outage.max(self.soon())).mul_f64(fastrand::f64());
        self.failures = self.failures.saturating_add(1);
        wait + retry_after.unwrap_or_default().min(LONGEST_FLOOR)
    }

    fn bound(&self) -> Duration {
        let doubled = 2_u32.checked_pow(self.failures).and_then(|factor| self.soon().checked_mul(factor));
        doubled.unwrap_or(self.longest).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);

    /// A thousand pullers, and a content manager that is away for a while.
    #[test]
    fn after_an_outage_the_pullers_are_back_within_as_long_again_and_spread_over_it() {
        for outage in [5, 20, 50] {
            let began = Instant::now();
            let back = began + outage * SECOND;
            let mut late: Vec<_> = (0..1000)
                .map(|_| {
                    let mut backoff = Backoff::new(10 * SECOND, 60 * SECOND);
                    let mut at = began + backoff.after_cut();
                    while at < back {
                        at += backoff.after_failure_at(at, None);
                    }
                    at - back
                })
                .collect();
            late.sort();
            assert!(late[999] <= outage * SECOND, "{:?} after {outage} s", late[999]);
            let busiest = (0..outage)
                .map(|second| late.iter().filter(|late| late.as_secs() == u64::from(second)).count())
                .max();
            let mean = 1000.0 / late[999].as_secs_f64();
            assert!(busiest.is_some_and(|most| f64::from(u32::try_from(most).unwrap()) < 4.0 * mean));
        }
    }

    #[test]
    fn the_bound_doubles_to_its_limit_and_a_success_resets_it() {
        let mut backoff = Backoff::new(10 * SECOND, 60 * SECOND);
        let began = Instant::now();
        for bound in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(backoff.bound(), bound * SECOND);
            let later = began + u32::from(backoff.failures() > 0) * HOUR;
            assert!(backoff.after_failure_at(later, None) <= bound * SECOND);
        }
        for _ in 0..100 {
            backoff.after_failure(None);
        }
        assert_eq!(backoff.bound(), 60 * SECOND);
        let next = backoff.after_success();
        assert!(next >= 9 * SECOND && next <= 11 * SECOND, "{next:?}");
        assert_eq!((backoff.bound(), backoff.failures()), (SECOND, 0));
    }

    #[test]
    fn waits_are_spread_over_the_whole_range() {
        let mut backoff = Backoff::new(10 * SECOND, 60 * SECOND);
        let began = Instant::now();
        for _ in 0..10 {
            backoff.after_failure_at(began, None);
        }
        let waits: Vec<_> = (0..200).map(|_| backoff.after_failure_at(began + HOUR, None)).collect();
        assert!(waits.iter().any(|wait| *wait < 15 * SECOND) && waits.iter().any(|wait| *wait > 45 * SECOND));
    }

    #[test]
    fn retry_after_is_a_floor_within_reason() {
        let mut backoff = Backoff::new(10 * SECOND, 60 * SECOND);
        assert!(backoff.after_failure(Some(120 * SECOND)) >= 120 * SECOND);
        assert!(backoff.after_failure(Some(Duration::MAX)) <= LONGEST_FLOOR + 60 * SECOND);
    }

    /// A content manager at its budget refuses many pullers in the same second.
    #[test]
    fn those_who_are_refused_together_do_not_come_back_together() {
        for asked in [SECOND, 5 * SECOND] {
            let first = || Backoff::new(10 * SECOND, 60 * SECOND).after_failure(Some(asked));
            let waits: BTreeSet<_> = (0..1000).map(|_| first()).collect();
            assert!(waits.len() > 990, "{}", waits.len());
            let (earliest, latest) = (waits.first().unwrap(), waits.last().unwrap());
            assert!(*earliest >= asked && *latest > asked + SECOND / 2, "{earliest:?} to {latest:?}");
        }
    }
}
