//! Parses, starts logging, installs the signals, binds, and hands over to the library.

use std::process::ExitCode;
use std::time::Duration;

use file_puller::CONTAINER;
use file_puller::cli::{Cli, Task};
use lifecycle::exit::{Exit, Failure, OrExit as _};
use lifecycle::signals::Signals;
use lifecycle::{cli, exit, listen, logging};
use tokio::runtime::Builder;

/// Threads that wait for the disk, and hash. The steps of a sync follow one another, and what one of them waits for is the
/// network, never the disk; so one thread is enough, and every further one would keep memory of its own.
const DISK_THREADS: usize = 1;
/// How long a write that is under way at the end may take. A disk that hangs may not hold up the Pod.
const LAST_WRITE: Duration = Duration::from_millis(250);

fn main() -> ExitCode {
    let cli: Cli = match cli::parse(&CONTAINER) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let flags = cli.lifecycle().clone();
    logging::start(flags.log_format, &flags.log_level);
    exit::report(&CONTAINER, &flags.termination_log, cli.task().and_then(carry_out))
}

fn carry_out(task: Task) -> Result<(), Failure> {
    let config = match task {
        Task::Pull(config) => *config,
        Task::Manifest(arguments) => return file_puller::scan::run(&arguments),
        Task::Healthcheck(healthcheck) => return healthcheck.ask(),
    };
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(DISK_THREADS)
        .build()
        .or_exit(Exit::Internal)?;
    let outcome = runtime.block_on(async {
        let signals = Signals::install().or_exit(Exit::Internal)?;
        if config.options.once {
            return file_puller::once(config, signals).await;
        }
        let admin = listen::bind("admin", config.options.lifecycle.admin_addr, "--admin-addr")?;
        file_puller::run(config, admin, signals).await
    });
    runtime.shutdown_timeout(LAST_WRITE);
    outcome
}
