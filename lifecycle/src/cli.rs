//! Flags, each with an environment variable of the container's prefix, and one line for a wrong one.
//!
//! A binary derives its flags with clap and flattens [`Flags`] into them. [`parse`] then gives every flag, of the
//! command and of its subcommands, the variable that [`Container::env_name`] names, so that no flag can be forgotten and none
//! can be misspelt.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command};

use crate::admin::AllowedHosts;
use crate::exit::{Exit, Failure, one_line, report, report_fatal};
use crate::logging::{LogFormat, LogLevel};
use crate::units;
use crate::{Container, Ignore as _};

/// Where the kubelet looks for a container's last word, unless its Pod says otherwise.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// The flags that every container has.
#[derive(Debug, Clone, clap::Args)]
// No argument group of its own: clap names groups after types, and a container may have a type `Flags` too.
#[group(skip)]
#[command(next_help_heading = "Lifecycle")]
pub struct Flags {
    /// Address of the admin server: /livez, /readyz, /metrics, /status; `[::]` takes IPv4 connections, too
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin_addr: SocketAddr,

    /// Host name under which clients on this machine may ask, besides IP addresses, localhost and names in the cluster; repeatable
    #[arg(long = "allowed-host", value_name = "NAME")]
    pub allowed_hosts: Vec<String>,

    /// How diagnostics are written to stderr
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Which diagnostics: off, error, warn, info, debug, trace, or levels by module (info,hyper=debug)
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LogLevel,

    /// How long the drain may take after SIGTERM or SIGINT; the Pod's grace period is shared by its containers
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = units::duration)]
    pub shutdown_timeout: Duration,

    /// File for the final one-line reason; written only where it already exists, as the kubelet makes it
    #[arg(long, value_name = "PATH", default_value = TERMINATION_LOG)]
    pub termination_log: PathBuf,
}

impl Flags {
    /// The names under which the admin server answers clients on this machine.
    pub fn allowed_hosts(&self) -> AllowedHosts {
        AllowedHosts::new(self.allowed_hosts.iter().cloned())
    }
}

/// Reads the command line and the environment. From here on a panic ends the process as [`crate::exit::on_panic`] says.
///
/// # Errors
/// The exit code to end with: 0 after `--help` and `--version`, 64 after one line about what is wrong.
pub fn parse<C: clap::CommandFactory + clap::FromArgMatches>(container: &Container) -> Result<C, ExitCode> {
    crate::exit::on_panic(container, TERMINATION_LOG);
    let command = with_environment(C::command(), container).version(container.version);
    let parsed = command.try_get_matches().and_then(|matches| C::from_arg_matches(&matches));
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed pipe behind `--help | head` is no failure of ours.
            error.print().ignore();
            ExitCode::SUCCESS
        }
        _ => {
            report_fatal(TERMINATION_LOG.as_ref(), &usage_error(container, &error));
            ExitCode::from(Exit::Usage as u8)
        }
    })
}

/// The `main` of a program that is no container: its flags, its work, and the exit code.
pub fn main<C: clap::CommandFactory + clap::FromArgMatches>(
    program: &Container,
    run: impl FnOnce(&C) -> Result<(), Failure>,
) -> ExitCode {
    match parse(program) {
        Ok(flags) => report(program, TERMINATION_LOG.as_ref(), run(&flags)),
        Err(code) => code,
    }
}

/// Gives every flag its environment variable, and the admin address its port.
pub fn with_environment(command: Command, container: &Container) -> Command {
    command
        .mut_args(|arg| in_environment(arg, container))
        .mut_subcommands(|subcommand| with_environment(subcommand, container))
}

fn in_environment(arg: Arg, container: &Container) -> Arg {
    let Some(flag) = arg.get_long().map(str::to_owned) else { return arg };
    let arg = if flag == "admin-addr" {
        arg.required(false).default_value(format!("[::]:{}", container.admin_port))
    } else {
        arg
    };
    match arg.get_action() {
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version => arg,
        ArgAction::SetTrue => arg.env(container.env_name(&flag)).value_parser(BoolishValueParser::new()),
        _ => arg.env(container.env_name(&flag)),
    }
}

/// clap's message without its usage block: the thing, what is wrong with it, the nearest right one, and where to read on.
fn usage_error(container: &Container, error: &clap::Error) -> String {
    let text = error.to_string();
    let what: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .map(|line| line.trim_start_matches("error: ").trim_start_matches("tip: "))
        .collect();
    let what = what.join("; ").replace(":; ", ": ");
    one_line(&format!("{}: {what}; see --help", container.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, FromArgMatches as _, Parser};

    const CONTAINER: Container = Container { name: "file-puller", admin_port: 9878, version: "1.2.3" };

    #[derive(Debug, Parser)]
    struct Cli {
        #[arg(long)]
        source: String,
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        lifecycle: Flags,
    }

    fn parse_args(args: &[&str]) -> Result<Cli, clap::Error> {
        let command = with_environment(Cli::command(), &CONTAINER);
        let matches = command.try_get_matches_from(std::iter::once(&"file-puller").chain(args))?;
        Cli::from_arg_matches(&matches)
    }

    #[test]
    fn every_flag_has_a_variable_of_the_containers_prefix() {
        let command = with_environment(Cli::command(), &CONTAINER);
        let variables: Vec<_> = command.get_arguments().filter_map(|arg| arg.get_env()).collect();
        assert!(variables.contains(&"FILE_PULLER_SOURCE".as_ref()));
        assert!(variables.contains(&"FILE_PULLER_ONCE".as_ref()));
        assert!(variables.contains(&"FILE_PULLER_SHUTDOWN_TIMEOUT".as_ref()));
    }

    #[test]
    fn the_admin_port_is_the_containers_own() {
        let cli = parse_args(&["--source", "http://x/"]).unwrap();
        assert_eq!(cli.lifecycle.admin_addr.port(), 9878);
        assert!(!cli.once);
        assert_eq!(cli.source, "http://x/");
    }

    #[test]
    fn a_wrong_flag_is_one_line_that_names_the_right_one() {
        let error = parse_args(&["--sorce", "http://x/"]).unwrap_err();
        let line = usage_error(&CONTAINER, &error);
        assert_eq!(line.lines().count(), 1);
        assert!(line.contains("--sorce") && line.contains("--source"), "{line}");

        let error = parse_args(&["--source", "x", "--shutdown-timeout", "soon"]).unwrap_err();
        let line = usage_error(&CONTAINER, &error);
        assert!(line.contains("--shutdown-timeout") && line.contains("10s"), "{line}");
    }
}
