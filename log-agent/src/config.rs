//! The flags, and what is made of them before anything begins.

use std::path::PathBuf;
use std::time::Duration;

use lifecycle::units;

use crate::deliver::{Compression, CredentialFlags, Settings, SinkList, SinkSpec, SinkUrl};
use crate::record::filter::Filter;
use crate::record::parse::{FieldNames, Format};
use crate::record::resource::{Label, PodFiles};
use crate::tail::{CatalogOptions, Multiline, StartAt};
use crate::watch::{Glob, Symlinks, Watch};

/// How long a file has to be quiet before the last of its joined records is taken to be whole.
const RECORD_QUIET: Duration = Duration::from_secs(1);
const SHORTEST_SINK_TIMEOUT: Duration = Duration::from_millis(100);
/// Descriptors that are not for logs: connections, watches, the state directory.
const DESCRIPTORS_KEPT_BACK: usize = 512;
const SHORTEST_RESCAN_PERIOD: Duration = Duration::from_millis(10);

/// What the agent's own flags say.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Files to follow; * and ? stay within a directory, ** goes through any. Name the rotated files too (access.log*), so
    /// that a restart finds them. Repeatable, or separated by commas
    #[arg(long, value_name = "GLOB", required = true, value_delimiter = ',', value_parser = Glob::new)]
    pub(crate) include: Vec<Glob>,

    /// Files not to follow although they are included
    #[arg(long, value_name = "GLOB", value_delimiter = ',', value_parser = Glob::new)]
    pub(crate) exclude: Vec<Glob>,

    /// Follow symbolic links out of the included directories, too, for trees like /var/log/containers. By default, links that stay
    /// beneath the part of the pattern before its first wildcard are followed, and no others
    #[arg(long)]
    pub(crate) follow_symlinks: bool,

    /// Where to begin in files that are there when the agent starts for the first time
    #[arg(long, value_name = "WHERE", default_value = "beginning")]
    pub(crate) start_at: StartAt,

    /// Do not read files that were not written to for longer than this when they are first seen, but for what is added later. By
    /// default, all are read
    #[arg(long, value_name = "AGE", value_parser = units::duration)]
    pub(crate) ignore_older: Option<Duration>,

    /// Let go of removed files, the oldest first, when they hold more of the disk than this: what was not delivered of them is lost,
    /// and entered. By default, they are held until every sink has them
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub(crate) max_held_bytes: Option<u64>,

    /// Directory for the checkpoint; made where it is missing. One agent each
    #[arg(long, value_name = "DIR", required = true)]
    // Optional for the subcommand, which negates what is required.
    pub(crate) state_dir: Option<PathBuf>,

    /// Where records go: (raw+)stdout:, (raw+)file:/PATH, ndjson+http(s)://HOST/PATH, otlp+http(s)://HOST, forward(+tls)://HOST:PORT/TAG.
    /// Repeatable, or separated by commas; each has its own position in every file, and one with a name keeps it when its URL changes
    #[arg(long, value_name = "[NAME=]URL", required = true)]
    sink: Vec<SinkList>,

    /// Resource attribute of every record, besides those from POD_NAME, POD_NAMESPACE, POD_UID and NODE_NAME
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',')]
    pub(crate) label: Vec<Label>,

    /// How data is compressed on the network; Forward supports only none and gzip
    #[arg(long, value_name = "HOW", default_value = "none")]
    pub(crate) compression: Compression,

    #[command(flatten)]
    pub(crate) credentials: CredentialFlags,

    /// End an attempt to deliver when a receiver has neither taken nor answered anything for this long; it then gets less at once
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = no_shorter(SHORTEST_SINK_TIMEOUT))]
    pub(crate) sink_timeout: Duration,

    /// Wait this long for a receiver that refuses eight records or more, each for itself, and accepts none, before they become dead
    /// letters
    #[arg(long, value_name = "DURATION", default_value = "10min", value_parser = units::duration)]
    pub(crate) reject_wait: Duration,

    #[command(flatten)]
    pub(crate) pod_files: PodFiles,

    /// How lines are read
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub(crate) parse: Format,

    #[command(flatten)]
    pub(crate) names: FieldNames,

    /// A line that matches begins a record, and those after it belong to it, such as a stack trace to its message
    #[arg(long, value_name = "REGEX")]
    pub(crate) multiline_start: Option<regex_lite::Regex>,

    #[command(flatten)]
    pub(crate) filter: Filter,

    /// The longest line that is shipped whole; the rest of a longer one is left out, and counted
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = at_least(16))]
    pub(crate) max_line: usize,

    /// Bytes of lines that are delivered at once at most; fewer whenever there are no more
    #[arg(long, value_name = "SIZE", default_value = "512KiB", value_parser = at_least(1))]
    pub(crate) chunk_size: usize,

    /// How changes are noticed
    #[arg(long, value_name = "HOW", default_value = "events")]
    pub(crate) watch: Watch,

    /// How often all names and sizes are looked at, whatever the events say
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = no_shorter(SHORTEST_RESCAN_PERIOD))]
    pub(crate) rescan_period: Duration,

    /// How long a rotated or removed file has to be quiet before it is at its end: its writer may still hold it
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = units::duration)]
    pub(crate) rotate_wait: Duration,

    /// How old the checkpoint may be: what was confirmed since is sent again after a crash
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = units::duration)]
    pub(crate) checkpoint_period: Duration,

    /// Ship what is there and leave: 0 when all is confirmed, 69 when a sink fails for as long as --shutdown-timeout, or when a file
    /// cannot be read
    #[arg(long)]
    pub(crate) exit_at_eof: bool,
}

