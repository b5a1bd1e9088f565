//! Puts the agent together, and runs it.

use std::sync::Arc;

use lifecycle::Ignore as _;
use lifecycle::admin::{self, Admin};
use lifecycle::cli;
use lifecycle::exit::{Exit, Failure, OrExit as _};
use lifecycle::rlimit;
use lifecycle::signals::Signals;
use tokio::net::TcpListener;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;

use crate::CONTAINER;
use crate::agent::{Agent, Checkpoints, Feed, FileLag, Message, Reader, SinkStatus, Status, Until, run_sink};
use crate::checkpoint::{CheckpointWriter, SentLog, SentWriter, StateDir, note_sent};
use crate::config::Config;
use crate::deliver::{DeadLetters, Records, Sink, SinkSpec};
use crate::identity::random;
use crate::loss::LossLedger;
use crate::metrics::Metrics;
use crate::position::SinkIndex;
use crate::record::resource::{Resource, SharedResource};
use crate::tail::{Catalog, Past, ReadOptions};
use crate::watch::{Discovery, OwnFiles};

/// So many files may appear at once without a probe waiting for the kernel to make room for them.
const MANY_FILES: u64 = 16 * 1024;

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
    let limit = usize::try_from(rlimit::raise_limit()).unwrap_or(usize::MAX);
    rlimit::make_room(MANY_FILES);
    let state_dir = config.state_dir.clone().unwrap_or_default();
    let mut state = StateDir::open(&state_dir)?;
    let mut registry = admin::registry(&CONTAINER);
    let metrics = Metrics::new(&mut registry);

    let specs = config.sinks();
    let names: Vec<String> = specs.iter().map(SinkSpec::name).collect();
    let ledger = LossLedger::new(&names, metrics.clone());
    let sent_log = SentLog::new(&state_dir);
    let mut entries = state.load();
    note_sent(&mut entries, sent_log.load());
    let past = Past { entries, is_first_start: state.is_new(), run: random() };
    let catalog = Catalog::new(names.clone(), past, config.catalog(limit), ledger.clone());
    let environment = |name: &str| std::env::var(name).ok();
    let resource = SharedResource::new(Resource::new(environment, &config.label), config.pod_files.clone());
    let settings = config.delivery();
    let dead_letters = DeadLetters::new(&state_dir);
    let (to_reader, inbox) = std::sync::mpsc::channel();
    let (mut sinks, mut feeds, mut statuses) = (JoinSet::new(), Vec::new(), Vec::new());
    for (index, spec) in SinkIndex::all(specs.len()).zip(&specs) {
        let records = Records {
            resource: resource.clone(),
            dead_letters: dead_letters.clone(),
            ledger: ledger.clone(),
        };
        let (name, sink_metrics) = (spec.name(), metrics.sink(&spec.name()));
        let files = config.credentials.files(spec);
        let sink = Sink::new(index, spec, &files, &settings, records, sink_metrics.clone())?;
        statuses.push(SinkStatus { name, health: sink.health(), metrics: sink_metrics });
        let purpose = sink.purpose();
        let to = run_sink(&mut sinks, index, sink, to_reader.clone());
        feeds.push(Feed::new(config.chunk_size, purpose, to));
    }
    let status = Arc::new(Status::new(statuses));
    registry.register_collector(Box::new(FileLag(Arc::clone(&status))));
    let _serving = Admin::new(CONTAINER, Arc::clone(&status) as _, registry, signals.shutdown.clone())
        .allowed_hosts(lifecycle.allowed_hosts())
        .serve(admin);
    let (to_loop, reports) = unbounded_channel();
    let wake = {
        let to_reader = to_reader.clone();
        // Where the reader has ended, there is nothing to wake.
        Box::new(move || to_reader.send(Message::Changed).ignore())
    };
    let options = ReadOptions {
        format: config.parse,
        names: config.names.clone(),
        multiline: config.multiline(),
        filter: config.filter.clone(),
        max_line: config.max_line,
        instance: state.instance(),
    };
    let symlinks = config.symlinks();
    let kept = StateDir::FILES.into_iter().chain(SentLog::FILES).chain(DeadLetters::FILES);
    let own = OwnFiles::new(kept.map(|name| state_dir.join(name)).chain(config.written_files()));
    let reader = Reader {
        inbox,
        reports: to_loop,
        discovery: Discovery::start(config.include, config.exclude, own, symlinks, config.watch, wake),
        catalog,
        options,
        feeds,
        checkpoints: Checkpoints::new(config.checkpoint_period),
        sent_log: SentWriter::start(sent_log).or_exit(Exit::Internal)?,
        resource,
        status: Arc::clone(&status),
        metrics: metrics.clone(),
        names,
        until: if config.exit_at_eof { Until::EndOfFiles } else { Until::Signalled },
        rescan_period: config.rescan_period,
        shutdown_timeout: lifecycle.shutdown_timeout,
    };
    let agent = Agent {
        to_reader,
        reports,
        sinks,
        writer: CheckpointWriter::new(state, metrics),
        status,
        shutdown_timeout: lifecycle.shutdown_timeout,
        termination_log: lifecycle.termination_log,
    };
    agent.work(reader, &signals).await
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;
    use std::net::SocketAddr;
    use std::path::PathBuf;
    use std::thread::JoinHandle;
    use std::time::{Duration, Instant};

    use clap::Parser;
    use parking_lot::{Mutex, MutexGuard};
    use rustix::io::Errno;
    use tempfile::TempDir;
    use testkit::http::get;
    use testkit::{Probes, wait_until};
    use tokio::runtime::Builder;

    use super::*;
    use crate::tail::slow_disk;
    use crate::watch::failing_disk::{Failing, Step};

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        config: Config,
        #[command(flatten)]
        lifecycle: cli::Flags,
    }

    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    /// The agent as `main` runs it, one thread for the event loop and another one for files, for tests that make a disk fail. It copies
    /// `logs/*.log` to `out`.
    struct Running {
        dir: TempDir,
        admin: SocketAddr,
        event_loop: PathBuf,
        signals: Signals,
        thread: JoinHandle<Result<(), Failure>>,
        /// A disk that is stuck is so for every agent of this process.
        _alone: MutexGuard<'static, ()>,
    }

    impl Running {
        fn start() -> Self {
            let alone = ONE_AT_A_TIME.lock();
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("logs")).unwrap();
            let at = |name: &str| dir.path().join(name).display().to_string();
            let command = Command::parse_from([
                "log-agent",
                "--include",
                &at("logs/*.log"),
                "--state-dir",
                &at("state"),
                "--sink",
                &format!("raw+file:{}", at("out")),
                "--rescan-period",
                "50ms",
                "--admin-addr",
                "127.0.0.1:0",
            ]);
            let signals = Signals::default();
            let (told, admin) = std::sync::mpsc::channel();
            let thread = {
                let signals = signals.clone();
                std::thread::spawn(move || {
                    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                        let event_loop = std::fs::canonicalize("/proc/thread-self").unwrap();
                        let listener = TcpListener::bind(command.lifecycle.admin_addr).await.unwrap();
                        told.send((listener.local_addr().unwrap(), event_loop)).unwrap();
                        run(command.config, command.lifecycle, listener, signals).await
                    })
                })
            };
            let (admin, event_loop) = admin.recv().unwrap();
            Self { dir, admin, event_loop, signals, thread, _alone: alone }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn write(&self, log: &str, text: &str) {
            let file = OpenOptions::new().create(true).append(true).open(self.path("logs").join(log));
            file.unwrap().write_all(text.as_bytes()).unwrap();
        }

        fn expect(&self, text: &str) {
            wait_until(&format!("{text:?} arrives"), || {
                std::fs::read_to_string(self.path("out")).is_ok_and(|out| out == text)
            });
        }

        fn stop(self) {
            self.signals.shutdown.cancel();
            self.thread.join().unwrap().unwrap();
        }
    }

    #[test]
    fn a_read_that_takes_three_seconds_keeps_no_probe_waiting() {
        let agent = Running::start();
        let disk = slow_disk::Stuck::begin();
        agent.write("a.log", "line 0\n");
        wait_until("the reader waits for its disk", || slow_disk::reads() == 1);
        let begin = Instant::now();
        let mut probes = Probes::of(agent.admin, agent.event_loop.clone());
        while begin.elapsed() < Duration::from_secs(3) {
            probes.ask();
            assert_eq!(slow_disk::reads(), 1, "all the while it is the same read");
            // As often as that is enough: each probe takes a port of the machine's.
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(probes.slowest() < Duration::from_millis(100), "{:?}", probes.slowest());
        drop(disk);
        agent.expect("line 0\n");
        agent.stop();
    }

    #[test]
    fn a_scan_that_fails_is_not_an_empty_one() {
        let agent = Running::start();
        agent.write("a.log", "line\n");
        agent.expect("line\n");
        let mut text = "line\n".to_owned();
        let failures = [
            (Step::Open, Errno::MFILE),
            (Step::Open, Errno::NFILE),
            (Step::Open, Errno::IO),
            (Step::Entries, Errno::IO),
        ];
        for (number, (step, errno)) in failures.into_iter().enumerate() {
            let disk = Failing::begin(&agent.path("logs"), step, errno);
            let reason = format!("logs: {}", std::io::Error::from(errno));
            wait_until("it is not ready, and says why", || {
                let answer = get(agent.admin, "/readyz");
                answer.status() == 503 && answer.text().contains(&reason)
            });
            let up = || get(agent.admin, "/metrics").text().lines().any(|line| line == "log_agent_scan_up 1");
            assert!(!up());
            let files = get(agent.admin, "/status").json()["files"].clone();
            assert!(files.as_array().is_some_and(|files| files.len() == number + 1), "{files}");
            assert!(files.as_array().into_iter().flatten().all(|file| file["named"] == true), "{files}");
            // What is followed stays followed, and what is new has to wait.
            let (followed, new) = (format!("followed {number}\n"), format!("new {number}\n"));
            agent.write("a.log", &followed);
            text += &followed;
            agent.expect(&text);
            agent.write(&format!("b{number}.log"), &new);
            drop(disk);
            text += &new;
            agent.expect(&text);
            wait_until("it is ready", || get(agent.admin, "/readyz").status() == 200);
            assert!(up());
        }
        agent.stop();
    }
}
