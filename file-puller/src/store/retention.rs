//! Which old releases may go: not the newest few, and none that was replaced only just now.
//!
//! Readers open `current` once and then read beneath that directory, so a release has to outlive the moment at which it was
//! replaced. The count bounds how far back one can look; the time is what readers rely on.

use std::time::{Duration, SystemTime};

use lifecycle::units;

use crate::content::ReleaseId;

/// How long releases that are no longer current stay on the volume.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Retention")]
pub(crate) struct RetentionPolicy {
    /// Old releases to keep besides the current one
    #[arg(long, value_name = "N", default_value = "3")]
    pub(crate) keep: usize,

    // Ten minutes outlast what reads a release from beginning to end without holding every file open (a crawl, a backup, a
    // slow deploy hook). Unchanged files are shared, so keeping a release costs no more than what changed in it.
    /// Time for which every old release is kept after it was replaced, for readers that still hold it
    #[arg(long, value_name = "DURATION", default_value = "10min", value_parser = units::duration)]
    pub(crate) keep_for: Duration,

    /// Space that all releases together may take; old releases whose --keep-for is over go early to stay within it
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub(crate) max_volume_size: Option<u64>,
}

/// The releases on the volume that are not current, oldest replacement first.
#[derive(Debug)]
pub(crate) struct Retention {
    policy: RetentionPolicy,
    /// Each with the time of that.
    old: Vec<(ReleaseId, SystemTime)>,
}

impl Retention {
    /// Takes over what is on the volume besides the current release, most recently replaced first, with the time of that.
    pub(crate) fn new(policy: RetentionPolicy, mut old: Vec<(ReleaseId, SystemTime)>) -> Self {
        old.reverse();
        Self { policy, old }
    }

    /// Notes that `current` was pointed at `id`.
    pub(crate) fn published(&mut self, id: &ReleaseId, replaced: Option<ReleaseId>, now: SystemTime) {
        self.forget(id);
        if let Some(replaced) = replaced.filter(|replaced| replaced != id) {
            self.forget(&replaced);
            self.old.push((replaced, now));
        }
    }

    /// The releases that may go now. [`Retention::forget`] has to be told once one is gone.
    pub(crate) fn expired(&self, now: SystemTime) -> Vec<ReleaseId> {
        let beyond = self.old.len().saturating_sub(self.policy.keep);
        let may_go = self.old[..beyond].iter().filter(|(_, replaced)| self.had_its_time(*replaced, now));
        may_go.map(|(id, _)| id.clone()).collect()
    }

    /// The releases that go where space is short, in this order, whatever `--keep` says. Readers keep their `--keep-for`.
    pub(crate) fn expendable(&self, now: SystemTime) -> Vec<ReleaseId> {
        let may_go = self.old.iter().filter(|(_, replaced)| self.had_its_time(*replaced, now));
        may_go.map(|(id, _)| id.clone()).collect()
    }

    fn had_its_time(&self, replaced: SystemTime, now: SystemTime) -> bool {
        // A clock that was set back makes a release younger, never older.
        now.duration_since(replaced).unwrap_or_default() >= self.policy.keep_for
    }

    /// Bytes that all releases may take.
    pub(crate) fn max_volume_size(&self) -> Option<u64> {
        self.policy.max_volume_size
    }

    /// Notes that a release is gone.
    pub(crate) fn forget(&mut self, id: &ReleaseId) {
        self.old.retain(|(old, _)| old != id);
    }

    pub(crate) fn len(&self) -> usize {
        self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn id(number: u32) -> ReleaseId {
        ReleaseId::parse(&format!("{number:016x}")).unwrap()
    }

    #[test]
    fn the_newest_few_stay_and_so_does_what_was_replaced_just_now() {
        let start = SystemTime::now();
        let mut retention =
            Retention::new(RetentionPolicy { keep: 2, keep_for: MINUTE, max_volume_size: None }, Vec::new());
        for number in 1..=5 {
            retention.published(&id(number), (number > 1).then(|| id(number - 1)), start);
        }
        assert_eq!(retention.expired(start + MINUTE / 2), []);
        assert_eq!(retention.expired(start + MINUTE), [id(1), id(2)]);
        retention.forget(&id(1));
        assert_eq!(retention.expired(start + MINUTE), [id(2)]);
        assert_eq!(retention.len(), 3);
    }

    #[test]
    fn a_release_that_is_published_again_is_no_longer_old() {
        let start = SystemTime::now();
        let mut retention = Retention::new(
            RetentionPolicy { keep: 0, keep_for: MINUTE, max_volume_size: None },
            vec![(id(1), start)],
        );
        retention.published(&id(1), Some(id(2)), start + MINUTE);
        assert_eq!(retention.expired(start + MINUTE), []);
        assert_eq!(retention.expired(start + 2 * MINUTE), [id(2)]);
    }

    #[test]
    fn after_a_restart_the_time_of_replacement_counts() {
        let start = SystemTime::now();
        let found = vec![(id(3), start), (id(2), start - MINUTE), (id(1), start - 2 * MINUTE)];
        let retention =
            Retention::new(RetentionPolicy { keep: 1, keep_for: MINUTE, max_volume_size: None }, found);
        assert_eq!(retention.expired(start), [id(1), id(2)]);
        assert_eq!(retention.expired(start - MINUTE), [id(1)], "a clock that was set back keeps more");
    }
}
