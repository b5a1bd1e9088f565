//! The command line as a whole: the subcommands, and what is asked for in the end.

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
    command: Option<Command>,
    #[command(flatten)]
    ends: Endpoints,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
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

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Task {
    /// Keep the volume in step.
    Pull(Box<Config>),
    /// Describe a directory.
    Manifest(ManifestArgs),
    /// Ask the running puller.
    Healthcheck(Healthcheck),
}

impl Cli {
    /// The logging flags, which are needed before anything else.
    pub fn lifecycle(&self) -> &lifecycle::cli::Flags {
        &self.options.lifecycle
    }

    /// What is to be done.
    pub(crate) fn task(self) -> Result<Task, Failure> {
        match (self.command, self.ends.source, self.ends.volume) {
            (Some(Command::Manifest(arguments)), ..) => Ok(Task::Manifest(arguments)),
            (Some(Command::Healthcheck(arguments)), ..) => Ok(Task::Healthcheck(arguments)),
            (None, Some(source), Some(volume)) => {
                Config::new(source, volume, self.ends.allow_plain_http, self.options)
                    .map(|config| Task::Pull(Box::new(config)))
                    .map_err(|wrong| Failure::new(Exit::Usage, wrong))
            }
            (None, ..) => Err(Failure::new(Exit::Usage, "--source URL and --volume DIR are needed")),
        }
    }
}
