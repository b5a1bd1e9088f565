//! What a release has to be before it may replace the one that is served.
//!
//! A content manager can be wrong without breaking any rule of the format: half a build, an empty export. The gates let an
//! operator say what content always has, and how much of it can go at once. What a gate refuses stays refused until the
//! content manager has other content, or the operator other gates.

use std::time::Duration;

use lifecycle::units;

use crate::content::{Manifest, ReleasePath};
use crate::source::HookUrl;

/// The conditions, as the flags give them. That a release is not empty is the manifest's own rule.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Gates")]
pub(crate) struct Gates {
    /// File or directory that every release must have; repeat it, or separate several with commas
    #[arg(long, value_name = "PATH", value_delimiter = ',', value_parser = release_path)]
    require: Vec<ReleasePath>,

    /// Reject a release that shrinks by more than PERCENT, in files or in bytes; by default, none is rejected
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_shrink: Option<Percent>,

    /// Ask this URL before publishing, with a POST of the manifest; 2xx publishes, any other answer does not
    #[arg(long, value_name = "URL")]
    pub(super) gate: Option<HookUrl>,

    /// Longest time for the answer of --gate
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = units::positive_duration)]
    pub(super) gate_timeout: Duration,
}

/// A share of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Percent(u8);

/// The gate that a release did not pass.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GateError {
    /// It lacks what every release must have.
    #[error("release held back: it has no {0}, which --require asks for")]
    Missing(ReleasePath),
    /// It lost too much at once.
    #[error("release held back: {kind} shrink from {from} to {to}, more than --max-shrink {limit}%")]
    Shrunk {
        /// Files or bytes.
        kind: &'static str,
        /// In the current release.
        from: u64,
        /// In the new one.
        to: u64,
        limit: u8,
    },
}

impl Gates {
    /// Lets a release pass, or says which gate it did not pass; `current` is asked for only where a gate compares.
    pub(crate) fn check(
        &self,
        new: &Manifest,
        current: impl FnOnce() -> Option<Manifest>,
    ) -> Result<(), GateError> {
        for required in &self.require {
            let there =
                |path: &ReleasePath| path == required || path.ancestors().any(|one| one == required.as_str());
            if !new.files.iter().any(|file| there(&file.path)) {
                return Err(GateError::Missing(required.clone()));
            }
        }
        let Some(limit) = self.max_shrink else { return Ok(()) };
        let Some(current) = current() else { return Ok(()) };
        limit.allows("files", current.files.len() as u64, new.files.len() as u64)?;
        limit.allows("bytes", current.total_size(), new.total_size())
    }
}

impl Percent {
    fn allows(self, kind: &'static str, from: u64, to: u64) -> Result<(), GateError> {
        let least = u128::from(from) * u128::from(100 - self.0);
        if u128::from(to) * 100 < least {
            return Err(GateError::Shrunk { kind, from, to, limit: self.0 });
        }
        Ok(())
    }
}

fn release_path(text: &str) -> Result<ReleasePath, String> {
    ReleasePath::parse(text)
        .map_err(|error| format!("{error}; write it as in the manifest, like css/site.css"))
}

fn percent(text: &str) -> Result<Percent, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse().ok());
    number
        .filter(|number| *number < 100)
        .map(Percent)
        .ok_or_else(|| "it is no percentage from 0% to 99%; write it like 50%".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_may_go_and_no_more() {
        let half = percent("50%").unwrap();
        assert_eq!(half.allows("files", 10, 5), Ok(()));
        assert_eq!(half.allows("files", 10, 20), Ok(()));
        assert_eq!(half.allows("files", u64::MAX, u64::MAX), Ok(()));
        assert!(half.allows("files", 11, 5).is_err());
        assert!(percent("0%").unwrap().allows("files", 10, 9).is_err());
        for wrong in ["50", "100%", "-1%", "%", "half"] {
            assert!(percent(wrong).unwrap_err().contains("50%"));
        }
    }
}
