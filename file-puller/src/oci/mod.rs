//! An image or an artifact in an OCI registry as a source: its layers are tars, put over one another.
//!
//! - [`registry`]: the server that has it, with [`challenge`]: how it wants to be asked
//! - [`manifest`]: what an image consists of
//!
//! The requests are our own, and not those of the crate `oci-client`: that one makes its own HTTP client, with redirects,
//! time limits and certificate authorities that none of our flags reaches, and pulls whole blobs into memory. What is needed of the
//! distribution specification is three URLs and a token.

mod challenge;
mod manifest;
mod registry;

pub(crate) use self::manifest::{Layer, Platform};
pub(crate) use self::registry::{Registry, RegistryError};

/// What is followed of an image.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "OCI")]
pub(crate) struct OciOptions {
    /// Which image of an index to follow, such as linux/amd64; without it, an index must have a single one
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    pub(crate) platform: Option<Platform>,
}
