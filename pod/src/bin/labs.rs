//! `deploy/verify labs`: does what the documents say, and sees whether that comes of it.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Instant;

use lifecycle::Container;
use lifecycle::exit::{Exit, Failure, OrExit as _};
use pod::binaries::plain;
use pod::lab::page::{self, Block, Place};
use pod::lab::workspace::Workspace;
use pod::lab::{containers, descendants, run};
use tokio::signal::unix::{SignalKind, signal};

/// The signal that asked us to stop, once one has.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

const LABS: Container = Container { name: "labs", admin_port: 0, version: env!("CARGO_PKG_VERSION") };

/// Runs the commands of the documents, and compares what they show with what the page shows
#[derive(Debug, clap::Parser)]
#[command(name = "deploy/verify labs")]
struct Flags {
    /// Only these pages; without any, every page that has a block for the place
    pages: Vec<PathBuf>,

    /// Which blocks: those that need no more than processes, those for Docker, or those for a cluster
    #[arg(long, value_name = "PLACE", default_value = "processes")]
    on: Place,

    /// The lesson's `shell` image, for the pages as $SHELL_IMAGE; anything with bash and curl in it
    #[arg(long, value_name = "IMAGE", default_value = "almalinux:9-minimal")]
    shell_image: String,

    /// Tag of our images, for the pages as $TAG
    #[arg(long, value_name = "TAG", default_value = "dev")]
    tag: String,

    /// Run the binaries in DIR instead of building them
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,

    /// Already in a network of its own
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    let flags: Flags = match lifecycle::cli::parse(&LABS) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    lifecycle::exit::report(&LABS, lifecycle::cli::TERMINATION_LOG.as_ref(), labs(&flags))
}

fn labs(flags: &Flags) -> Result<(), Failure> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().or_exit(Exit::Io)?;
    let pages = chosen(flags, &repository)?;
    // Asked for before anything is built: a build may replace this very file, and what is asked for later is what was there.
    let own = std::env::current_exe().or_exit(Exit::Internal)?;
    let binaries = binaries(flags, &own, &repository)?;
    if flags.on == Place::Processes && !flags.inside {
        move_to_a_network_of_our_own(&own, &binaries);
    }
    descendants::adopt().or_exit(Exit::Internal)?;
    end_all_when_interrupted().or_exit(Exit::Internal)?;

    let mut failed = 0;
    for (page, blocks) in &pages {
        if interrupted().is_some() {
            break;
        }
        let name = page.strip_prefix(&repository).unwrap_or(page).display();
        let begun = Instant::now();
        match follow(flags, blocks, &repository, &binaries) {
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
    if let Some(code) = interrupted() {
        // As shells write "ended by signal n".
        std::process::exit(code);
    }
    say(format_args!("{} passed, {failed} failed", pages.len() - failed));
    if failed > 0 {
        return Err(Failure::new(Exit::Internal, format!("{failed} of {} pages failed", pages.len())));
    }
    Ok(())
}

/// One page in a workspace of its own, and nothing of it left afterwards.
fn follow(flags: &Flags, blocks: &[Block], repository: &Path, binaries: &Path) -> Result<usize, String> {
    let workspace = Workspace::create(repository, binaries).map_err(|error| error.to_string())?;
    let project = format!("{}{}", containers::PREFIX, std::process::id());
    let environment: Vec<(String, OsString)> =
        [("SHELL_IMAGE", &flags.shell_image), ("TAG", &flags.tag), ("COMPOSE_PROJECT_NAME", &project)]
            .map(|(name, value)| (name.to_owned(), value.into()))
            .into();
    let before = containers::Present::of(flags.on).map_err(|error| error.to_string())?;
    let outcome = run::page(blocks, flags.on, &workspace, &environment).map_err(|why| why.to_string());
    descendants::end_all();
    let left = before.remove_newer().map_err(|error| error.to_string())?;
    match (outcome, left.is_empty()) {
        (Ok(_), false) => Err(format!("at the end of the page there still were: {}", left.join(", "))),
        (outcome, _) => outcome,
    }
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

/// The folder of the built binaries; where cargo runs us, they are first brought up to date.
fn binaries(flags: &Flags, own: &Path, repository: &Path) -> Result<PathBuf, Failure> {
    if let Some(dir) = &flags.binaries {
        return dir.canonicalize().or_exit(Exit::Refused);
    }
    let dir = own.parent().unwrap_or(Path::new("."));
    if let (Some(cargo), false) = (std::env::var_os("CARGO"), flags.inside) {
        let profile = match dir.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(folder) => folder,
        };
        let mut build = plain(Path::new(&cargo));
        build
            .args(["build", "--quiet", "--workspace", "--bins", "--profile", profile])
            .current_dir(repository);
        if !build.status().or_exit(Exit::Internal)?.success() {
            return Err(Failure::new(Exit::Internal, "cargo build failed"));
        }
    }
    Ok(dir.to_owned())
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

/// The exit code to end with, once somebody has pressed Ctrl-C.
fn interrupted() -> Option<i32> {
    match SIGNAL.load(Ordering::SeqCst) {
        0 => None,
        number => Some(128 + number),
    }
}

/// What runs for a page does not outlive us: its commands end, the page fails, and what it has left is removed as after any other.
fn end_all_when_interrupted() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        let number = runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => 2, _ = terminate.recv() => 15 }
        });
        SIGNAL.store(number, Ordering::SeqCst);
        say(format_args!("labs: interrupted; ending what runs"));
        descendants::end_all();
    });
    Ok(())
}

/// What came of the pages is this program's product, and goes to stdout. Where nobody reads it there is nobody to tell.
fn say(line: std::fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}
