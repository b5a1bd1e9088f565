//! The flags, and what is made of them before anything begins.

use std::path::PathBuf;
use std::time::Duration;

use lifecycle::units;

use crate::discover::{Glob, Watch};
use crate::enrich::{Label, PodFiles, Resource};
use crate::parse::Format;
use crate::shape::{Match, Shape};
use crate::sink::{Compression, SinkUrl};
use crate::source::Joining;

/// How long a file has to be quiet before the last of its joined records is taken to be whole.
const RECORD_QUIET: Duration = Duration::from_secs(1);

/// What the agent's own flags say.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// Files to follow; * and ? stay within a directory, ** goes through any. Name the rotated files too (access.log*), so
    /// that a restart finds them. Repeatable, or separated by commas
    #[arg(long, value_name = "GLOB", required = true, value_delimiter = ',', value_parser = Glob::new)]
    pub include: Vec<Glob>,

    /// Files not to follow although they are included
    #[arg(long, value_name = "GLOB", value_delimiter = ',', value_parser = Glob::new)]
    pub exclude: Vec<Glob>,

    /// Directory for the checkpoint; made where it is missing. One agent each
    #[arg(long, value_name = "DIR", required = true)]
    pub state_dir: Option<PathBuf>,

    /// Where records go: (raw+)stdout:, (raw+)file:/PATH, ndjson+http(s)://HOST/PATH, otlp+http(s)://HOST, forward(+tls)://HOST:PORT/TAG.
    /// Repeatable; each has its own position in every file
    #[arg(long, value_name = "URL", required = true, value_delimiter = ',')]
    pub sink: Vec<SinkUrl>,

    /// Resource attribute of every record, besides those from POD_NAME, POD_NAMESPACE, POD_UID and NODE_NAME
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',')]
    pub label: Vec<Label>,

    /// How what is sent over the network is compressed; Forward knows none and gzip
    #[arg(long, value_name = "HOW", default_value = "none")]
    pub compression: Compression,

    /// Whom to trust behind https and forward+tls, in PEM, in the place of the world's certificate authorities
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// The shared_key of Forward receivers that ask for one
    #[arg(long, value_name = "FILE")]
    pub forward_shared_key_file: Option<PathBuf>,

    /// The Pod's labels as the downward API writes them into a volume; they become k8s.pod.label.NAME
    #[arg(long, value_name = "FILE")]
    pub pod_labels_file: Option<PathBuf>,

    /// The Pod's annotations, likewise; they become k8s.pod.annotation.NAME
    #[arg(long, value_name = "FILE")]
    pub pod_annotations_file: Option<PathBuf>,

    /// How lines are read
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub parse: Format,

    /// A line that matches begins a record, and those after it belong to it, such as a stack trace to its message
    #[arg(long, value_name = "REGEX")]
    pub multiline_start: Option<regex_lite::Regex>,

    /// Field of every record that is left out
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    pub drop_field: Vec<String>,

    /// Field of every record whose value is replaced by REDACTED
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    pub redact_field: Vec<String>,

    /// Lines that are not shipped, such as url.path=/health; counted in log_agent_lost_bytes_total
    #[arg(long, value_name = "FIELD=VALUE")]
    pub drop: Vec<Match>,

    /// The longest line that is shipped whole; the rest of a longer one is left out, and counted
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = units::size)]
    pub max_line: u64,

    /// Bytes of lines that are delivered at once at most; fewer whenever there are no more
    #[arg(long, value_name = "SIZE", default_value = "512KiB", value_parser = units::size)]
    pub chunk_size: u64,

    /// How changes are noticed
    #[arg(long, value_name = "HOW", default_value = "events")]
    pub watch: Watch,

    /// How often all names and sizes are looked at, whatever the events say
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = units::duration)]
    pub rescan_period: Duration,

    /// How long a rotated or removed file has to be quiet before it is at its end: its writer may still hold it
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = units::duration)]
    pub rotate_wait: Duration,

    /// How old the checkpoint may be: what was confirmed since is sent again after a crash
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = units::duration)]
    pub checkpoint_period: Duration,

    /// Ship what is there and leave: 0 when all is confirmed, 69 when a sink fails for as long as --shutdown-timeout
    #[arg(long)]
    pub exit_at_eof: bool,
}

