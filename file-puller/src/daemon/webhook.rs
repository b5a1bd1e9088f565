//! Announces that a release is published: a request to `--webhook` with the release's id.
//!
//! Promises: at least once for each release that stays the newest, in a task of its own, so that no receiver holds up a sync.
//! A release that is replaced before it could be announced is not announced any more. The first release that a process
//! finds in step is announced as well, because the process before it may have died between publishing and telling.
//!
//! SECURITY: for many receivers the URL is the secret, so only its origin is ever shown.

use reqwest::{Client, Method, StatusCode};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::backoff::Backoff;
use crate::content::ReleaseId;
use crate::metrics::Metrics;
use crate::source::{ClientError, HookUrl, SourceUrl, Tls, TlsPems, Transfer, causes, client_for};

/// Where to tell it, and how.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Webhook")]
pub(crate) struct WebhookOptions {
    /// Send the id of each newly published release to this URL
    #[arg(long, value_name = "URL", conflicts_with = "once")]
    webhook: Option<HookUrl>,

    /// Method of that request: POST, PUT or PATCH
    #[arg(long, value_name = "METHOD", default_value = "POST", value_parser = method)]
    webhook_method: Method,

    /// Status that counts as delivered, or 0 for any; by default, every 2xx
    #[arg(long, value_name = "STATUS", value_parser = success)]
    webhook_success_status: Option<Success>,
}

/// Which answer says that a release was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Success {
    Any,
    Status(StatusCode),
}

/// The telling end: says what the newest release is.
#[derive(Debug)]
pub(crate) struct Webhook {
    newest: watch::Sender<Option<ReleaseId>>,
    _delivery: AbortOnDropHandle<()>,
}

struct Delivery {
    client: Client,
    url: HookUrl,
    method: Method,
    success: Option<Success>,
    source: SourceUrl,
    metrics: Metrics,
    backoff: Backoff,
}

impl Webhook {
    /// Starts the task that delivers, where there is a URL to tell.
    pub(crate) fn start(
        options: &WebhookOptions,
        source: SourceUrl,
        transfer: &Transfer,
        tls: &TlsPems,
        backoff: Backoff,
        metrics: Metrics,
    ) -> Result<Option<Self>, ClientError> {
        let Some(url) = options.webhook.clone() else { return Ok(None) };
        let (method, success) = (options.webhook_method.clone(), options.webhook_success_status);
        let client = client_for(Tls::of(url.url()), transfer.connect_timeout, tls)?;
        // Each request on a connection of its own, so that a name that leads elsewhere by now is followed.
        let client = client.read_timeout(transfer.read_timeout).pool_max_idle_per_host(0).build()?;
        let (newest, rx) = watch::channel(None);
        let delivery = Delivery { client, url, method, success, source, metrics, backoff };
        let task = AbortOnDropHandle::new(tokio::spawn(delivery.deliver_newest(rx)));
        Ok(Some(Self { newest, _delivery: task }))
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
        // Ends when the puller does.
        while rx.changed().await.is_ok() {
            loop {
                let Some(release) = rx.borrow_and_update().clone() else { break };
                let outcome = self.deliver(&release).await;
                self.metrics.announced(if outcome.is_ok() { "delivered" } else { "failed" });
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

    /// The error says what became of it.
    async fn deliver(&self, release: &ReleaseId) -> Result<(), String> {
        let body = json!({"release": release.as_str(), "source": self.source.to_string()});
        let request = self
            .client
            .request(self.method.clone(), self.url.url().clone())
            .header("content-type", "application/json");
        let answer = request
            .body(body.to_string())
            .send()
            .await
            .map_err(|error| format!("it cannot be reached: {}", causes(&error)))?;
        let status = answer.status();
        let delivered = match self.success {
            None => status.is_success(),
            Some(Success::Any) => true,
            Some(Success::Status(expected)) => status == expected,
        };
        if delivered { Ok(()) } else { Err(format!("it answers {status}")) }
    }
}

fn method(text: &str) -> Result<Method, String> {
    let method = text.to_ascii_uppercase();
    let known = [Method::POST, Method::PUT, Method::PATCH].into_iter().find(|one| one.as_str() == method);
    known.ok_or_else(|| "it is none of POST, PUT and PATCH, which can carry the release".to_owned())
}

fn success(text: &str) -> Result<Success, String> {
    if text == "0" {
        return Ok(Success::Any);
    }
    let status = text.parse().ok().and_then(|code: u16| StatusCode::from_u16(code).ok());
    status
        .filter(|status| status.as_u16() < 600)
        .map(Success::Status)
        .ok_or_else(|| "it is no status from 100 to 599, nor 0".to_owned())
}
