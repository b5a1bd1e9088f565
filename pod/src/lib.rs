//! The Pod on bare processes, and what every way of running it must show.
//!
//! A Pod is a handful of processes that share volumes and an address, and a kubelet that starts them in order, starts
//! them again when they die, and stops them in order. None of that needs a container engine, so `cargo demo` does it
//! with child processes, and a reader can follow every step.
//!
//! - [`flags`]: what `cargo demo` can be told
//! - [`binaries`]: builds or finds the three binaries
//! - [`spec`]: this Pod, declared as data: containers, volumes, order
//! - [`downward`]: what its containers are told of it
//! - [`kubelet`]: runs a declared Pod: start order, probes, restarts, stop order
//! - [`life`]: one life of one container, and everything that it says
//! - [`backoff`]: how long a kubelet waits before it starts a dead container again
//! - [`console`]: every line of every container, behind its name
//! - [`engine`]: what a scenario may ask of a running Pod, whatever runs it
//! - [`scenario`]: the scorecard's rows, written once for every engine
//! - [`lab`]: the documents' commands, run as a reader runs them

pub mod backoff;
pub mod binaries;
pub mod console;
pub mod downward;
pub mod engine;
pub mod flags;
pub mod kubelet;
pub mod lab;
pub mod life;
pub mod scenario;
pub mod spec;
