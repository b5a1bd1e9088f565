//! Connections: accepted, served within their deadlines, and drained.

pub(crate) mod connection;
pub(crate) mod deadlines;
pub(crate) mod server;
pub(crate) mod table;
