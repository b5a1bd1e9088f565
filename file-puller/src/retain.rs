//! Which old releases may go: not the newest few, and none that was replaced only just now.
//!
//! Readers open `current` once and then read beneath that directory, so a release has to outlive the moment at which it was
//! replaced. The count bounds how far back one can look; the time is what readers rely on.

use std::time::Instant;

use crate::config::Retention;
use crate::release::ReleaseId;

/// The releases on the volume that are not current, oldest replacement first.
#[derive(Debug)]
pub struct Retained {
    policy: Retention,
    old: Vec<Old>,
}

#[derive(Debug)]
struct Old {
    id: ReleaseId,
    replaced: Instant,
}

impl Retained {
    /// Takes over what an earlier run left, most recently published first. When each was replaced is not known any more;
    /// `now` is the latest that it can have been, so none goes too early.
    pub fn new(policy: Retention, found: Vec<ReleaseId>, now: Instant) -> Self {
        let old = found.into_iter().rev().map(|id| Old { id, replaced: now }).collect();
        Self { policy, old }
    }

    /// Notes that `current` was pointed at `id`.
    pub fn published(&mut self, id: &ReleaseId, replaced: Option<ReleaseId>, now: Instant) {
        self.old.retain(|old| old.id != *id);
        if let Some(replaced) = replaced.filter(|replaced| replaced != id) {
            self.old.retain(|old| old.id != replaced);
            self.old.push(Old { id: replaced, replaced: now });
        }
    }

    /// The releases that may go now. [`Retained::removed`] has to be told once one is gone.
    pub fn due(&self, now: Instant) -> Vec<ReleaseId> {
        let beyond = self.old.len().saturating_sub(self.policy.keep);
        let old_enough = |old: &&Old| now.saturating_duration_since(old.replaced) >= self.policy.keep_for;
        self.old[..beyond].iter().filter(old_enough).map(|old| old.id.clone()).collect()
    }

    /// Notes that a release is gone.
    pub fn removed(&mut self, id: &ReleaseId) {
        self.old.retain(|old| old.id != *id);
    }

    /// How many old releases there are.
    pub fn len(&self) -> usize {
        self.old.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.old.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MINUTE: Duration = Duration::from_secs(60);

    fn id(number: u32) -> ReleaseId {
        ReleaseId::parse(&format!("{number:016x}")).unwrap()
    }

    #[test]
    fn the_newest_few_stay_and_so_does_what_was_replaced_just_now() {
        let start = Instant::now();
        let mut retained = Retained::new(Retention { keep: 2, keep_for: MINUTE }, Vec::new(), start);
        for number in 1..=5 {
            retained.published(&id(number), (number > 1).then(|| id(number - 1)), start);
        }
        assert_eq!(retained.due(start + MINUTE / 2), []);
        assert_eq!(retained.due(start + MINUTE), [id(1), id(2)]);
        retained.removed(&id(1));
        assert_eq!(retained.due(start + MINUTE), [id(2)]);
        assert_eq!(retained.len(), 3);
    }

    #[test]
    fn a_release_that_is_published_again_is_no_longer_old() {
        let start = Instant::now();
        let mut retained = Retained::new(Retention { keep: 0, keep_for: MINUTE }, vec![id(1)], start);
        retained.published(&id(1), Some(id(2)), start + MINUTE);
        assert_eq!(retained.due(start + MINUTE), []);
        assert_eq!(retained.due(start + 2 * MINUTE), [id(2)]);
    }

    #[test]
    fn after_a_restart_the_least_recently_published_goes_first() {
        let start = Instant::now();
        let found = vec![id(3), id(2), id(1)];
        let retained = Retained::new(Retention { keep: 2, keep_for: MINUTE }, found, start);
        assert_eq!(retained.due(start), []);
        assert_eq!(retained.due(start + MINUTE), [id(1)]);
    }
}
