//! The command line as a whole: the subcommands, and what is asked for in the end.

use std::path::PathBuf;

use lifecycle::exit::{Exit, Failure};
use lifecycle::healthcheck::Healthcheck;

use crate::config::{Authenticity, Config, Options};
use crate::location::{Kind, SourceUrl};

/// Keeps a volume in step with a content manager, one immutable release at a time
#[derive(Debug, clap::Parser)]
#[command(name = "file-puller", args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    ends: Ends,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Writes the manifest of a directory, so that any static file host can be a content manager
    Manifest(ManifestOf),
    /// Asks the running puller whether it is ready: exit code 0 or 69
    Healthcheck(Healthcheck),
}

/// The arguments of the `manifest` subcommand.
#[derive(Debug, Clone, clap::Args)]
pub struct ManifestOf {
    /// Directory to describe; its own top-level manifest.json is left out
    pub directory: PathBuf,

    /// File to write, replaced in one step; without it, standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// File with an ed25519 private key (PEM): signs the manifest, into a file beside it that ends in .sig
    #[arg(long, value_name = "KEY", requires = "output")]
    pub sign: Option<PathBuf>,
}

/// Required, unless there is a subcommand: that is why clap needs them optional here and [`Config`] does not.
#[derive(Debug, clap::Args)]
struct Ends {
    /// What to follow, http:// or https://: a manifest (.json) or an archive (.tar, .tar.gz, .tgz, .tar.zst)
    #[arg(long, value_name = "URL", required = true)]
    source: Option<SourceUrl>,

    /// Directory to publish into; made if only its last segment is missing
    #[arg(long, value_name = "DIR", required = true)]
    volume: Option<PathBuf>,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Task {
    /// Keep the volume in step.
    Pull(Box<Config>),
    /// Describe a directory.
    Manifest(ManifestOf),
    /// Ask the running puller.
    Healthcheck(Healthcheck),
}

impl Cli {
    /// The logging flags, which are needed before anything else.
    pub fn lifecycle(&self) -> &lifecycle::cli::Flags {
        &self.options.lifecycle
    }

    /// What is to be done.
    ///
    /// # Errors
    /// Exit code 64 where clap let a required flag be absent, which it does only beside a subcommand.
    pub fn task(self) -> Result<Task, Failure> {
        match (self.command, self.ends.source, self.ends.volume) {
            (Some(Command::Manifest(arguments)), ..) => Ok(Task::Manifest(arguments)),
            (Some(Command::Healthcheck(arguments)), ..) => Ok(Task::Healthcheck(arguments)),
            (None, Some(source), Some(volume)) => {
                let Authenticity { public_key, digest } = &self.options.authenticity;
                let wrong = match source.kind() {
                    Kind::Manifest if digest.is_some() => {
                        Some("--digest is for archives; a manifest is held to --public-key")
                    }
                    Kind::Archive(_) if public_key.is_some() => {
                        Some("--public-key is for manifests; an archive is held to --digest")
                    }
                    _ => None,
                };
                if let Some(wrong) = wrong {
                    return Err(Failure::new(Exit::Usage, wrong));
                }
                Ok(Task::Pull(Box::new(Config { source, volume, options: self.options })))
            }
            (None, ..) => Err(Failure::new(Exit::Usage, "--source URL and --volume DIR are needed")),
        }
    }
}
