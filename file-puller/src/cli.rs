//! The command line as a whole: the subcommands, and the flags without one.

use std::path::PathBuf;

use lifecycle::exit::{Exit, Failure};
use lifecycle::healthcheck::Healthcheck;

use crate::config::{Config, Options};
use crate::manifest_cmd::ManifestArgs;
use crate::source::SourceUrl;

/// Keeps a volume in step with a content manager, one immutable release at a time
#[derive(Debug, clap::Parser)]
#[command(name = "file-puller", args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    ends: Endpoints,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Writes the manifest of a directory, so that any static file host can be a content manager
    Manifest(ManifestArgs),
    /// Asks the running puller whether it is ready: exit code 0 or 69
    Healthcheck(Healthcheck),
}

/// Required, unless there is a subcommand: that is why clap needs them optional here and [`Config`] does not.
#[derive(Debug, clap::Args)]
struct Endpoints {
    /// What to follow: a manifest or an archive (http:// or https://; a tar, plain or compressed with gzip or Zstandard), a git
    /// repository (git+https://host/owner/repo.git), or an image (oci://registry/name:tag)
    #[arg(long, value_name = "URL", required = true)]
    source: Option<SourceUrl>,

    /// Directory to publish into; made if only its last segment is missing
    #[arg(long, value_name = "DIR", required = true)]
    volume: Option<PathBuf>,

    /// Follow a git repository or an image without TLS; loopback needs no flag
    #[arg(long)]
    allow_plain_http: bool,
}

impl Cli {
    /// The logging flags, which are needed before anything else.
    pub fn lifecycle(&self) -> &lifecycle::cli::Flags {
        &self.options.lifecycle
    }

    /// What to pull, where there is no subcommand.
    pub(crate) fn config(self) -> Result<Config, Failure> {
        let wrong = |wrong| Failure::new(Exit::Usage, wrong);
        let (Some(source), Some(volume)) = (self.ends.source, self.ends.volume) else {
            return Err(wrong("--source URL and --volume DIR are needed".to_owned()));
        };
        Config::new(source, volume, self.ends.allow_plain_http, self.options).map_err(wrong)
    }
}
