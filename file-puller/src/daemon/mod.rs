//! When to sync, who asked for it, and what the outside is told.

mod backoff;
mod requests;
mod scheduler;
mod status;
mod touch;
mod waiting;
mod webhook;

pub(crate) use self::backoff::Backoff;
pub(crate) use self::requests::channel;
pub(crate) use self::scheduler::{Observers, Scheduler, log_outcome};
pub(crate) use self::status::Status;
pub(crate) use self::touch::TouchFile;
#[cfg(feature = "fleet")]
pub(crate) use self::waiting::Cuts;
pub(crate) use self::webhook::{Webhook, WebhookOptions};