/// When to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When it is told to.
    Signalled,
    /// When everything is shipped.
    EndOfFiles,
}

/// Everything that the agent has to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Files to follow.
    pub include: Vec<Glob>,
    /// Except these.
    pub exclude: Vec<Glob>,
    /// For the checkpoint.
    pub state_dir: PathBuf,
    /// Where records go.
    pub sinks: Vec<SinkUrl>,
    /// How what is sent is compressed.
    pub compression: Compression,
    /// Whom to trust, if not the world's authorities.
    pub ca_file: Option<PathBuf>,
    /// For the handshake of Forward.
    pub forward_shared_key_file: Option<PathBuf>,
    /// What every record carries.
    pub resource: Resource,
    /// And what the Pod's own files add.
    pub pod_files: PodFiles,
    /// How lines are read.
    pub format: Format,
    /// Which lines are one record.
    pub joining: Joining,
    /// What is left out.
    pub shape: Shape,
    /// In bytes.
    pub max_line: usize,
    /// In bytes.
    pub chunk_size: usize,
    /// How changes are noticed.
    pub watch: Watch,
    /// Between two scans.
    pub rescan_period: Duration,
    /// Until a file that was rotated or removed is at its end.
    pub rotate_wait: Duration,
    /// How old the checkpoint may be.
    pub checkpoint_period: Duration,
    /// When to leave.
    pub until: Until,
    /// How long the drain may take.
    pub shutdown_timeout: Duration,
    /// For the drain's verdict.
    pub termination_log: PathBuf,
}

impl Flags {
    /// Checks what single flags cannot.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn into_config(
        self,
        lifecycle: &lifecycle::cli::Flags,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Config, String> {
        let state_dir = self.state_dir.ok_or("--state-dir is missing")?;
        let bytes = |flag, size: u64, least: usize| match usize::try_from(size) {
            Ok(size) if size >= least => Ok(size),
            _ => Err(format!("{flag} {size} is out of range: at least {least}")),
        };
        let mut names: Vec<_> = self.sink.iter().map(SinkUrl::name).collect();
        names.sort();
        if let Some([twice, _]) = names.windows(2).find(|pair| pair.first() == pair.last()) {
            return Err(format!("--sink {twice} is given twice; each sink needs an URL of its own"));
        }
        for sink in &self.sink {
            if let SinkUrl::File(_, path) = sink
                && self.include.iter().any(|glob| glob.matches(path))
                && !self.exclude.iter().any(|glob| glob.matches(path))
            {
                let path = path.display();
                return Err(format!(
                    "--sink file:{path} is itself included and would feed on itself; --exclude it"
                ));
            }
        }
        if self.compression == Compression::Zstd
            && let Some(sink) = self.sink.iter().find(|sink| matches!(sink, SinkUrl::Forward(_)))
        {
            return Err(format!(
                "--compression zstd is not in the protocol of --sink {}; gzip is",
                sink.name()
            ));
        }
        if self.rescan_period < Duration::from_millis(10) {
            return Err("--rescan-period is too short: at least 10ms".to_owned());
        }
        Ok(Config {
            include: self.include,
            exclude: self.exclude,
            state_dir,
            sinks: self.sink,
            compression: self.compression,
            ca_file: self.ca_file,
            forward_shared_key_file: self.forward_shared_key_file,
            resource: Resource::new(environment, &self.label),
            pod_files: PodFiles { labels: self.pod_labels_file, annotations: self.pod_annotations_file },
            format: self.parse,
            joining: match self.multiline_start {
                Some(start) => Joining::ByStart { start, quiet: RECORD_QUIET },
                None => Joining::None,
            },
            shape: Shape { drop_fields: self.drop_field, redact_fields: self.redact_field, drops: self.drop },
            checkpoint_period: self.checkpoint_period,
            max_line: bytes("--max-line", self.max_line, 16)?,
            chunk_size: bytes("--chunk-size", self.chunk_size, 1)?,
            watch: self.watch,
            rescan_period: self.rescan_period,
            rotate_wait: self.rotate_wait,
            until: if self.exit_at_eof { Until::EndOfFiles } else { Until::Signalled },
            shutdown_timeout: lifecycle.shutdown_timeout,
            termination_log: lifecycle.termination_log.clone(),
        })
    }
}
