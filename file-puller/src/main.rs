//! Parses the command line, starts logging, and hands over to the library.

use std::process::ExitCode;

use file_puller::{CONTAINER, Cli};
use lifecycle::{cli, exit, logging};

fn main() -> ExitCode {
    let cli: Cli = match cli::parse(&CONTAINER) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let flags = cli.lifecycle().clone();
    logging::start(flags.log_format, &flags.log_level);
    exit::report(&CONTAINER, &flags.termination_log, file_puller::execute(cli))
}
