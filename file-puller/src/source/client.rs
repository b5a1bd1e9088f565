//! How this process speaks HTTP at all: TLS without a file of the image, timeouts, and no redirect to another origin.

use std::error::Error as _;
use std::time::Duration;

use lifecycle::exit::{Exit, Failure};
use lifecycle::{Ignore as _, units};
use reqwest::redirect::{Action, Attempt};
use reqwest::{Certificate, Client, ClientBuilder, Url};

use super::credentials::CredentialError;
use super::tls::TlsPems;
use super::url;

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

    /// Least bytes a second that a transfer brings on average, once it has taken longer than --read-timeout
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = units::size)]
    pub(crate) min_throughput: u64,
}

/// Redirects in a row before it is a loop.
const REDIRECTS: usize = 5;

/// Why a redirect is not followed.
#[derive(Debug, thiserror::Error)]
enum RedirectError {
    #[error("it redirects to {0}, another origin; if content moved there, name that in --source")]
    OtherOrigin(String),
    #[error("it redirects more than {REDIRECTS} times")]
    Loop,
}

/// Why no request can be made at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// A file of `--ca-file` and its like is not what it should be.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] reqwest::Error),
}

impl ClientError {
    /// The exit code for it.
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

/// Why a request failed, without the URL: the first message of the chain repeats it, query and all.
pub(crate) fn causes(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out; see --connect-timeout and --read-timeout".to_owned();
    }
    let mut causes: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // The resolver's words for a name without an address are its question, as a data structure.
        if text.contains("no records found") {
            return "its host name has no address; check the name, and the DNS of this machine or Pod"
                .to_owned();
        }
        // Some layers repeat the layer below them, and hyper's "client error (Connect)" says less than it.
        let is_news = causes.last().is_none_or(|last| !last.contains(&text));
        if is_news && !text.starts_with("client error") {
            causes.push(text);
        }
        next = cause.source();
    }
    if causes.is_empty() { "the connection failed".to_owned() } else { causes.join(": ") }
}

/// A client that needs no file of the image that it runs in.
pub(crate) fn client_for(
    url: &Url,
    transfer: &Transfer,
    tls: &TlsPems,
) -> Result<ClientBuilder, ClientError> {
    // Refused only when a provider is installed already, and then there is one, which is all that is needed.
    rustls::crypto::ring::default_provider().install_default().ignore();
    let client = Client::builder()
        .user_agent(concat!("file-puller/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(transfer.connect_timeout)
        .read_timeout(transfer.read_timeout);
    if url.scheme() == "https" {
        let trusted = public_roots()?.into_iter().chain(tls.authorities()?);
        return Ok(tls.identify(client.tls_certs_only(trusted))?);
    }
    // No redirect leaves the origin, so TLS is never spoken, and its 150 roots need not be in memory.
    Ok(client.tls_certs_only([]))
}

/// SECURITY: content is trusted because of where it comes from. A redirect to another origin would let whoever can write one
/// response header choose that.
pub(crate) fn within_origin(attempt: Attempt<'_>) -> Action {
    let Some(first) = attempt.previous().first() else { return attempt.follow() };
    if first.origin() != attempt.url().origin() {
        let to = url::display(attempt.url());
        return attempt.error(RedirectError::OtherOrigin(to));
    }
    if attempt.previous().len() > REDIRECTS {
        return attempt.error(RedirectError::Loop);
    }
    attempt.follow()
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
