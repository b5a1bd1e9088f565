//! Where records go, again and again until they are confirmed.

mod attempt;
mod backoff;
mod compress;
mod credential_flags;
mod credentials;
mod dead_letter;
mod file;
mod forward;
mod health;
mod http;
mod otlp;
mod retry;
mod spec;
mod stdout;
mod transport;
mod url;
mod watchdog;

pub(crate) use compress::Compression;
pub(crate) use credential_flags::CredentialFlags;
pub(crate) use dead_letter::DeadLetters;
pub(crate) use health::Health;
pub(crate) use retry::{Records, Sink};
pub(crate) use spec::{SinkList, SinkSpec};
pub(crate) use transport::Settings;
pub(crate) use url::SinkUrl;
