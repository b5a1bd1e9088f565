//! When which bytes of a file were first seen: how long those have waited that a sink does not have yet.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes that come within this time are taken to have come at once.
const STEP: Duration = Duration::from_millis(100);
/// More marks are not kept: of a file that grows all day while its sink is down, times are known the coarser.
const MOST: usize = 64;

/// Offsets and times, both rising: the bytes from an offset to the next were there at its time.
#[derive(Debug, Default)]
pub(super) struct ArrivalTimes {
    marks: VecDeque<(u64, Instant)>,
}

impl ArrivalTimes {
    /// Bytes from here on are there now.
    pub(super) fn note(&mut self, from: u64, now: Instant) {
        if self.marks.back().is_some_and(|(_, last)| now.duration_since(*last) < STEP) {
            return;
        }
        if self.marks.len() >= MOST {
            // Every other one goes; its bytes count as older than they are, never as younger.
            let mut number = 0;
            self.marks.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
        self.marks.push_back((from, now));
    }

    /// When the byte at this offset was seen.
    pub(super) fn first_seen(&self, offset: u64) -> Option<Instant> {
        let later = self.marks.partition_point(|(from, _)| *from <= offset);
        self.marks.get(later.saturating_sub(1)).map(|(_, seen)| *seen)
    }

    /// All sinks have the bytes before `offset` of a file of this size.
    pub(super) fn forget_before(&mut self, offset: u64, size: u64) {
        if offset >= size {
            self.marks.clear();
        }
        while self.marks.get(1).is_some_and(|(from, _)| *from <= offset) {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_as_old_as_the_look_that_found_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut arrivals = ArrivalTimes::default();
        assert_eq!(arrivals.first_seen(0), None);
        arrivals.note(0, at(0));
        arrivals.note(50, at(0) + STEP / 2);
        arrivals.note(100, at(1));
        arrivals.note(200, at(2));
        assert_eq!(
            [0, 99, 100, 250].map(|offset| arrivals.first_seen(offset).unwrap()),
            [0, 0, 1, 2].map(at)
        );
        arrivals.forget_before(150, 300);
        assert_eq!(arrivals.first_seen(150), Some(at(1)));
        assert_eq!(arrivals.marks.len(), 2);
        arrivals.forget_before(300, 300);
        assert_eq!(arrivals.first_seen(300), None);
    }

    #[test]
    fn there_are_never_many_and_no_byte_gets_younger() {
        let start = Instant::now();
        let mut arrivals = ArrivalTimes::default();
        for second in 0..1000 {
            arrivals.note(second * 10, start + Duration::from_secs(second));
        }
        assert!(arrivals.marks.len() <= MOST);
        for second in 0..1000 {
            assert!(arrivals.first_seen(second * 10).unwrap() <= start + Duration::from_secs(second));
        }
    }
}
