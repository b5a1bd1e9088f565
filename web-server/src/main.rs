//! Reads the command line, binds, and hands over to the library.

// clap's derive writes one for a flattened Option, and lints inside a derive can only be allowed for the whole file.
#![allow(let_underscore_drop)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lifecycle::exit::{Exit, Failure, OrExit as _};
use lifecycle::healthcheck::Healthcheck;
use lifecycle::signals::Signals;
use lifecycle::{cli, exit, listen, logging};
use web_server::{CONTAINER, Config, Listeners, listen_addr};

/// Serves the current release of a shared volume, and writes the access log.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: Option<Config>,
    // Not within `Config`: clap cannot tell whether an optional group is there that has another one in it.
    #[command(flatten)]
    pod_page: pod_page::Flags,
    #[command(flatten)]
    lifecycle: cli::Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Asks this container's own /readyz: exit code 0 if it is ready, 69 if not
    Healthcheck(Healthcheck),
}

fn main() -> ExitCode {
    let cli: Cli = match cli::parse(&CONTAINER) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    logging::start(cli.lifecycle.log_format, &cli.lifecycle.log_level);
    let outcome = match (&cli.command, cli.config) {
        (Some(Command::Healthcheck(healthcheck)), _) => healthcheck.ask(),
        (None, Some(config)) => serve(config, &cli.pod_page, &cli.lifecycle),
        (None, None) => Err(Failure::new(Exit::Usage, "--root is missing: what is to be served?")),
    };
    exit::report(&CONTAINER, &cli.lifecycle.termination_log, outcome)
}

fn serve(config: Config, pod_page: &pod_page::Flags, flags: &cli::Flags) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().or_exit(Exit::Internal)?;
    let served = runtime.block_on(async {
        let signals = Signals::install().or_exit(Exit::Internal)?;
        let addr = listen_addr(config.listen, |name| std::env::var(name).ok())?;
        let listeners = Listeners {
            content: listen::bind_shared("content", addr, "--listen", config.threads)?,
            admin: listen::bind("admin", flags.admin_addr, "--admin-addr")?,
        };
        web_server::run(config, pod_page, flags.shutdown_timeout, listeners, flags.allowed_hosts(), signals)
            .await
    });
    // A release that is being loaded is not waited for.
    runtime.shutdown_background();
    served
}
