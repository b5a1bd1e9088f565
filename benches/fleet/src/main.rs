//! A fleet in a box: many pullers in one process, one content manager, real HTTP over loopback.
//!
//!     cargo build --release --package web-server --package file-puller --package fleet
//!     target/release/fleet
//!
//! The content manager is the built `web-server --manifest`. The pullers are file-puller's own code with a volume that
//! verifies and forgets (`file_puller::fleet`); ten more are the built `file-puller` with volumes of their own. What is measured
//! goes to stdout and, with `--output`, into a file as JSON, from which `benches/charts.py` draws `docs/scale.md`.
//!
//! - [`manager`]: the content manager, and what it has used
//! - [`site`]: the directory that it gives out
//! - [`swarm`]: the pullers in this process
//! - [`pods`]: real pullers, and a whole Pod
//! - [`proxy`]: a network that tears answers
//! - [`nginx`]: the same requests, answered by nginx
//! - [`cases`]: what is measured, one function each
//! - [`report`]: what was measured

// It is a program for a terminal.
#![allow(clippy::print_stdout)]
// What is counted here is far from where a float begins to round.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod cases;
mod manager;
mod nginx;
mod pods;
mod proxy;
mod report;
mod site;
mod swarm;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser as _;

use crate::cases::CASES;
use crate::report::Report;

/// Measures a content manager and its pullers
#[derive(Debug, clap::Parser)]
struct Flags {
    /// Cases to run, all by default
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<String>,

    /// Folder of the built binaries, by default this program's own
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,

    /// File to write what was measured to, as JSON; rows of cases that did not run stay as they are
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    for name in &flags.only {
        let names: Vec<_> = CASES.iter().map(|(name, _)| *name).collect();
        anyhow::ensure!(names.contains(&&**name), "no case is called {name}; there are {}", names.join(", "));
    }
    let binaries = match flags.binaries {
        Some(binaries) => binaries,
        None => std::env::current_exe()?.parent().context("a program lies in a folder")?.to_owned(),
    };
    for name in ["web-server", "file-puller"] {
        anyhow::ensure!(
            binaries.join(name).is_file(),
            "{} has no {name}; build it with `cargo build --release --package {name}`",
            binaries.display()
        );
    }
    let mut report = Report::default();
    for (name, case) in CASES {
        if !flags.only.is_empty() && !flags.only.iter().any(|only| only == name) {
            continue;
        }
        println!("{name}");
        report.begin(name);
        // A runtime of its own: nothing of the case before is left.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(case(&binaries, &mut report)).with_context(|| format!("case {name}"))?;
        runtime.shutdown_background();
    }
    match flags.output {
        Some(path) => report.write(&path),
        None => Ok(()),
    }
}
