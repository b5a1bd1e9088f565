//! What the agent promises, each promise tried on the built binary over real files and sockets.

mod cli;
mod crash;
mod drain;
mod files;
mod lines;
mod rotate;
mod sinks;
mod support;
