//! The Pod's scorecard on bare processes: the built `kubelet`, which is what `cargo demo` runs, driven as a person drives it.

// A panic is how a test fails, in its helpers as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod demo;
mod killed;
mod mirror;
mod order;
mod processes;
mod swap;
mod together;
mod waiting;
