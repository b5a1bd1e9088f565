//! The Pod's scorecard on bare processes: the built `pod` binary, which is `cargo demo`, driven as a person drives it.

// A panic is how a test fails, in its helpers as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod demo;
mod documents;
mod kubelet;
mod order;
mod processes;
mod swap;
mod together;
