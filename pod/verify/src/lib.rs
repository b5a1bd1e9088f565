//! What every way of running the Pod must show, and the documents' commands, run as a reader runs them.
//!
//! - [`engine`]: what a scenario may ask of a running Pod, whatever runs it: Compose, podman, a cluster, processes
//! - [`scenario`]: the scorecard's rows, written once for every engine
//! - [`lab`]: pages that a person reads and a machine runs
//! - [`program`]: what the two programs `verify` and `labs` share
//!
//! The engine for bare processes is in the kubelet's tests, which build it.

// What a scenario returns is what it saw; saying so again at each function would say nothing.
#![allow(clippy::missing_errors_doc)]

pub mod engine;
pub mod lab;
pub mod program;
pub mod scenario;
mod wait;
