//! The puller's flags: which there are, what they default to and why.

use std::path::PathBuf;
use std::time::Duration;

use lifecycle::units;

use crate::credentials::Login;
use crate::gate::Gates;
use crate::location::SourceUrl;
use crate::release::Digest;
use crate::tls::TlsFiles;
use crate::webhook::WebhookUrl;

/// What the puller works with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where content comes from.
    pub source: SourceUrl,
    /// Where it goes.
    pub volume: PathBuf,
    /// Everything that has a default.
    pub options: Options,
}

/// The flags that have a default.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Time from one check to the next, spread by a tenth so that a thousand Pods do not ask at once
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = positive_duration)]
    pub period: Duration,

    /// Sync once and exit: 0 in step, 69 source unavailable or volume in use, 74 volume failed, 78 content refused
    #[arg(long)]
    pub once: bool,

    /// Longest wait after failures; the wait doubles from 1s (or the period, if shorter), with full jitter
    #[arg(long, value_name = "DURATION", default_value = "1min", value_parser = positive_duration)]
    pub max_backoff: Duration,

    /// Age of the last successful sync from which /readyz answers 503; without it, old content stays ready content
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub max_staleness: Option<Duration>,

    /// URL that gets a POST with the id of each newly published release
    #[arg(long, value_name = "URL", conflicts_with = "once")]
    pub webhook: Option<WebhookUrl>,

    /// Time from one re-reading of the published release to the next, which repairs what was damaged; 0s for never
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = units::duration)]
    pub verify_period: Duration,

    // Below this, linking takes less than ten milliseconds.
    /// Files from which on a copy of the current release is kept ready, in hard links, so that a small change is published sooner
    #[arg(long, value_name = "N", default_value = "1000")]
    pub spare_from: usize,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub gates: Gates,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub retention: Retention,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub transfer: Transfer,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub unpacking: Unpacking,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub credentials: Credentials,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub tls: TlsFiles,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub authenticity: Authenticity,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub limits: Limits,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub lifecycle: lifecycle::cli::Flags,
}

/// How long releases that are no longer current stay on the volume.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Retention")]
pub struct Retention {
    /// Old releases to keep besides the current one
    #[arg(long, value_name = "N", default_value = "3")]
    pub keep: usize,

    // Ten minutes outlast what reads a release from beginning to end without holding every file open (a crawl, a backup, a
    // slow deploy hook). Unchanged files are shared, so keeping a release costs no more than what changed in it.
    /// Time for which every old release is kept after it was replaced, for readers that still hold it
    #[arg(long, value_name = "DURATION", default_value = "10min", value_parser = units::duration)]
    pub keep_for: Duration,
}

/// How content is fetched.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Transfer")]
pub struct Transfer {
    /// Files fetched at a time
    #[arg(long, value_name = "N", default_value = "8", value_parser = at_least_one)]
    pub concurrency: usize,

    /// Longest time for a connection to be made, TLS included
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = positive_duration)]
    pub connect_timeout: Duration,

    /// Longest time without a byte from the source, before a response and within it
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = positive_duration)]
    pub read_timeout: Duration,

    /// Least bytes a second that a transfer brings on average, once it has taken longer than --read-timeout
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = units::size)]
    pub min_throughput: u64,
}

/// How an archive becomes a release.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Archives")]
pub struct Unpacking {
    /// Leading directories to take off each path: 1 for what git forges make of a repository
    #[arg(long, value_name = "N", default_value = "0")]
    pub strip_components: usize,

    /// Largest archive as it comes over the wire
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = units::size)]
    pub max_archive_size: u64,

    /// Most bytes that one byte of an archive may unpack to, beyond the first 16 MiB
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_expansion: u64,
}

/// What content has to be, whoever serves it.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Authenticity")]
pub struct Authenticity {
    /// File with the ed25519 public key (PEM) that every manifest has to be signed for; its signature lies beside it, as .sig
    #[arg(long, value_name = "FILE")]
    pub public_key: Option<PathBuf>,

    /// What the archive has to be, as sha256:<64 hexadecimal digits>
    #[arg(long, value_name = "DIGEST", value_parser = sha256_digest)]
    pub digest: Option<Digest>,
}

/// Files with secrets; each is read again at each sync.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Credentials")]
pub struct Credentials {
    /// File with a bearer token
    #[arg(long, value_name = "FILE")]
    bearer_token_file: Option<PathBuf>,

    /// File with user:password
    #[arg(long, value_name = "FILE", conflicts_with = "bearer_token_file")]
    basic_auth_file: Option<PathBuf>,
}

impl Credentials {
    /// The one way to log in that was chosen.
    pub fn login(&self) -> Login {
        match (&self.bearer_token_file, &self.basic_auth_file) {
            (Some(path), _) => Login::Bearer(path.clone()),
            (None, Some(path)) => Login::Basic(path.clone()),
            (None, None) => Login::Anonymous,
        }
    }
}

/// What a content manager may ask of this Pod at most. A manifest beyond any of them is refused whole.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Largest manifest
    #[arg(long = "max-manifest-size", value_name = "SIZE", default_value = "32MiB", value_parser = units::size)]
    pub manifest: u64,

    /// Most files in a release
    #[arg(long = "max-files", value_name = "N", default_value = "100000")]
    pub files: usize,

    /// Largest file
    #[arg(long = "max-file-size", value_name = "SIZE", default_value = "1GiB", value_parser = units::size)]
    pub file_size: u64,

    /// Largest release, all its files together
    #[arg(long = "max-size", value_name = "SIZE", default_value = "10GiB", value_parser = units::size)]
    pub size: u64,

    /// Space that a new release has to leave free on the volume
    #[arg(long = "min-free", value_name = "SIZE", default_value = "64MiB", value_parser = units::size)]
    pub min_free: u64,
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match units::duration(text)? {
        Duration::ZERO => Err("it must be more than zero".to_owned()),
        duration => Ok(duration),
    }
}

fn sha256_digest(text: &str) -> Result<Digest, String> {
    let digest = text.strip_prefix("sha256:").and_then(Digest::parse);
    digest.ok_or_else(|| "it is not sha256: and 64 lower-case hexadecimal digits".to_owned())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}
