//! Which files there are to follow, by their names, and what the kernel says has happened to them.

mod events;
#[cfg(test)]
pub(crate) mod failing_disk;
mod glob;
mod own;
mod scan;
mod walk;

pub(crate) use self::glob::Glob;
pub(crate) use own::OwnFiles;
pub(crate) use scan::{Discovery, Watch};
pub(crate) use walk::{Names, Place, Symlinks};
