//! How many lines of the access log are on their way.
//!
//! web-server counts the lines that it wrote, log-agent those that a sink is done with, each since it was started: the two numbers
//! alone cannot be compared. But when both have stood still for a round, and nothing waits, everything has arrived, and from
//! then on the difference says how much is under way. That also holds while log-agent is away.

/// What one round has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Lines written.
    pub(crate) written: u64,
    /// Lines that the slowest sink is done with: confirmed, or refused for good.
    pub(crate) done: u64,
    /// Whether log-agent knows of something that a sink does not have.
    pub(crate) behind: bool,
    /// Which log-agent counted.
    pub(crate) agent_started: String,
}

/// Compares one round with the rounds before.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    last: Option<Counts>,
    /// Written less done, when all had arrived.
    arrived: Option<i128>,
}

impl Lag {
    /// Looks at what log-agent says now.
    pub(crate) fn look(&mut self, counts: Counts) {
        if self.last.as_ref().is_some_and(|last| last.agent_started != counts.agent_started) {
            self.arrived = None;
        }
        if !counts.behind && self.last.as_ref() == Some(&counts) {
            self.arrived = Some(i128::from(counts.written) - i128::from(counts.done));
        }
        self.last = Some(counts);
    }

    /// Lines that are written and not confirmed, where that can be known.
    pub(crate) fn lines(&self, written: u64) -> Option<u64> {
        let (arrived, last) = (self.arrived?, self.last.as_ref()?);
        u64::try_from(i128::from(written) - i128::from(last.done) - arrived).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(written: u64, done: u64, behind: bool, agent_started: &str) -> Counts {
        Counts { written, done, behind, agent_started: agent_started.to_owned() }
    }

    #[test]
    fn the_difference_counts_from_a_quiet_round_on() {
        let mut lag = Lag::default();
        lag.look(counts(10, 100, false, "a"));
        assert_eq!(lag.lines(10), None, "they may be on their way");
        lag.look(counts(10, 100, false, "a"));
        assert_eq!(lag.lines(10), Some(0));
        lag.look(counts(15, 102, false, "a"));
        assert_eq!(lag.lines(15), Some(3));
        lag.look(counts(15, 102, true, "a"));
        assert_eq!(lag.lines(15), Some(3), "a sink that stands still is not one that has everything");
        // log-agent is away: nobody looks, and lines are written.
        assert_eq!(lag.lines(20), Some(8));
    }

    #[test]
    fn another_agent_counts_anew() {
        let mut lag = Lag::default();
        lag.look(counts(10, 10, false, "a"));
        lag.look(counts(10, 10, false, "a"));
        lag.look(counts(12, 1, true, "b"));
        assert_eq!(lag.lines(12), None);
        lag.look(counts(12, 2, false, "b"));
        lag.look(counts(12, 2, false, "b"));
        assert_eq!(lag.lines(13), Some(1));
    }
}
