//! file-puller keeps a volume in step with an external content manager, one immutable release at a time.
//!
//! The contract is in `docs/contract.md`. The folders are layers, and each uses only those above it in this list:
//!
//! - `content`: what a release is: paths, digests, identity, manifest, limits
//! - `source`: the content manager over HTTP, and who we are to it
//! - `store`: the volume: layout and lock, staging, publishing, verification, retention
//! - `fetch`: from the source to the volume: downloads, archives
//! - `git`, `oci`: a commit of a repository or the layers of an image, on their way to the volume
//! - `sync`: one sync from beginning to end: plan, gates, trust, repair
//! - `daemon`: when to sync, and what the outside is told
//! - `app`, `cli`, `config`: the command line, and how the parts are put together; `manifest_cmd`: `file-puller manifest DIR`
//!
//! `metrics`, `progress` and `crash_point` are leaves that any layer may use.

mod app;
mod cli;
mod config;
mod content;
mod crash_point;
mod daemon;
mod fetch;
#[cfg(feature = "fleet")]
pub mod fleet;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod git;
mod manifest_cmd;
mod metrics;
mod oci;
mod progress;
mod source;
mod store;
mod sync;

pub use app::{CONTAINER, execute};
pub use cli::Cli;