impl Config {
    /// Checks what single flags cannot.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn validate(&self) -> Result<(), String> {
        let sinks = self.sinks();
        SinkSpec::validate(&sinks, self.compression)?;
        for spec in &sinks {
            if let SinkUrl::File(_, path) = &spec.url
                && self.include.iter().any(|glob| glob.matches(path))
                && !self.exclude.iter().any(|glob| glob.matches(path))
            {
                let path = path.display();
                return Err(format!(
                    "--sink file:{path} is itself included and would feed on itself; --exclude it"
                ));
            }
        }
        if self.parse == Format::Raw && self.filter != Filter::default() {
            return Err(
                "--parse raw finds no fields, so --drop, --drop-field and --redact-field would do nothing: \
                        choose another --parse"
                    .to_owned(),
            );
        }
        self.credentials.validate(&sinks)?;
        if self.parse.is_of_containers() && self.multiline_start.is_some() {
            return Err(
                "--multiline-start is not for lines of container runtimes: choose it or --parse".to_owned()
            );
        }
        Ok(())
    }

    /// Where records go.
    pub(crate) fn sinks(&self) -> Vec<SinkSpec> {
        SinkList::sinks(&self.sink)
    }

    /// Files that sinks write to.
    pub(crate) fn written_files(&self) -> Vec<PathBuf> {
        let file = |spec: SinkSpec| match spec.url {
            SinkUrl::File(_, path) => Some(path),
            // A link to whatever it is.
            SinkUrl::Stdout(_) => Some("/dev/stdout".into()),
            SinkUrl::Ndjson(_) | SinkUrl::Otlp(_) | SinkUrl::Forward(_) => None,
        };
        self.sinks().into_iter().filter_map(file).collect()
    }

    pub(crate) fn delivery(&self) -> Settings {
        Settings { compression: self.compression, timeout: self.sink_timeout, reject_wait: self.reject_wait }
    }

    pub(crate) fn symlinks(&self) -> Symlinks {
        if self.follow_symlinks { Symlinks::All } else { Symlinks::Beneath }
    }

    /// What the user says about files, where the system allows so many descriptors.
    pub(crate) fn catalog(&self, descriptors: usize) -> CatalogOptions {
        let kept_back = (descriptors / 4).min(DESCRIPTORS_KEPT_BACK);
        CatalogOptions {
            rotate_wait: self.rotate_wait,
            joins_lines: self.multiline_start.is_some() || self.parse.is_of_containers(),
            start_at: self.start_at,
            ignore_older: self.ignore_older,
            max_held_bytes: self.max_held_bytes,
            max_open: descriptors - kept_back,
        }
    }

    pub(crate) fn multiline(&self) -> Multiline {
        match &self.multiline_start {
            Some(start) => Multiline::StartsWith { start: start.clone(), quiet: RECORD_QUIET },
            None => Multiline::Off,
        }
    }
}

fn at_least(least: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let size = usize::try_from(units::size(text)?).ok().filter(|size| *size >= least);
        size.ok_or_else(|| format!("out of range: at least {least}"))
    }
}

fn no_shorter(least: Duration) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let time = Some(units::duration(text)?).filter(|time| *time >= least);
        time.ok_or_else(|| format!("too short: at least {}", humantime::format_duration(least)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        config: Config,
    }

    /// A command's words, of which some are between quotes.
    fn words(command: &str) -> Vec<String> {
        let mut words = Vec::new();
        for (at, text) in command.split('\'').enumerate() {
            if at % 2 == 1 {
                words.push(text.to_owned());
            } else {
                words.extend(text.split_whitespace().map(str::to_owned));
            }
        }
        words
    }

    #[test]
    fn the_commands_for_receivers_are_right() {
        let page = include_str!("../../docs/receivers.md").replace("\\\n", " ");
        let commands: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("log-agent … ")).collect();
        assert!(commands.len() > 5, "{commands:?}");
        for command in commands {
            let arguments = ["log-agent", "--include", "/logs/*", "--state-dir", "/state"].map(str::to_owned);
            let parsed = Command::try_parse_from(arguments.into_iter().chain(words(command)));
            let config = parsed.unwrap_or_else(|error| panic!("{command}: {error}")).config;
            assert_eq!(config.validate(), Ok(()), "{command}");
            assert_eq!(config.sinks().len(), 1, "{command}");
        }
    }
}
