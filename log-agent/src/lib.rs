//! Tails the logs in a shared volume and delivers every line, even across crashes.
//!
//! At least once, and in order per file: a sink's position moves only over what the sink has confirmed, and only such
//! positions are checkpointed. The files themselves are the buffer, so a sink that is down costs neither memory nor lines.
//!
//! In the order in which a line goes through; each layer uses those before it and none behind it, but for [`agent`] and
//! [`app`], which use all of them:
//!
//! - [`config`]: the flags
//! - [`identity`], [`position`], [`metrics`], [`loss`]: words that all layers share: which file and which content of it, what was
//!   read and what was confirmed, what is counted, what is lost
//! - [`directory`]: how a name outlives a crash
//! - [`record`]: what a line says, what of it is left out, and what a receiver gets
//! - [`checkpoint`]: what survives a restart (when it is written is `agent/checkpoint_schedule.rs`)
//! - [`watch`]: which files there are by name, and what the kernel says has happened to them
//! - [`tail`]: the files that are followed, and what is read of each
//! - [`deliver`]: where records go, again and again until they are confirmed
//! - [`agent`]: the loop that all of it happens in, the drain, and what others may ask
//! - [`app`]: puts it together
//! - [`replay`]: dead letters, sent again

mod agent;
mod app;
mod checkpoint;
mod config;
mod deliver;
mod directory;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod identity;
mod loss;
mod metrics;
mod position;
mod record;
mod replay;
mod tail;
mod watch;

pub use app::run;
pub use config::Config;
pub use replay::Replay;

/// Who this container is.
pub const CONTAINER: lifecycle::Container =
    lifecycle::Container { name: "log-agent", admin_port: 9879, version: env!("CARGO_PKG_VERSION") };
