//! The way to a receiver, of whichever kind: one attempt at a time.

use std::time::Duration;

use lifecycle::exit::Failure;
use reqwest::StatusCode;

use super::attempt::{Accepted, DeliveryError, Payload, Retry};
use super::compress::Compression;
use super::credentials::{CredentialFiles, WatchedCredentials};
use super::file::FileSink;
use super::forward::Forward;
use super::http::{Answer, Http};
use super::otlp;
use super::stdout::Stdout;
use super::url::SinkUrl;
use crate::record::encode::Encoding;

/// What sinks are set up with, besides where they are.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// For what goes over the network.
    pub(crate) compression: Compression,
    /// An attempt is over when nothing has moved for this long.
    pub(crate) timeout: Duration,
    /// How long a receiver that refuses everything is believed to be broken.
    pub(crate) reject_wait: Duration,
}

/// One kind of receiver.
pub(super) enum Transport {
    Stdout(Stdout),
    File(FileSink),
    Ndjson(Http),
    Otlp(Http),
    Forward(Forward),
}

impl Transport {
    /// Prepares it; nothing is sent before the first attempt.
    pub(super) fn new(name: &str, url: &SinkUrl, files: &CredentialFiles) -> Result<Self, Failure> {
        let credentials = |encrypted| WatchedCredentials::read(name, files, encrypted);
        Ok(match url {
            SinkUrl::Stdout(_) => Self::Stdout(Stdout::new()?),
            SinkUrl::File(_, path) => Self::File(FileSink::new(path)),
            SinkUrl::Ndjson(url) => {
                let credentials = credentials(url.scheme() == "https")?;
                Self::Ndjson(Http::new(url.clone(), "application/x-ndjson", credentials)?)
            }
            SinkUrl::Otlp(url) => {
                let credentials = credentials(url.scheme() == "https")?;
                Self::Otlp(Http::new(otlp::url(url.clone()), otlp::CONTENT_TYPE, credentials)?)
            }
            SinkUrl::Forward(url) => Self::Forward(Forward::new(url.clone(), credentials(url.tls)?)?),
        })
    }

    /// How payloads are compressed: what stays on this machine is written as it is.
    pub(super) fn compression(&self, configured: Compression) -> Compression {
        match self {
            Self::Stdout(_) | Self::File(_) => Compression::None,
            Self::Ndjson(_) | Self::Otlp(_) | Self::Forward(_) => configured,
        }
    }

    pub(super) fn encoding(&self) -> Encoding {
        match self {
            Self::Stdout(_) | Self::File(_) | Self::Ndjson(_) => Encoding::Ndjson,
            Self::Otlp(_) => Encoding::Otlp,
            Self::Forward(_) => Encoding::Forward,
        }
    }

    pub(super) async fn attempt(&mut self, payload: &Payload) -> Result<Accepted, DeliveryError> {
        match self {
            Self::Stdout(stdout) => stdout.attempt(payload).await.map(|()| Accepted::All),
            Self::File(file) => file.attempt(payload).await.map(|()| Accepted::All),
            Self::Ndjson(http) => ndjson_verdict(&http.post(payload).await?),
            Self::Otlp(http) => otlp::verdict(&http.post(payload).await?, payload.records),
            Self::Forward(forward) => forward.attempt(payload).await.map(|()| Accepted::All),
        }
    }
}

/// What an answer to NDJSON means: any 2xx confirms all records.
fn ndjson_verdict(answer: &Answer) -> Result<Accepted, DeliveryError> {
    Err(answer.error(match answer.status {
        status if status.is_success() => return Ok(Accepted::All),
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            Retry::Reject
        }
        // Whatever else: a receiver that is overloaded, being mended, or not yet given the right path or
        // credentials. Lines wait for that in their files.
        _ => Retry::After(answer.retry_after),
    }))
}
