//! Whether a container that has ended is started again, as Kubernetes has it.

use std::process::ExitStatus;

/// What becomes of a container that ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RestartPolicy {
    /// It is started again, whatever its exit code.
    #[value(name = "Always")]
    Always,
    /// It is started again unless its exit code is 0.
    #[value(name = "OnFailure")]
    OnFailure,
    /// It stays ended.
    #[value(name = "Never")]
    Never,
}

impl RestartPolicy {
    /// Whether a container that has ended with `status` is started again.
    pub(crate) fn restarts(self, status: ExitStatus) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => !status.success(),
            Self::Never => false,
        }
    }

    /// Whether a container that was ended because a probe had failed is started again, however it ended.
    pub(crate) fn restarts_after_failed_probe(self) -> bool {
        self != Self::Never
    }
}
