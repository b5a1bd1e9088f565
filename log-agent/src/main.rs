//! log-agent: see the library for what it does; here it is started.

use std::process::ExitCode;

use clap::Parser;
use lifecycle::exit::{Exit, Failure, OrExit as _};
use lifecycle::healthcheck::Healthcheck;
use lifecycle::signals::Signals;
use lifecycle::{cli, exit, listen, logging};
use log_agent::{CONTAINER, Config, Replay};
use tokio::runtime::Builder;

/// Tails the logs in a shared volume and delivers every line, even across crashes
#[derive(Debug, Parser)]
#[command(name = "log-agent", args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    lifecycle: cli::Flags,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Ask a running agent's /readyz: exit code 0 when it is ready, 69 when not
    Healthcheck(Healthcheck),
    /// Send the records of a dead-letter file again
    Replay(Box<Replay>),
}

fn main() -> ExitCode {
    let cli: Cli = match cli::parse(&CONTAINER) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let termination_log = cli.lifecycle.termination_log.clone();
    let outcome = match cli.command {
        Some(Command::Healthcheck(healthcheck)) => healthcheck.ask(),
        Some(Command::Replay(replay)) => block_on(again(*replay, cli.lifecycle)),
        None => block_on(follow(cli.config, cli.lifecycle)),
    };
    exit::report(&CONTAINER, &termination_log, outcome)
}

fn block_on(task: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build().or_exit(Exit::Internal)?;
    let outcome = runtime.block_on(task);
    // A disk that does not answer holds one of its threads. The drain is over, so the process does not wait for it.
    runtime.shutdown_background();
    outcome
}

async fn again(replay: Replay, lifecycle: cli::Flags) -> Result<(), Failure> {
    logging::start(lifecycle.log_format, &lifecycle.log_level);
    replay.run().await
}

async fn follow(config: Config, lifecycle: cli::Flags) -> Result<(), Failure> {
    logging::start(lifecycle.log_format, &lifecycle.log_level);
    config.validate().map_err(|reason| Failure::new(Exit::Usage, reason))?;
    let signals = Signals::install().or_exit(Exit::Internal)?;
    let admin = listen::bind("admin", lifecycle.admin_addr, "--admin-addr")?;
    log_agent::run(config, lifecycle, admin, signals).await
}
