//! A small kubelet: runs this project's Pod on bare processes. `cargo demo` builds it and starts it.
//!
//! A Pod is a handful of processes that share volumes and an address, and a kubelet that starts them in order, starts
//! them again when they die, and stops them in order. None of that needs a container engine, so this program does it
//! with child processes, and a reader can follow every step.
//!
//! - [`flags`]: what `cargo demo` can be told
//! - [`binaries`]: where the containers' programs are
//! - [`spec`]: this Pod, declared as data: containers, volumes, order
//! - [`downward`]: what its containers are told about their Pod
//! - [`kubelet`]: runs a declared Pod: start order, probes, restarts, stop order
//! - [`process`]: one process of a container, from its start to its last line
//! - [`backoff`]: how long a kubelet waits before it starts a dead container again
//! - [`console`]: every line of every container, behind its name

mod backoff;
mod binaries;
mod console;
mod downward;
mod flags;
mod kubelet;
mod process;
mod spec;

use std::path::PathBuf;
use std::process::ExitCode;

use lifecycle::exit::{Exit, Failure, OrExit as _};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use crate::binaries::Binaries;
use crate::console::{Prefix, Stream};
use crate::flags::{DEMO, Flags, Sidecars};
use crate::kubelet::{Kubelet, StopRequests};
use crate::spec::{PodSpec, Volumes};

fn main() -> ExitCode {
    let flags: Flags = match lifecycle::cli::parse(&DEMO) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    let outcome = prepare(&flags).and_then(|(binaries, dir)| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().or_exit(Exit::Internal)?;
        runtime.block_on(run(&flags, &binaries, dir))
    });
    lifecycle::exit::report(&DEMO, lifecycle::cli::TERMINATION_LOG.as_ref(), outcome)
}

/// Everything that can go wrong before a process is started, in the order in which it is cheapest to find out.
fn prepare(flags: &Flags) -> Result<(Binaries, VolumesDir), Failure> {
    if flags.source.is_none() && !flags.content.is_dir() {
        let problem = format!("--content {}: there is no such folder", flags.content.display());
        return Err(Failure::new(Exit::Refused, problem));
    }
    flags.check_ports()?;
    let binaries = Binaries::find(flags.binaries.as_deref())?;
    Ok((binaries, VolumesDir::create(flags)?))
}

async fn run(flags: &Flags, binaries: &Binaries, dir: VolumesDir) -> Result<(), Failure> {
    let requests = StopRequests::default();
    listen_for_signals(&requests).or_exit(Exit::Internal)?;

    let volumes = Volumes::create_in(dir.path()).or_exit(Exit::Io)?;
    let outside = spec::content_manager(flags, binaries);
    let inside = spec::pod(flags, binaries, &volumes);
    let names = inside.containers.iter().chain(&outside.containers).map(|container| container.name);
    let width = names.map(str::len).max().unwrap_or_default();
    let teller = Prefix::new("pod", 4, width);

    let mut content_manager = Kubelet::new(requests.clone());
    let mut pod = Kubelet::new(requests.clone());
    let mut started = start(&mut content_manager, outside, 3, width).await;
    if started.is_ok() {
        started = start(&mut pod, inside, 0, width).await;
    }
    if started.is_ok() && !requests.stop.is_cancelled() {
        greet(&teller, flags);
        requests.stop.cancelled().await;
    }
    teller.say(
        Stream::Stderr,
        match flags.sidecars {
            Sidecars::Native => "stopping: web-server first, log-agent last",
            Sidecars::Classic => "stopping: all containers at once",
        },
    );
    pod.stop().await;
    content_manager.stop().await;
    dir.leave(&teller);
    started.and_then(|()| requests.refusal())
}

async fn start(
    kubelet: &mut Kubelet,
    spec: PodSpec,
    first_colour: usize,
    width: usize,
) -> Result<(), Failure> {
    let prefixes = spec.containers.iter().enumerate();
    let prefixes = prefixes
        .map(|(position, container)| Prefix::new(container.name, first_colour + position, width))
        .collect();
    kubelet.start(spec, prefixes).await.or_exit(Exit::Internal)
}

fn greet(teller: &Prefix, flags: &Flags) {
    let host = if flags.ip.is_loopback() && flags.ip.to_string() == "127.0.0.1" {
        "localhost".to_owned()
    } else {
        flags.ip.to_string()
    };
    let content = if let Some(source) = &flags.source {
        format!("try: change what {source} lists")
    } else {
        let content = flags.content.canonicalize().unwrap_or_else(|_| flags.content.clone());
        format!("try: edit {}/index.html", content.display())
    };
    let lines = [
        format!("the Pod is up: http://{host}:{}/", flags.port),
        format!("{content} and reload the page: a new release within {:?}", flags.period),
        "try: kill -9 the pid of a container above, and see it come back with nothing lost".to_owned(),
        "Ctrl-C stops the Pod; a second one does not wait".to_owned(),
    ];
    for line in &lines {
        teller.say(Stream::Stderr, line);
    }
}

/// The first signal stops the Pod in order, a second one kills it: no child may outlive us, whoever is impatient.
fn listen_for_signals(requests: &StopRequests) -> std::io::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind)?;
        let StopRequests { stop, kill, .. } = requests.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if stop.is_cancelled() { kill.cancel() } else { stop.cancel() }
            }
        });
    }
    Ok(())
}

/// The folder that holds the volumes: gone with the Pod, unless somebody wants to look around.
enum VolumesDir {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl VolumesDir {
    fn create(flags: &Flags) -> Result<Self, Failure> {
        if let Some(Some(dir)) = &flags.keep_dir {
            let made = std::fs::create_dir_all(dir).and_then(|()| dir.canonicalize());
            let named = made.map_err(|error| anyhow::anyhow!("--keep-dir={}: {error}", dir.display()));
            return Ok(Self::Kept(named.or_exit(Exit::Io)?));
        }
        let temporary = tempfile::Builder::new().prefix("pod-").tempdir();
        let temporary =
            temporary.map_err(|error| anyhow::anyhow!("no temporary folder for the volumes: {error}"));
        let temporary = temporary.or_exit(Exit::Io)?;
        Ok(if flags.keep_dir.is_some() { Self::Kept(temporary.keep()) } else { Self::Temporary(temporary) })
    }

    fn path(&self) -> &std::path::Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Kept(dir) => dir,
        }
    }

    fn leave(self, teller: &Prefix) {
        match self {
            Self::Kept(dir) => teller.say(Stream::Stderr, &format!("the volumes are in {}", dir.display())),
            Self::Temporary(dir) => {
                let path = dir.path().to_owned();
                if let Err(error) = dir.close() {
                    teller.say(Stream::Stderr, &format!("cannot remove {}: {error}", path.display()));
                }
            }
        }
    }
}
