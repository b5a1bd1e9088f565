//! Tells somebody that a release is published: a `POST` to `--webhook` with the release's id.
//!
//! Promises: at least once for each release that stays the newest, in a task of its own, so that no receiver holds up a sync.
//! A release that is replaced before it could be announced is not announced any more. The first release that a process
//! finds in step is announced as well, because the process before it may have died between publishing and telling.
//!
//! SECURITY: for many receivers the URL is the secret, so only its origin is ever shown.

use std::fmt;
use std::str::FromStr;

use reqwest::{Client, StatusCode, Url};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::backoff::Backoff;
use crate::content::ReleaseId;
use crate::metrics::Metrics;
use crate::source::{ClientError, SourceUrl, TlsPems, Transfer, causes, client_for};

/// Where to tell it.
#[derive(Clone)]
pub(crate) struct WebhookUrl(Url);

/// The telling end: says what the newest release is.
#[derive(Debug)]
pub(crate) struct Webhook {
    newest: watch::Sender<Option<ReleaseId>>,
    _delivery: AbortOnDropHandle<()>,
}

/// Why a delivery did not arrive.
#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("it answers {0}")]
    Status(StatusCode),
}

struct Delivery {
    client: Client,
    url: WebhookUrl,
    source: SourceUrl,
    metrics: Metrics,
    backoff: Backoff,
}

impl FromStr for WebhookUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url =
            Url::parse(text).map_err(|error| format!("{error}; write it like https://hooks.example/x"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("it has to begin with http:// or https://".to_owned());
        }
        Ok(Self(url))
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.origin().ascii_serialization())
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl Webhook {
    /// Starts the task that delivers.
    pub(crate) fn start(
        url: WebhookUrl,
        source: SourceUrl,
        transfer: &Transfer,
        tls: &TlsPems,
        backoff: Backoff,
        metrics: Metrics,
    ) -> Result<Self, ClientError> {
        let client =
            client_for(&url.0, transfer, tls)?.redirect(reqwest::redirect::Policy::none()).build()?;
        let (newest, rx) = watch::channel(None);
        let delivery = Delivery { client, url, source, metrics, backoff };
        let task = AbortOnDropHandle::new(tokio::spawn(delivery.deliver_newest(rx)));
        Ok(Self { newest, _delivery: task })
    }

    /// Announces a release, unless it is the one that was announced last.
    pub(crate) fn announce(&self, release: &ReleaseId) {
        self.newest.send_if_modified(|newest| {
            let changed = newest.as_ref() != Some(release);
            *newest = Some(release.clone());
            changed
        });
    }
}

impl Delivery {
    async fn deliver_newest(mut self, mut rx: watch::Receiver<Option<ReleaseId>>) {
        // Endpoints when the puller does.
        while rx.changed().await.is_ok() {
            loop {
                let Some(release) = rx.borrow_and_update().clone() else { break };
                let outcome = self.deliver(&release).await;
                self.metrics.announced(outcome.as_ref().copied().map_err(drop));
                let error = match outcome {
                    Ok(()) => {
                        tracing::debug!(%release, webhook = %self.url, "announced");
                        self.backoff.after_success();
                        break;
                    }
                    Err(error) => error,
                };
                let wait = self.backoff.after_failure(None);
                tracing::warn!(%release, webhook = %self.url, %error, "the webhook does not know yet");
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    // News replaces what could not be told.
                    _ = rx.changed() => {}
                }
            }
        }
    }

    async fn deliver(&self, release: &ReleaseId) -> Result<(), DeliveryError> {
        let body = json!({"release": release.as_str(), "source": self.source.to_string()});
        let request = self.client.post(self.url.0.clone()).header("content-type", "application/json");
        let answer = request
            .body(body.to_string())
            .send()
            .await
            .map_err(|error| DeliveryError::Unreachable(causes(&error)))?;
        if answer.status().is_success() { Ok(()) } else { Err(DeliveryError::Status(answer.status())) }
    }
}
