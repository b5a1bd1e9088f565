//! `deploy/verify labs`: does what the documents say, and sees whether that comes of it.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use lifecycle::exit::{Exit, Failure, OrExit as _};
use lifecycle::{Container, Ignore as _};
use verify::engine::kubectl::Context;
use verify::lab::page::{self, Block, RunsOn};
use verify::lab::workspace::Workspace;
use verify::lab::{containers, descendants, run};
use verify::program::{on_interrupt, say, verdict};

/// The exit code to end with, once a signal has asked us to stop.
static INTERRUPTED: OnceLock<i32> = OnceLock::new();

const LABS: Container = Container { name: "labs", admin_port: 0, version: env!("CARGO_PKG_VERSION") };

/// Runs the commands of the documents, and compares what they show with what the page shows; exit code 1 where a page fails
#[derive(Debug, clap::Parser)]
#[command(name = "deploy/verify labs")]
struct Flags {
    /// Only these pages; without any, every page that has a block for the place
    pages: Vec<PathBuf>,

    /// Which blocks: those that need no more than processes, those for Docker, or those for a cluster
    #[arg(long, value_name = "PLACE", default_value = "processes")]
    on: RunsOn,

    /// The lesson's `shell` image, for the pages as $SHELL_IMAGE; anything with bash and curl in it
    #[arg(long, value_name = "IMAGE", default_value = "almalinux:9-minimal")]
    shell_image: String,

    /// Cluster to use, by its context in the kubeconfig; must be named where there are several
    #[arg(long, value_name = "CONTEXT")]
    context: Option<String>,

    /// Tag of our images, for the pages as $TAG
    #[arg(long, value_name = "TAG", default_value = "dev")]
    tag: String,

    /// The folder of the built binaries; without it, the folder of this program
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,

    /// Already in a network of its own
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    lifecycle::cli::main(&LABS, labs)
}

fn labs(flags: &Flags) -> Result<(), Failure> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().or_exit(Exit::Io)?;
    let pages = chosen(flags, &repository)?;
    let own = std::env::current_exe().or_exit(Exit::Internal)?;
    let binaries = flags.binaries.as_deref().or(own.parent()).unwrap_or(Path::new("."));
    let binaries = binaries.canonicalize().or_exit(Exit::Refused)?;
    if flags.on == RunsOn::Processes && !flags.inside {
        move_to_a_network_of_our_own(&own, &binaries);
    }
    descendants::adopt().or_exit(Exit::Internal)?;
    end_all_when_interrupted().or_exit(Exit::Internal)?;

    let cluster = match flags.on {
        RunsOn::Cluster => {
            let context = Context::choose(flags.context.as_deref()).or_exit(Exit::Unavailable)?;
            say(format_args!("labs: on the cluster of the context {context}"));
            Some(context)
        }
        _ => None,
    };

    let mut failed = 0;
    for (page, blocks) in &pages {
        if INTERRUPTED.get().is_some() {
            break;
        }
        let name = page.strip_prefix(&repository).unwrap_or(page).display();
        let begun = Instant::now();
        match follow(flags, blocks, &repository, &binaries, cluster.as_ref()) {
            Ok(commands) => {
                let seconds = begun.elapsed().as_secs_f32();
                say(format_args!("pass  {name} ({commands} commands, {seconds:.1} s)"));
            }
            Err(why) => {
                failed += 1;
                say(format_args!("FAIL  {name}: {why}"));
            }
        }
    }
    if let Some(code) = INTERRUPTED.get() {
        std::process::exit(*code);
    }
    verdict(pages.len() - failed, failed, "pages")
}

/// One page in a workspace of its own, and nothing of it left afterwards.
fn follow(
    flags: &Flags,
    blocks: &[Block],
    repository: &Path,
    binaries: &Path,
    cluster: Option<&Context>,
) -> anyhow::Result<usize> {
    let mut workspace = Workspace::create(repository, binaries)?;
    let kubeconfig =
        cluster.map(|cluster| workspace.on_cluster(cluster, &flags.shell_image, &flags.tag)).transpose()?;
    let project = format!("{}{}", containers::PREFIX, std::process::id());
    let environment: Vec<(String, OsString)> =
        [("SHELL_IMAGE", &flags.shell_image), ("TAG", &flags.tag), ("COMPOSE_PROJECT_NAME", &project)]
            .map(|(name, value)| (name.to_owned(), value.into()))
            .into();
    let before = containers::Present::of(flags.on, kubeconfig.as_deref())?;
    let outcome = run::page(blocks, flags.on, &workspace, &environment);
    descendants::end_all();
    let left = before.remove_newer()?;
    let typed = outcome.map_err(anyhow::Error::msg)?;
    anyhow::ensure!(left.is_empty(), "at the end of the page there still were: {}", left.join(", "));
    Ok(typed)
}

/// The pages with something for the place, in the order of their names.
fn chosen(flags: &Flags, repository: &Path) -> Result<Vec<(PathBuf, Vec<Block>)>, Failure> {
    let pages =
        if flags.pages.is_empty() { page::all(repository).or_exit(Exit::Io)? } else { flags.pages.clone() };
    let mut chosen = Vec::new();
    for page in pages {
        let blocks = page::read(&page).or_exit(Exit::Refused)?;
        if blocks.iter().any(|block| block.place == flags.on) {
            chosen.push((page, blocks));
        }
    }
    if chosen.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("no page has a block for {:?}: see --on", flags.on)));
    }
    Ok(chosen)
}

/// The pages use the contract's ports. In a network namespace these are free, whatever else runs on this machine. It takes root;
/// others run on the machine's own, as a reader does.
fn move_to_a_network_of_our_own(own: &Path, binaries: &Path) {
    let silent = |command: &mut Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if !silent(Command::new("unshare").args(["--net", "ip", "link", "set", "lo", "up"])) {
        say(format_args!(
            "labs: no network of its own here (that takes root): on this machine's, ports 9876 to 9880"
        ));
        return;
    }
    let mut again = Command::new("unshare");
    again.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "labs"]).arg(own);
    again.args(std::env::args_os().skip(1)).env("LABS_INSIDE", "true").env("LABS_BINARIES", binaries);
    // It only returns where it fails; then we are where we were.
    let error = again.exec();
    say(format_args!("labs: no network of its own: {error}"));
}

/// What runs for a page does not outlive us: its commands end, the page fails, and what it has left is removed as after any other.
fn end_all_when_interrupted() -> io::Result<()> {
    on_interrupt(|code| {
        // This runs at the first signal alone.
        INTERRUPTED.set(code).ignore();
        say(format_args!("labs: interrupted; ending what runs"));
        descendants::end_all();
    })
}
