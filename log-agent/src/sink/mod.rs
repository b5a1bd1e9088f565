//! Where records go. A sink makes one attempt at a time and says how it went; that an attempt is repeated until it is
//! confirmed, in order and without a gap, is decided in `deliver`, once for all of them.

mod compress;
mod deliver;
mod file;
mod forward;
mod health;
mod http;
mod ndjson;
mod otlp;
mod stdout;
mod tls;
mod url;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lifecycle::exit::{Exit, Failure, OrExit as _};

use crate::chunk::Purpose;
use crate::dead_letter::DeadLetters;
use crate::enrich::SharedResource;
use crate::ledger::Ledger;
use crate::metrics::{BySink, Metrics};
use crate::record::Encoding;
pub use compress::Compression;
use compress::Compressor;
pub use forward::SharedKey;
pub use health::Health;
pub use tls::Roots;
pub use url::{Form, ForwardUrl, SinkUrl};

/// An attempt that was not confirmed.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Why, in a sentence.
    reason: String,
    remedy: Remedy,
}

/// What may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// The same again, after the backoff and after what the receiver asked for.
    Wait(Option<Duration>),
    /// Other content: nothing is wrong with the receiver.
    OtherContent,
    /// Perhaps other content. A receiver that breaks says the same as one that breaks at a record, so the last record of
    /// a bisection is tried for a while before it is given up.
    PerhapsOtherContent,
}

/// What was confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// All of it.
    All,
    /// All but so many records; which ones, the receiver does not say.
    AllBut(u64, String),
}

impl Refusal {
    pub(crate) fn wait(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: Remedy::Wait(None) }
    }
}

/// What one attempt carries: the same bytes and the same key at every repetition.
#[derive(Debug)]
pub(crate) struct Payload {
    key: String,
    body: Bytes,
    /// What was done to the body.
    compression: Compression,
    records: usize,
}

/// What sinks are set up with, besides where they are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For what goes over the network.
    pub compression: Compression,
    /// Whom to trust.
    pub roots: Roots,
    /// For Forward receivers that ask for it.
    pub shared_key: Option<forward::SharedKey>,
}

/// What every sink has to do with, besides its receiver.
#[derive(Debug)]
pub struct Records {
    /// What they carry.
    pub resource: SharedResource,
    /// Where those go that a receiver will not have.
    pub dead_letters: DeadLetters,
    /// And where that is said.
    pub ledger: Ledger,
}

/// A sink, ready to deliver.
#[derive(Debug)]
pub struct Sink {
    index: usize,
    name: String,
    kind: Kind,
    encoding: Encoding,
    resource: SharedResource,
    dead_letters: DeadLetters,
    ledger: Ledger,
    health: Arc<Health>,
    metrics: Metrics,
    /// Whether it has ever confirmed anything.
    proven: bool,
    compressor: Compressor,
    /// Memory for the next payload.
    spare: Vec<u8>,
}

#[derive(Debug)]
enum Kind {
    Stdout(stdout::Stdout),
    File(file::FileSink),
    Ndjson(ndjson::Ndjson),
    Otlp(otlp::Otlp),
    Forward(forward::Forward),
}

impl Sink {
    /// Prepares a sink; nothing is sent before the first chunk.
    ///
    /// # Errors
    /// 70 or 74 where its client or its thread cannot be made.
    pub fn new(
        index: usize,
        url: &SinkUrl,
        settings: &Settings,
        records: Records,
        metrics: Metrics,
    ) -> Result<Self, Failure> {
        let Records { resource, dead_letters, ledger } = records;
        let name = url.name();
        let kind = match url {
            SinkUrl::Stdout(_) => Kind::Stdout(stdout::Stdout::start()?),
            SinkUrl::File(_, path) => Kind::File(file::FileSink::new(path)),
            SinkUrl::Ndjson(url) => Kind::Ndjson(ndjson::Ndjson::new(url.clone(), &settings.roots)?),
            SinkUrl::Otlp(url) => Kind::Otlp(otlp::Otlp::new(url.clone(), &settings.roots)?),
            SinkUrl::Forward(url) => Kind::Forward(forward::Forward::new(url.clone(), settings)?),
        };
        let compression = match kind {
            // What stays on this machine is written as it is.
            Kind::Stdout(_) | Kind::File(_) => Compression::None,
            Kind::Ndjson(_) | Kind::Otlp(_) | Kind::Forward(_) => settings.compression,
        };
        let encoding = match url {
            SinkUrl::Stdout(Form::Raw) | SinkUrl::File(Form::Raw, _) => Encoding::Raw,
            SinkUrl::Stdout(Form::Records) | SinkUrl::File(Form::Records, _) | SinkUrl::Ndjson(_) => {
                Encoding::Ndjson
            }
            SinkUrl::Otlp(_) => Encoding::Otlp,
            SinkUrl::Forward(_) => Encoding::Forward,
        };
        let compressor = Compressor::new(compression).or_exit(Exit::Internal)?;
        metrics.sink_up.get_or_create(&BySink { sink: name.clone() }).set(1);
        let (health, proven, spare) = (Arc::default(), false, Vec::new());
        Ok(Self {
            index,
            name,
            kind,
            encoding,
            resource,
            dead_letters,
            ledger,
            health,
            metrics,
            proven,
            compressor,
            spare,
        })
    }

    /// As it is written in logs, metrics and the checkpoint: its URL without credentials.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its chunks are for.
    pub fn purpose(&self) -> Purpose {
        match self.encoding {
            Encoding::Raw => Purpose::Copies,
            Encoding::Ndjson | Encoding::Otlp | Encoding::Forward => Purpose::Records,
        }
    }

    /// How it is doing, for others to look at.
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }
}
