//! Where the three binaries are: built now by the cargo that runs us, or found where the caller says.

use std::path::{Path, PathBuf};
use std::process::Command;

use lifecycle::exit::{Exit, Failure};

/// The packages, which are also the binaries.
pub const BINARIES: [&str; 3] = ["file-puller", "web-server", "log-agent"];

/// A directory that holds all three binaries.
#[derive(Debug, Clone)]
pub struct Binaries(PathBuf);

impl Binaries {
    /// Those in `dir`, as they are.
    ///
    /// # Errors
    /// Exit code 78, naming the one that is missing.
    pub fn in_dir(dir: &Path) -> Result<Self, Failure> {
        match BINARIES.iter().find(|name| !dir.join(name).is_file()) {
            None => Ok(Self(dir.to_owned())),
            Some(name) => Err(Failure::new(
                Exit::Refused,
                format!("no {name} in {}: build it with `cargo build`, or run `cargo demo`", dir.display()),
            )),
        }
    }

    /// Those beside this executable, which are first brought up to date where cargo runs us.
    ///
    /// # Errors
    /// Exit code 70 where the build fails; cargo has then said why.
    pub fn beside_this_one() -> Result<Self, Failure> {
        let own = std::env::current_exe().map_err(|error| {
            Failure::new(Exit::Internal, format!("cannot tell where this program is: {error}"))
        })?;
        let dir = own.parent().unwrap_or(Path::new("."));
        if let Some(cargo) = std::env::var_os("CARGO") {
            build(Path::new(&cargo), dir)?;
        }
        Self::in_dir(dir)
    }

    /// One of them.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// Cargo, without what the cargo that runs this program has told it of its own package. Some dependencies' build scripts look at
/// those variables; where they differ from one build to the next, they are built anew, with all that stands on them.
pub fn plain(cargo: &Path) -> Command {
    let mut command = Command::new(cargo);
    for (name, _) in std::env::vars_os() {
        let of_a_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(of_a_package) {
            command.env_remove(name);
        }
    }
    command
}

/// Builds with the profile that built this program: `target/<profile>/pod`, where the folder of `dev` is `debug`.
fn build(cargo: &Path, dir: &Path) -> Result<(), Failure> {
    let folder = dir.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
    let profile = if folder == "debug" { "dev" } else { folder };
    let mut command = plain(cargo);
    command.args(["build", "--profile", profile]).args(BINARIES.iter().flat_map(|name| ["--package", name]));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(Exit::Internal, format!("cargo build failed: {status}"))),
        Err(error) => Err(Failure::new(Exit::Internal, format!("cannot run {}: {error}", cargo.display()))),
    }
}
