//! Where records go, again and again until they are confirmed.

mod attempt;
mod backoff;
mod compress;
mod dead_letter;
mod file;
mod forward;
mod health;
mod http;
mod ndjson;
mod otlp;
mod retry;
mod stdout;
mod tls;
mod transport;
mod url;

pub(crate) use compress::Compression;
pub(crate) use dead_letter::DeadLetters;
pub(crate) use forward::SharedKey;
pub(crate) use health::Health;
pub(crate) use retry::{Records, Sink};
pub(crate) use tls::Roots;
pub(crate) use transport::Settings;
pub(crate) use url::SinkUrl;
