//! How this process speaks HTTP at all: TLS without a file of the image, and errors that say what to do.

use std::error::Error as _;
use std::time::Duration;

use lifecycle::escape::escaped;
use lifecycle::exit::{Exit, Failure};
use lifecycle::{Ignore as _, units};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Url};

use super::credentials::CredentialError;
use super::tls::TlsPems;

/// How content is fetched.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Transfer")]
pub(crate) struct Transfer {
    /// Files fetched at a time
    #[arg(long, value_name = "N", default_value = "8", value_parser = at_least_one)]
    pub(crate) concurrency: usize,

    /// Longest time for a connection to be made, TLS included
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = units::positive_duration)]
    pub(crate) connect_timeout: Duration,

    /// Longest time without a byte from the source, before a response and within it
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = units::positive_duration)]
    pub(crate) read_timeout: Duration,

    /// Give up a transfer that brings fewer bytes a second on average, once it has lasted --read-timeout
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = units::size)]
    pub(crate) min_throughput: u64,

    // With the default --period, a name that leads elsewhere is followed within a minute.
    /// Open new connections for a sync when the old ones are older than this, so that a changed DNS name is followed
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = units::positive_duration)]
    pub(crate) max_connection_age: Duration,
}

/// Why no request can be made at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// A file of `--ca-file` and its like is not what it should be.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] reqwest::Error),
}

impl ClientError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Credential(error) => error.exit(),
            // The last check of a certificate and its key, that they belong together, is made there.
            Self::Tls(_) => Exit::Refused,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::new(error.exit(), error.to_string())
    }
}

/// What to say where an answer did not come in time.
pub(crate) const TIMED_OUT: &str = "timed out; see --connect-timeout and --read-timeout";

/// Why a request failed, without the URL: the first message of the chain repeats it, query and all.
pub(crate) fn causes(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return TIMED_OUT.to_owned();
    }
    let mut chain = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        chain.push(cause.to_string());
        next = cause.source();
    }
    let says = |what: &str| chain.iter().any(|text| text.contains(what));
    // The resolver's words for a name without an address are its question, as a data structure.
    if says("no records found") {
        return "DNS has no address for its host name; check the name, and the resolver of this machine or Pod"
            .to_owned();
    }
    if says("dns error") {
        let why = chain.last().map_or("", String::as_str);
        return format!("DNS cannot be asked for its host name: {}", escaped(why));
    }
    let mut causes: Vec<&str> = Vec::new();
    for text in &chain {
        // Some layers repeat the layer below them, and hyper's "client error (Connect)" says less than it.
        let is_news = causes.last().is_none_or(|last| !last.contains(text.as_str()));
        if is_news && !text.starts_with("client error") {
            causes.push(text);
        }
    }
    if causes.is_empty() {
        "the connection failed".to_owned()
    } else {
        escaped(&causes.join(": ")).to_string()
    }
}

/// Whether a client has to speak TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    Spoken,
    /// Then its 150 roots need not be in memory.
    Never,
}

impl Tls {
    /// What a URL needs.
    pub(crate) fn of(url: &Url) -> Self {
        if url.scheme() == "https" { Self::Spoken } else { Self::Never }
    }
}

/// A client that needs no file of the image that it runs in. It follows no redirect, and has no timeout but for connecting.
pub(crate) fn client_for(
    tls: Tls,
    connect_timeout: Duration,
    pems: &TlsPems,
) -> Result<ClientBuilder, ClientError> {
    // Refused only when a provider is installed already, and then there is one, which is all that is needed.
    rustls::crypto::ring::default_provider().install_default().ignore();
    let client = Client::builder()
        .user_agent(concat!("file-puller/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(connect_timeout)
        .redirect(Policy::none());
    match tls {
        Tls::Spoken => {
            let trusted = public_roots()?.into_iter().chain(pems.authorities()?);
            Ok(pems.identify(client.tls_certs_only(trusted))?)
        }
        Tls::Never => Ok(client.tls_certs_only([])),
    }
}

/// The certificate authorities that browsers trust, compiled in: a scratch image has no files of its own.
fn public_roots() -> Result<Vec<Certificate>, reqwest::Error> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|root| Certificate::from_der(root)).collect()
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}
