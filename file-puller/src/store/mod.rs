//! The volume: its layout and lock, how a release is put together on it, becomes visible, is looked after, and goes.

mod backlog;
mod create;
mod directory;
#[cfg(test)]
mod fixtures;
mod fsync;
mod group;
mod lanes;
mod numbered;
mod objects;
mod private;
mod publish;
mod retention;
mod seed;
mod signed_manifest;
mod space;
mod staged_file;
mod staging;
mod sweep;
mod sys;
mod tree;
mod unpacked;
mod verify;
mod volume;

pub(crate) use self::create::{DirectoryOptions, create_file, open_directory, open_file, set_mode};
pub(crate) use self::directory::unlink;
pub(crate) use self::group::open_to_group;
pub(crate) use self::objects::Objects;
pub(crate) use self::publish::{Published, point_at, publish};
pub(crate) use self::retention::{Retention, RetentionPolicy};
pub(crate) use self::seed::{CachedManifest, Diff, SeedTree};
pub(crate) use self::signed_manifest::SignedManifest;
pub(crate) use self::space::{Need, check_room, explain_full};
pub(crate) use self::staged_file::{Mismatch, StagedFile};
pub(crate) use self::staging::Staging;
pub(crate) use self::sweep::{Clear, clear, remove_release, sweep_at_start};
pub(crate) use self::tree::looks_whole;
pub(crate) use self::unpacked::{FileNumber, Placement, Unpacked, UnpackedWriter};
pub(crate) use self::verify::{Verification, restore};
pub(crate) use self::volume::{CURRENT, Context, RELEASES, STAGING, Volume, VolumeError, explained};
