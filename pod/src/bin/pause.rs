//! Holds a Pod's network open, and does nothing else.
//!
//! In a cluster every Pod has such a container, made by the container runtime: it owns the network namespace, so that the
//! Pod keeps its address while the others come and go. Compose has no Pods and no such container, so
//! `deploy/compose.yaml` declares this one.

use std::process::ExitCode;

use lifecycle::Container;
use lifecycle::exit::{Exit, Failure, OrExit as _, report};
use lifecycle::signals::Signals;

const PAUSE: Container = Container { name: "pause", admin_port: 0, version: env!("CARGO_PKG_VERSION") };

fn main() -> ExitCode {
    report(&PAUSE, lifecycle::cli::TERMINATION_LOG.as_ref(), wait_to_be_stopped())
}

fn wait_to_be_stopped() -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().or_exit(Exit::Internal)?;
    runtime.block_on(async {
        // As the first process of its namespace it is sent no signal that it has not asked for.
        let signals = Signals::install().or_exit(Exit::Internal)?;
        signals.shutdown.cancelled().await;
        Ok(())
    })
}
