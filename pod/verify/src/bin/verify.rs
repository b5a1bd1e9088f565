//! `deploy/verify`: drives a Pod of containers through the scorecard's rows, and leaves nothing behind. Exit code 1 where a row fails.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use lifecycle::Container;
use lifecycle::exit::{Exit, Failure, OrExit as _};
use parking_lot::Mutex;
use verify::engine::Containers;
use verify::engine::command;
use verify::engine::compose::Compose;
use verify::engine::kubectl::{Context, Kubectl};
use verify::engine::podman::Podman;
use verify::program::{on_interrupt, say, verdict};
use verify::scenario;

const VERIFY: Container = Container { name: "verify", admin_port: 0, version: env!("CARGO_PKG_VERSION") };

/// Drives a Pod of containers through the scorecard's rows, and leaves nothing behind; exit code 1 where a row fails
#[derive(Debug, clap::Parser)]
#[command(name = "deploy/verify")]
struct Flags {
    /// What runs the Pod
    engine: EngineName,

    /// Tag of our images, which are there already: see deploy/images.sh
    #[arg(long, value_name = "TAG", default_value = "dev")]
    tag: String,

    /// Prefix of our images' names, for a cluster that pulls them
    #[arg(long, value_name = "PREFIX", default_value = "")]
    registry: String,

    /// Cluster to use, by its context in the kubeconfig; must be named where there are several
    #[arg(long, value_name = "CONTEXT")]
    context: Option<String>,

    /// The lesson's `shell` container; anything with bash and curl in it
    #[arg(long, value_name = "IMAGE", default_value = "almalinux:9-minimal")]
    shell_image: String,

    /// Only these rows, separated by commas
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    only: Vec<String>,

    /// The folder with compose.yaml, kubernetes/ and the sample site
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy"))]
    deploy: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum EngineName {
    /// deploy/compose.yaml on Docker
    Compose,
    /// deploy/kubernetes/overlays/podman, played by podman
    Podman,
    /// deploy/kubernetes/overlays/verify in a namespace of its own
    Kubectl,
}

fn main() -> ExitCode {
    lifecycle::cli::main(&VERIFY, verify)
}

fn verify(flags: &Flags) -> Result<(), Failure> {
    let rows = rows(&flags.only)?;
    let pod = engine(flags).or_exit(Exit::Unavailable)?;
    let removal = Arc::new(Removal { pod, done: Mutex::new(false) });
    remove_when_interrupted(Arc::clone(&removal)).or_exit(Exit::Internal)?;

    say(format_args!("verify: starting a Pod on {:?}", flags.engine));
    let begun = Instant::now();
    let outcome = removal.pod.start().or_exit(Exit::Unavailable).and_then(|()| {
        say(format_args!("verify: it serves after {:.1} s", begun.elapsed().as_secs_f32()));
        drive(&rows, removal.pod.as_ref())
    });
    leave_the_rest_to_an_interrupt();
    if outcome.is_err() {
        say(format_args!("{}", removal.pod.logs()));
    }
    // Both matter: that something is left behind, and what went wrong before.
    let removed = removal.carry_out().or_exit(Exit::Io);
    outcome.and(removed)
}

fn engine(flags: &Flags) -> io::Result<Arc<dyn Containers + Send>> {
    let deploy = flags.deploy.canonicalize().map_err(|error| {
        io::Error::new(error.kind(), format!("--deploy {}: {error}", flags.deploy.display()))
    })?;
    let Flags { tag, registry, shell_image, .. } = flags;
    Ok(match flags.engine {
        EngineName::Compose => Arc::new(Compose::new(&deploy, tag, shell_image)?),
        EngineName::Podman => Arc::new(Podman::new(&deploy, tag, shell_image)?),
        EngineName::Kubectl => {
            let context = Context::choose(flags.context.as_deref())?;
            say(format_args!("verify: on the cluster of the context {context}"));
            Arc::new(Kubectl::new(context, &deploy, registry, tag, shell_image)?)
        }
    })
}

/// A row's name, and what it does.
type Row = (&'static str, Box<dyn Fn(&dyn Containers) -> anyhow::Result<()>>);

/// The rows that are named, or all, in their order.
fn rows(only: &[String]) -> Result<Vec<Row>, Failure> {
    let anywhere = scenario::ALL.map(|(name, row)| -> Row { (name, Box::new(move |pod| row(pod))) });
    let on_containers = scenario::ON_CONTAINERS.map(|(name, row)| -> Row { (name, Box::new(row)) });
    let mut rows: Vec<Row> = anywhere.into_iter().chain(on_containers).collect();
    let known: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = only.iter().find(|name| !known.contains(&name.as_str())) {
        let problem = format!("--only {unknown}: there is no such row; there are {}", known.join(", "));
        return Err(Failure::new(Exit::Usage, problem));
    }
    rows.retain(|(name, _)| only.is_empty() || only.iter().any(|given| given == name));
    Ok(rows)
}

fn drive(rows: &[Row], pod: &dyn Containers) -> Result<(), Failure> {
    let (mut passed, mut failed, mut beyond) = (0, 0, 0);
    for (name, row) in rows {
        if let Some((_, why)) = pod.beyond().iter().find(|(row, _)| row == name) {
            beyond += 1;
            say(format_args!("n/a   {name}: {why}"));
            continue;
        }
        let begun = Instant::now();
        let outcome = row(pod);
        leave_the_rest_to_an_interrupt();
        let seconds = begun.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => {
                passed += 1;
                say(format_args!("pass  {name} ({seconds:.1} s)"));
            }
            Err(error) => {
                failed += 1;
                say(format_args!("FAIL  {name} ({seconds:.1} s): {error:#}"));
            }
        }
    }
    if beyond > 0 {
        say(format_args!("verify: {beyond} beyond this engine"));
    }
    verdict(passed, failed, "rows")
}

/// Removes the Pod, once: at the end of the work or at Ctrl-C, whichever comes first.
struct Removal {
    pod: Arc<dyn Containers + Send>,
    done: Mutex<bool>,
}

impl Removal {
    fn carry_out(&self) -> io::Result<()> {
        let mut done = self.done.lock();
        if !*done {
            self.pod.remove()?;
            *done = true;
        }
        Ok(())
    }
}

/// From the first signal on no more work is done; the Pod is removed and the process ends. A second one changes nothing.
fn remove_when_interrupted(removal: Arc<Removal>) -> io::Result<()> {
    on_interrupt(move |code| {
        command::interrupt();
        say(format_args!("verify: interrupted; removing the Pod"));
        if let Err(error) = removal.carry_out() {
            say(format_args!("verify: something is left behind: {error}"));
        }
        std::process::exit(code);
    })
}

/// Stops once the user has interrupted: what fails then says nothing about the Pod, and the process is about to end.
fn leave_the_rest_to_an_interrupt() {
    while command::interrupted() {
        std::thread::park();
    }
}
