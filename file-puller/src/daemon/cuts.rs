//! Whether to have a question held once more, after some were cut off on the way.

use std::fmt::Display;

/// So many in a row are no accident.
const PATTERN: u32 = 2;

/// Held questions that were cut off.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    in_a_row: u32,
    /// The next time is not to be waited.
    rests: bool,
    told: bool,
}

impl Cuts {
    /// One was cut off. Whether the content manager is well is for the next sync to find out; that it does not wait is no failure.
    pub(crate) fn cut(&mut self, error: &impl Display) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.rests = self.in_a_row >= PATTERN;
        if self.rests && !self.told {
            self.told = true;
            tracing::info!(%error, "requests that wait for a change are cut off on the way, so --period holds as well; consider a shorter --wait");
        } else {
            tracing::debug!(%error, "a request that waited for a change was cut off");
        }
    }

    /// One was answered, or there was an outage, which explains those before it.
    pub(crate) fn forget(&mut self) {
        self.in_a_row = 0;
        self.rests = false;
    }

    /// Whether to wait now. After two cuts in a row every other time is left to `--period`.
    pub(crate) fn may_wait(&mut self) -> bool {
        !std::mem::take(&mut self.rests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_cut_in_a_row_gives_the_round_to_the_period() {
        let mut cuts = Cuts::default();
        cuts.cut(&"closed");
        assert!(cuts.may_wait(), "one may be a restart");
        for _ in 0..3 {
            cuts.cut(&"closed");
            assert!(!cuts.may_wait());
            assert!(cuts.may_wait());
        }
        cuts.forget();
        cuts.cut(&"closed");
        assert!(cuts.may_wait());
    }
}
