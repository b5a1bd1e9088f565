//! Tails the logs in a shared volume and forwards them, losing none.
//!
//! At least once, and in order per file: a sink's position moves only over what the sink has confirmed, and only such
//! positions are checkpointed. The files themselves are the buffer, so a sink that is down costs neither memory nor lines.
//!
//! In the order in which a line goes through:
//!
//! - [`config`]: the flags
//! - [`discover`]: which files there are by name, and what the kernel says has happened to them
//! - [`identity`]: what makes a file the same file, whatever it is called
//! - [`turns`]: the order of reading: the oldest of a family first, families in turn
//! - [`catalog`]: all files that are followed: new, renamed, gone
//! - [`source`]: one open file: complete lines, read for each sink from where it stands
//! - [`parse`]: what a line says
//! - [`shape`]: what of it is left out, because the user said so
//! - [`chunk`]: lines that are delivered and confirmed as one
//! - [`enrich`] and [`record`]: what a receiver gets
//! - [`pipeline`]: one sink's side: a chunk that fills while the one before is delivered
//! - [`sink`] and [`backoff`]: where records go, again and again until they are confirmed
//! - [`dead_letter`]: records that a sink will not have
//! - [`position`]: what was read and what was confirmed, which are not the same
//! - [`checkpoint`] and [`saver`]: what survives a restart, and when it is written
//! - [`ledger`]: what is lost, by reason, file and byte range
//! - [`metrics`], [`status`]: what others may ask
//! - [`agent`] and [`drain`]: the loop that all of it happens in, and its last word

pub mod agent;
pub mod backoff;
pub mod catalog;
pub mod checkpoint;
pub mod chunk;
pub mod config;
pub mod dead_letter;
pub mod discover;
pub mod drain;
pub mod enrich;
pub mod identity;
mod json;
pub mod ledger;
pub mod metrics;
pub mod parse;
pub mod pipeline;
pub mod position;
pub mod record;
pub mod saver;
pub mod shape;
pub mod sink;
pub mod source;
pub mod status;
pub mod turns;

pub use agent::run;

/// Who this container is.
pub const CONTAINER: lifecycle::Container =
    lifecycle::Container { name: "log-agent", admin_port: 9879, version: env!("CARGO_PKG_VERSION") };
