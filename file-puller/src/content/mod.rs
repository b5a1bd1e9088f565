//! What a release is, checked: its paths, its manifest, its identity. Nothing here touches the network or the volume.

pub(crate) mod digest;
pub(crate) mod limits;
mod listing;
pub(crate) mod manifest;
mod names_budget;
pub(crate) mod path;
mod public;
pub(crate) mod release_id;
mod selection;
mod site;
pub(crate) mod timestamp;

pub(crate) use self::digest::{Digest, FileMode};
pub(crate) use self::limits::Limits;
pub(crate) use self::listing::{Listing, ListingError};
pub(crate) use self::manifest::{LARGE_MANIFEST, Manifest, ManifestFile};
pub(crate) use self::names_budget::NamesBudget;
pub(crate) use self::path::ReleasePath;
pub(crate) use self::public::is_public;
pub(crate) use self::release_id::ReleaseId;
pub(crate) use self::selection::Selection;
pub(crate) use self::site::Site;
