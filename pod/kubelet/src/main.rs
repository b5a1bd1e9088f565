//! A small kubelet: runs this project's Pod on bare processes. `cargo demo` builds it and starts it.
//!
//! A Pod is a handful of processes that share volumes and an address, and a kubelet that starts them in order, starts
//! them again when they die, and stops them in order. None of that needs a container engine, so this program does it
//! with child processes, and a reader can follow every step.
//!
//! - [`flags`]: what `cargo demo` can be told
//! - [`spec`]: this Pod, declared as data: containers, order, restart policy
//! - [`volumes`] and [`downward`]: the folders that it shares, and what its containers are told about it
//! - [`kubelet`]: runs a declared Pod: start order, restarts, stop order
//! - [`process`], [`probe`]: one process of a container, and how it is asked
//! - [`restart_policy`], [`backoff`]: whether a dead container is started again, and how long it waits
//! - [`event`]: what the kubelet does and sees
//! - [`terminal`] and [`log_line`]: what a person reads of it; [`outlet`]: without waiting for that person
//! - [`timeline`]: the same as a picture
//! - [`demo`]: the content manager and the Pod, from the first line to the last
//! - [`binaries`], [`ports`]: what has to be there, and what has to be free; [`proc`]: who has it
//! - [`watcher`]: what cleans up when the kubelet is killed

mod backoff;
mod binaries;
mod demo;
mod downward;
mod event;
mod flags;
mod kubelet;
mod log_line;
mod outlet;
mod ports;
mod probe;
mod proc;
mod process;
mod restart_policy;
mod spec;
mod terminal;
mod timeline;
mod volumes;
mod watcher;

use std::process::ExitCode;

use lifecycle::exit::{Exit, Failure, OrExit as _};

use crate::binaries::Binaries;
use crate::demo::Demo;
use crate::flags::{DEMO, Flags};

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == watcher::ARGUMENT) {
        watcher::run(std::io::stdin().lock());
        return ExitCode::SUCCESS;
    }
    lifecycle::cli::main(&DEMO, run)
}

fn run(flags: &Flags) -> Result<(), Failure> {
    // Everything that can go wrong before a process is started, in the order in which it is cheapest to find out.
    flags.check()?;
    ports::check(flags)?;
    let binaries = Binaries::find(flags.binaries.as_deref())?;
    let demo = Demo::prepare(flags, &binaries)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.or_exit(Exit::Internal)?;
    let outcome = runtime.block_on(demo.run(flags));
    // A thread may still be writing records to a pipe whose reader hangs.
    runtime.shutdown_background();
    outcome
}
