//! The engine's flags: [`EngineOptions`].

use std::time::Duration;

use lifecycle::units;

use super::gate::Gates;
use super::trust::Authenticity;
use crate::content::{Limits, Selection};
use crate::fetch::Unpacking;
use crate::git::GitOptions;
use crate::oci::OciOptions;
use crate::store::{DirectoryOptions, RetentionPolicy};

/// What a release has to be, and how it is kept.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EngineOptions {
    // Below this, linking takes less than ten milliseconds.
    /// Keep a hard-linked copy ready for releases of N or more files, so that a small change is published sooner
    #[arg(long, value_name = "N", default_value = "1000")]
    pub(super) spare_from: usize,

    #[command(flatten)]
    pub(crate) directories: DirectoryOptions,

    /// Give up a sync after this time; by default, only --read-timeout and --min-throughput limit it
    #[arg(long, value_name = "DURATION", value_parser = units::positive_duration)]
    pub(super) sync_timeout: Option<Duration>,

    #[command(flatten)]
    pub(crate) gates: Gates,

    #[command(flatten)]
    pub(super) retention: RetentionPolicy,

    #[command(flatten)]
    pub(super) selection: Selection,

    #[command(flatten)]
    pub(super) unpacking: Unpacking,

    #[command(flatten)]
    pub(super) git: GitOptions,

    #[command(flatten)]
    pub(super) oci: OciOptions,

    #[command(flatten)]
    pub(crate) authenticity: Authenticity,

    #[command(flatten)]
    pub(crate) limits: Limits,
}
