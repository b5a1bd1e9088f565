//! What the agent promises, each promise tried on the built binary over real files and sockets.

// A panic is how a test fails, a formatted line is not worth a buffer here, and counts are small.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::format_collect,
    clippy::cast_precision_loss
)]

mod accounted;
mod cli;
mod containers;
mod copytruncate;
mod crash;
mod credentials;
mod drain;
mod files;
mod forward;
mod limits;
mod lines;
mod local_sinks;
mod loggers;
mod metrics;
mod otlp;
mod replay;
mod rotate;
mod scans;
mod shaping;
mod sinks;
mod stubborn;
mod support;
mod tls;
mod truncate;
mod world;
