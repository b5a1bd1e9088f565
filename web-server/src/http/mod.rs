//! HTTP: from a request and a representation to a response, and what one connection's requests share.

pub(crate) mod accept;
pub(crate) mod body;
pub(crate) mod conditional;
pub(crate) mod cors;
pub(crate) mod exchange;
pub(crate) mod host;
pub(crate) mod parking;
pub(crate) mod range;
pub(crate) mod request_id;
pub(crate) mod response;
pub(crate) mod send_buffer;
pub(crate) mod sendfile;
pub(crate) mod state;
pub(crate) mod trusted_proxies;
