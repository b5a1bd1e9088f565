//! Connections: accepted, served within their deadlines, and drained.

mod closed_windows;
pub(crate) mod connection;
pub(crate) mod deadlines;
mod heads;
pub(crate) mod server;
pub(crate) mod table;
