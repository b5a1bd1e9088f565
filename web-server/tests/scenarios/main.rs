//! The web server's behaviour: each test starts the built binary and talks to it over real sockets.

#![allow(missing_docs, reason = "the tests' names say what they are about")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails, in its helpers too")]

mod access_log;
mod confinement;
mod content;
mod deadlines;
mod drain;
mod faults;
mod flags;
mod fleet;
mod handover;
mod http2;
mod idle;
mod ingress;
mod lesson;
mod live;
mod memory;
mod pod_page;
mod preconditions;
mod presentation;
mod protocol;
mod ranges;
mod releases;
mod removal;
mod rotation;
mod support;
mod threads;
