//! The volume: its layout and lock, how a release is put together on it, becomes visible, is looked after, and goes.

mod fsync;
mod publish;
mod retention;
mod seed;
mod staged_file;
mod staging;
mod sweep;
mod tree;
mod unpacked;
mod verify;
mod volume;

pub(crate) use self::publish::{point_at, publish};
pub(crate) use self::retention::{Retention, RetentionPolicy};
pub(crate) use self::seed::{CachedManifest, Diff, SeedTree};
pub(crate) use self::staged_file::{FinishError, Mismatch, StagedFile};
pub(crate) use self::staging::{Staging, replace_manifest};
pub(crate) use self::sweep::{remove_release, sweep_at_start, sweep_staging};
pub(crate) use self::tree::looks_intact;
pub(crate) use self::unpacked::{FileNumber, Placement, Unpacked};
pub(crate) use self::verify::{damaged, restore};
pub(crate) use self::volume::{Volume, VolumeError};
