//! Puts the agent together, and runs it.

use std::sync::Arc;

use lifecycle::admin::{self, Admin};
use lifecycle::cli;
use lifecycle::exit::Failure;
use lifecycle::rlimit;
use lifecycle::signals::Signals;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::CONTAINER;
use crate::agent::{Agent, FileLag, Pipeline, Status};
use crate::checkpoint::{CheckpointWriter, StateDir};
use crate::config::Config;
use crate::deliver::{DeadLetters, Records, Sink, SinkSpec};
use crate::loss::LossLedger;
use crate::metrics::Metrics;
use crate::record::resource::SharedResource;
use crate::tail::{Catalog, ReadOptions, Until};
use crate::watch::Discovery;

/// Follows, ships and checkpoints until it is told to stop, or until the end of the files.
///
/// # Errors
/// 69 where the state directory is held by another, or where a sink did not take everything in time; 74 where the state
/// directory cannot be used; 70 for a defect of our own.
pub async fn run(
    config: Config,
    lifecycle: cli::Flags,
    admin: TcpListener,
    signals: Signals,
) -> Result<(), Failure> {
    // Every followed file is held open.
    rlimit::raise_limit();
    let state_dir = config.state_dir.clone().unwrap_or_default();
    let mut state = StateDir::open(&state_dir)?;
    let mut registry = admin::registry(&CONTAINER);
    let metrics = Metrics::new(&mut registry);

    let names: Vec<String> = config.sink.iter().map(SinkSpec::name).collect();
    let ledger = LossLedger::new(&names, metrics.clone());
    let catalog = Catalog::new(names.clone(), state.load(), config.rotate_wait, ledger.clone());
    let environment = |name: &str| std::env::var(name).ok();
    let resource = SharedResource::new(config.resource(environment), config.pod_files());
    let settings = config.delivery();
    let dead_letters = DeadLetters::new(&state_dir);
    let (mut pipelines, mut healths) = (Vec::new(), Vec::new());
    for (index, spec) in config.sink.iter().enumerate() {
        let records = Records {
            resource: resource.clone(),
            dead_letters: dead_letters.clone(),
            ledger: ledger.clone(),
        };
        let sink_metrics = metrics.sink(&spec.name());
        let files = config.credentials.files(spec);
        let sink = Sink::new(index, spec, &files, &settings, records, sink_metrics.clone())?;
        healths.push((sink.name().to_owned(), sink.health(), sink_metrics));
        pipelines.push(Pipeline::new(index, sink, config.chunk_size));
    }
    let status = Arc::new(Status::new(healths));
    registry.register_collector(Box::new(FileLag(Arc::clone(&status))));
    let _serving = Admin::new(CONTAINER, Arc::clone(&status) as _, registry, signals.shutdown.clone())
        .allowed_hosts(lifecycle.allowed_hosts())
        .serve(admin);

    let agent = Agent {
        catalog,
        resource,
        pipelines,
        deliveries: JoinSet::new(),
        options: ReadOptions {
            format: config.parse,
            names: config.names.clone(),
            multiline: config.multiline(),
            filter: config.filter(),
            max_line: config.max_line,
            buffer: Vec::new(),
        },
        writer: CheckpointWriter::new(state, config.checkpoint_period, metrics.clone()),
        discovery: Discovery::start(config.include, config.exclude, config.watch),
        ledger,
        metrics,
        status,
        names,
        until: if config.exit_at_eof { Until::EndOfFiles } else { Until::Signalled },
        rescan_period: config.rescan_period,
        shutdown_timeout: lifecycle.shutdown_timeout,
        termination_log: lifecycle.termination_log,
    };
    agent.work(&signals).await
}
