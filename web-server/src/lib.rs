//! The Pod's web server: serves the current release of a shared volume, and writes the access log.
//!
//! Folders are layers, and each uses only those above it in this list:
//!
//! - `memory`: the budget from which everything that grows takes its share
//! - `content`: what is served. `content/root.rs` holds the current generation and replaces it in one step.
//! - `http`: from a request and a representation to a response: host, preconditions, ranges, codings, the bytes of the body.
//! - `access_log`, `metrics`: one line and one count per response
//! - `routes`: which part answers a request: the protocol, the lesson's endpoints, the live page's data, the manifest, files
//! - `net`: connections are accepted, kept to their deadlines, and drained
//! - `app`: all of it put together from the flags in `config`; `status` is what operators see of it
//!
//! `live_page` is the server as `pod/page`, the data of the sample site's live page, sees it.

mod access_log;
mod app;
mod config;
mod content;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod http;
mod live_page;
mod memory;
mod metrics;
mod net;
mod routes;
mod status;

pub use app::{Listeners, run};
pub use config::{Config, listen_addr};

use lifecycle::Container;

/// Who this container is.
pub const CONTAINER: Container =
    Container { name: "web-server", admin_port: 9877, version: env!("CARGO_PKG_VERSION") };
