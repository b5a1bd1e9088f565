//! Faults on purpose, for labs: what a Pod does when its server is unready, failing, slow, or dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use http::{Response, StatusCode};
use lifecycle::admin::{Admin, json};
use serde_json::json;

use crate::http::body::Payload;
use crate::http::response::plain;

/// How late answers are while they are delayed.
const DELAY: Duration = Duration::from_secs(1);

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None = 0,
    /// `/readyz` says no; requests are answered all the same.
    Unready = 1,
    /// Every request is answered 500.
    Failing = 2,
    /// Every answer is late.
    Delayed = 3,
}

impl Fault {
    const ALL: [Self; 4] = [Self::None, Self::Unready, Self::Failing, Self::Delayed];

    /// As `/status` has it.
    pub(crate) fn name(self) -> &'static str {
        self.route().trim_start_matches("/faults/")
    }

    fn route(self) -> &'static str {
        match self {
            Self::None => "/faults/none",
            Self::Unready => "/faults/unready",
            Self::Failing => "/faults/failing",
            Self::Delayed => "/faults/delayed",
        }
    }
}

/// The fault that is on, shared by all who have to play along.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults(Arc<AtomicU8>);

impl Faults {
    /// What is wrong now.
    pub(crate) fn now(&self) -> Fault {
        let number = self.0.load(Ordering::Relaxed);
        Fault::ALL.into_iter().find(|fault| *fault as u8 == number).unwrap_or(Fault::None)
    }

    /// Adds `POST /faults/…` to the admin port, where only neighbours in the Pod are answered.
    #[must_use]
    pub(crate) fn routes(&self, mut admin: Admin) -> Admin {
        for fault in Fault::ALL {
            let faults = self.clone();
            admin = admin.action(fault.route(), move || {
                tracing::warn!(fault = fault.name(), "fault set on request");
                faults.0.store(fault as u8, Ordering::Relaxed);
                async move { json(StatusCode::OK, &json!({"fault": fault.name()})) }
            });
        }
        admin.action("/faults/crash", || async {
            tracing::error!("crashing on request");
            std::process::abort()
        })
    }

    /// Makes a request late, or answers it.
    pub(crate) async fn apply(&self) -> Option<Response<Payload>> {
        match self.now() {
            Fault::None | Fault::Unready => None,
            Fault::Failing => {
                Some(plain(StatusCode::INTERNAL_SERVER_ERROR, "failing, because a fault was asked for\n"))
            }
            Fault::Delayed => {
                tokio::time::sleep(DELAY).await;
                None
            }
        }
    }
}
