//! What is served: the root, what it holds now, and each file's bytes with the metadata that belongs to them.

pub(crate) mod coding;
pub(crate) mod digest;
pub(crate) mod dir;
pub(crate) mod edition;
pub(crate) mod edition_updates;
pub(crate) mod editions;
mod entry;
pub(crate) mod generation;
pub(crate) mod header_policy;
pub(crate) mod index;
pub(crate) mod large_file;
mod listing;
pub(crate) mod live;
pub(crate) mod loader;
pub(crate) mod media_type;
pub(crate) mod path;
pub(crate) mod path_glob;
pub(crate) mod public;
pub(crate) mod redirects;
pub(crate) mod release;
pub(crate) mod representation;
pub(crate) mod root;
pub(crate) mod stale_assets;
pub(crate) mod walk;
pub(crate) mod watch;
