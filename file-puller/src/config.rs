//! The puller's flags: which there are, what they default to and why.

use std::path::PathBuf;
use std::time::Duration;

use lifecycle::units;

use crate::daemon::{TouchFile, WebhookOptions};
use crate::source::{Expected, SourceOptions, SourceUrl};
use crate::sync::{Authenticity, EngineOptions};

/// What the puller works with.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) source: SourceUrl,
    /// Which kind of content that is, as far as the flags say.
    pub(crate) kind: Option<Expected>,
    pub(crate) volume: PathBuf,
    /// What to touch when a release is published.
    pub(crate) touch_file: Option<TouchFile>,
    /// Everything that has a default.
    pub(crate) options: Options,
}

impl Config {
    /// Checks what flags say together; an error is a sentence for the user.
    pub(crate) fn new(
        mut source: SourceUrl,
        volume: PathBuf,
        allow_plain_http: bool,
        mut options: Options,
    ) -> Result<Self, String> {
        let Authenticity { public_key, digest, .. } = &options.engine.authenticity;
        let (flag, ending) = (options.source.kind, source.kind());
        let kind = Expected::from_flags(flag, ending, public_key.is_some(), digest.is_some())?;
        if source.is_exposed() && !allow_plain_http {
            return Err("git+http:// lets anyone in the network change what is published; use git+https://, or --allow-plain-http".to_owned());
        }
        if source.image().is_some() && allow_plain_http {
            source.use_plain_http();
        }
        if let Some(age) = options.max_staleness {
            options.source.waiting.keep_within(age);
        }
        let touch_file = options.touch_file.clone().map(|path| TouchFile::new(path, &volume)).transpose()?;
        Ok(Self { source, kind, volume, touch_file, options })
    }
}

/// The flags that have a default.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Time from one check to the next, spread by a tenth so that a thousand Pods do not ask at once
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = units::positive_duration)]
    pub(crate) period: Duration,

    /// Sync once and exit: 0 in step, 69 source unavailable or volume in use, 74 volume failed, 78 content refused
    #[arg(long)]
    pub(crate) once: bool,

    /// Longest wait after failures; the wait doubles from 1s (or the period, if shorter), with full jitter
    #[arg(long, value_name = "DURATION", default_value = "1min", value_parser = units::positive_duration)]
    pub(crate) max_backoff: Duration,

    /// Age of the last successful sync from which /readyz answers 503; without it, old content stays ready content
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub(crate) max_staleness: Option<Duration>,

    /// File to touch whenever a release was published, and after the first sync; it may lie in the volume
    #[arg(long, value_name = "FILE")]
    touch_file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) webhook: WebhookOptions,

    /// Read the published release again this often, and repair damaged files; 0s for never
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = units::duration)]
    pub(crate) verify_period: Duration,

    #[command(flatten)]
    pub(crate) engine: EngineOptions,

    #[command(flatten)]
    pub(crate) source: SourceOptions,

    #[command(flatten)]
    pub(crate) lifecycle: lifecycle::cli::Flags,
}
