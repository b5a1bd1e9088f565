//! For tests only: what a test of a container needs and a container does not.
//!
//! - [`process`]: run a built binary, learn its ports from its log, signal it, read its last word
//! - [`terminal`]: run a command at a terminal, and look at its screen
//! - [`http`]: requests and answers byte by byte, over plain blocking sockets
//! - [`upstream`]: an HTTP server that does what the test says, wrong things included
//! - [`probes`]: ask a server whether it is alive, and say how long it kept the probes waiting
//! - [`wait`]: wait for a condition with a deadline, never for a time
//! - [`percentile()`]: how long something takes nearly always
//!
//! Everything blocks: a test reads from top to bottom, and shares no runtime with what it tests.

// A panic is how a test fails, so here everything may; saying it again at each function would say nothing.
#![allow(clippy::missing_panics_doc, clippy::panic, clippy::print_stdout, clippy::format_push_string)]

pub mod http;
mod percentile;
pub mod probes;
pub mod process;
pub mod terminal;
pub mod upstream;
pub mod wait;

pub use percentile::percentile;
pub use probes::Probes;
pub use process::Process;
pub use upstream::{Answer, Upstream};
pub use wait::{eventually, wait_until};
