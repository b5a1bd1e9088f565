//! The way to a receiver, of whichever kind: one attempt at a time.

use std::time::Duration;

use lifecycle::exit::Failure;

use super::attempt::{Accepted, DeliveryError, Payload};
use super::compress::Compression;
use super::credentials::{CredentialFiles, WatchedCredentials};
use super::file::FileSink;
use super::forward::Forward;
use super::ndjson::Ndjson;
use super::otlp::Otlp;
use super::stdout::Stdout;
use super::url::{Form, SinkUrl};
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
#[derive(Debug)]
pub(super) enum Transport {
    Stdout(Stdout),
    File(FileSink),
    Ndjson(Ndjson),
    Otlp(Otlp),
    Forward(Forward),
}

impl Transport {
    /// Prepares it; nothing is sent before the first attempt.
    pub(super) fn new(name: &str, url: &SinkUrl, files: &CredentialFiles) -> Result<Self, Failure> {
        let credentials = |encrypted| WatchedCredentials::read(name, files, encrypted);
        Ok(match url {
            SinkUrl::Stdout(_) => Self::Stdout(Stdout::start()?),
            SinkUrl::File(_, path) => Self::File(FileSink::new(path)),
            SinkUrl::Ndjson(url) => {
                Self::Ndjson(Ndjson::new(url.clone(), credentials(url.scheme() == "https")?)?)
            }
            SinkUrl::Otlp(url) => Self::Otlp(Otlp::new(url.clone(), credentials(url.scheme() == "https")?)?),
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

    /// Makes one attempt.
    pub(super) async fn attempt(&mut self, payload: &Payload) -> Result<Accepted, DeliveryError> {
        let confirmed = match self {
            Self::Stdout(stdout) => stdout.attempt(payload).await,
            Self::File(file) => file.attempt(payload).await,
            Self::Ndjson(ndjson) => ndjson.attempt(payload).await,
            Self::Otlp(otlp) => return otlp.attempt(payload).await,
            Self::Forward(forward) => forward.attempt(payload).await,
        };
        confirmed.map(|()| Accepted::All)
    }
}

/// How records are written for a sink.
pub(super) fn encoding(url: &SinkUrl) -> Encoding {
    match url {
        SinkUrl::Stdout(Form::Raw) | SinkUrl::File(Form::Raw, _) => Encoding::Raw,
        SinkUrl::Stdout(Form::Records) | SinkUrl::File(Form::Records, _) | SinkUrl::Ndjson(_) => {
            Encoding::Ndjson
        }
        SinkUrl::Otlp(_) => Encoding::Otlp,
        SinkUrl::Forward(_) => Encoding::Forward,
    }
}
