//! How long something takes nearly always.

use std::time::Duration;

/// The value that so many percent do not exceed. Sorted values only.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_seen() {
        let all: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&all, 50), Duration::from_millis(50));
        assert_eq!(percentile(&all, 99), Duration::from_millis(99));
        assert_eq!(percentile(&all[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
