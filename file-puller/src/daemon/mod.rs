//! When to sync, who asked for it, and what the outside is told.

mod backoff;
mod cuts;
mod requests;
mod scheduler;
mod status;
mod touch;
mod webhook;

pub(crate) use self::backoff::Backoff;
#[cfg(feature = "fleet")]
pub(crate) use self::cuts::Cuts;
pub(crate) use self::requests::channel;
pub(crate) use self::scheduler::{Observers, Scheduler, log_outcome};
pub(crate) use self::status::Status;
pub(crate) use self::touch::TouchFile;
pub(crate) use self::webhook::{Webhook, WebhookOptions};
