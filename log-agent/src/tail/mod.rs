//! The files that are followed: which they are, in which order they are read, and what is read of each.
//!
//! A [`Catalog`] has the files; a file has a [`content::Content`], which is another one after every truncation. What is left of
//! files that are followed no more is in `orphans`, what a name may say in `rotation`, what happens at `copytruncate` in
//! `copytruncate`, and how bytes become lines in `framing`.

mod catalog;
#[cfg(test)]
mod catalog_tests;
mod content;
mod copytruncate;
mod descriptors;
mod ends;
mod file;
mod files;
mod framing;
mod hidden;
mod lag;
#[cfg(test)]
mod model_tests;
mod obstacles;
mod orphans;
mod queue;
mod read;
mod rotation;
#[cfg(test)]
pub(crate) mod slow_disk;
mod start;

pub(crate) use catalog::{Catalog, CatalogOptions, Filled, Past};
pub(crate) use file::{Naming, TailedFile};
pub(crate) use files::Snapshot;
pub(crate) use read::{Multiline, ReadOptions, UnterminatedLine};
pub(crate) use start::StartAt;
