//! How long a kubelet waits before it starts a dead container again.
//!
//! The rule is the kubelet's own (Kubernetes documentation, "Container restarts"): at once after the first death, then ten
//! seconds, doubled at every further death up to five minutes, and forgotten once a container has run for ten minutes.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// One container's record of deaths.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// The container died after running for `ran`; the wait before its next start.
    pub(crate) fn after_death(&mut self, ran: Duration) -> Duration {
        if ran >= FORGIVEN_AFTER {
            self.next = Duration::ZERO;
        }
        let wait = self.next;
        self.next = (wait * 2).clamp(FIRST, LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_kubelet_does() {
        let mut backoff = Backoff::default();
        let mut wait = |ran| backoff.after_death(Duration::from_secs(ran)).as_secs();
        let waits: Vec<u64> = (0..8).map(|_| wait(1)).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(wait(599), 300);
        assert_eq!(wait(600), 0);
    }
}
