//! Where the three binaries are.

use std::path::{Path, PathBuf};

use lifecycle::exit::{Exit, Failure, OrExit as _};

/// The packages, which are also the binaries.
const BINARIES: [&str; 3] = ["file-puller", "web-server", "log-agent"];

/// A directory that holds all three binaries.
#[derive(Debug, Clone)]
pub(crate) struct Binaries(PathBuf);

impl Binaries {
    /// The binaries in `dir`, or in the folder of this program: cargo puts all of them there.
    pub(crate) fn find(dir: Option<&Path>) -> Result<Self, Failure> {
        let own = std::env::current_exe().or_exit(Exit::Internal)?;
        let dir = dir.or(own.parent()).unwrap_or(Path::new("."));
        match BINARIES.iter().find(|name| !dir.join(name).is_file()) {
            None => Ok(Self(dir.to_owned())),
            Some(name) => Err(Failure::new(
                Exit::Refused,
                format!("no {name} in {}: build it with `cargo build`, or run `cargo demo`", dir.display()),
            )),
        }
    }

    /// The path of one of them.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
