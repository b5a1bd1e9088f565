//! The folder that holds the Pod's volumes: gone with the Pod, unless its user wants to look around.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use lifecycle::exit::{Exit, Failure, OrExit as _};
use tempfile::TempDir;

use crate::downward::Downward;
use crate::flags::Flags;
use crate::terminal::{Speaker, Terminal};
use crate::watcher::Watcher;

/// The folders that stand for the Pod's volumes.
#[derive(Debug, Clone)]
pub(crate) struct Volumes {
    /// Written by file-puller, read by web-server.
    pub(crate) content: PathBuf,
    /// Written by web-server, read by log-agent.
    pub(crate) logs: PathBuf,
    /// log-agent's own: how far it has come.
    pub(crate) state: PathBuf,
    /// What the kubelet tells the containers about their Pod.
    pub(crate) podinfo: Downward,
}

impl Volumes {
    fn create_in(dir: &Path) -> io::Result<Self> {
        let podinfo = Downward::create_in(&dir.join("podinfo"))?;
        let volumes =
            Self { content: dir.join("content"), logs: dir.join("logs"), state: dir.join("state"), podinfo };
        for volume in [&volumes.content, &volumes.logs, &volumes.state] {
            std::fs::create_dir_all(volume)?;
        }
        Ok(volumes)
    }
}

/// Where the volumes are, and what becomes of them.
pub(crate) enum VolumesDir {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl VolumesDir {
    /// Makes the folder, and the volumes in it.
    pub(crate) fn create(flags: &Flags, watcher: &Watcher) -> Result<(Self, Volumes), Failure> {
        let dir = match &flags.keep_dir {
            Some(Some(dir)) => Self::Kept(folder(dir).or_exit(Exit::Io)?),
            Some(None) => Self::Kept(temporary().or_exit(Exit::Io)?.keep()),
            None => Self::Temporary(temporary().or_exit(Exit::Io)?),
        };
        if let Self::Temporary(dir) = &dir {
            watcher.remove_after(dir.path());
        }
        let volumes = Volumes::create_in(dir.path());
        let volumes = volumes.with_context(|| format!("cannot make the volumes in {}", dir.path().display()));
        Ok((dir, volumes.or_exit(Exit::Io)?))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Kept(dir) => dir,
        }
    }

    /// Removes the folder, or says where it is.
    pub(crate) fn leave(self, terminal: &Terminal) {
        match self {
            Self::Kept(dir) => terminal.say(Speaker::POD, &format!("the volumes are in {}", dir.display())),
            Self::Temporary(dir) => {
                let path = dir.path().to_owned();
                if let Err(error) = dir.close() {
                    terminal.say(Speaker::POD, &format!("cannot remove {}: {error}", path.display()));
                }
            }
        }
    }
}

fn folder(dir: &Path) -> anyhow::Result<PathBuf> {
    let made = std::fs::create_dir_all(dir).and_then(|()| dir.canonicalize());
    made.with_context(|| {
        let problem = if dir.is_file() { "this is a file, not a folder" } else { "cannot make this folder" };
        format!("--keep-dir={}: {problem}", dir.display())
    })
}

fn temporary() -> anyhow::Result<TempDir> {
    let place = std::env::temp_dir();
    let made = tempfile::Builder::new().prefix("pod-").tempdir();
    made.with_context(|| format!("cannot make a folder for the volumes in {}", place.display()))
}
