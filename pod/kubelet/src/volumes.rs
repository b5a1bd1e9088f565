//! The folder that holds the Pod's volumes: gone with the Pod, unless its user wants to look around.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use lifecycle::exit::{Exit, Failure, OrExit as _};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::downward::Downward;
use crate::flags::Flags;
use crate::proc::{arguments, is_own};
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
    /// Locked where the file system has locks, as long as the descriptor is open: two Pods in one folder would publish and log over
    /// each other.
    Kept {
        dir: PathBuf,
        _lock: File,
    },
}

impl VolumesDir {
    /// Makes the folder, and the volumes in it.
    pub(crate) fn create(
        flags: &Flags,
        watcher: &Watcher,
        terminal: &Terminal,
    ) -> Result<(Self, Volumes), Failure> {
        let dir = match &flags.keep_dir {
            Some(Some(dir)) => Self::keep(folder(dir).or_exit(Exit::Io)?, terminal)?,
            Some(None) => Self::keep(temporary("pod-").or_exit(Exit::Io)?.keep(), terminal)?,
            None => Self::Temporary(temporary(&own_prefix(std::process::id())).or_exit(Exit::Io)?),
        };
        if let Self::Temporary(dir) = &dir {
            watcher.remove_after(dir.path());
        }
        if dir.path().to_str().is_none() {
            let reason = "not a path in UTF-8, which log-agent's patterns must be; name another folder with --keep-dir=DIR";
            return Err(Failure::new(Exit::Refused, format!("{}: {reason}", dir.path().display())));
        }
        let volumes = Volumes::create_in(dir.path());
        let volumes = volumes.with_context(|| format!("cannot make the volumes in {}", dir.path().display()));
        Ok((dir, volumes.or_exit(Exit::Io)?))
    }

    fn keep(dir: PathBuf, terminal: &Terminal) -> Result<Self, Failure> {
        let place = || format!("--keep-dir={}", dir.display());
        let opened = File::open(&dir).with_context(place).or_exit(Exit::Io)?;
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let reason = "another demo keeps its volumes here; end that one, or name another folder";
                return Err(Failure::new(Exit::Unavailable, format!("{}: {reason}", place())));
            }
            // Not every file system has locks.
            Err(error) => {
                let warning = format!("{}: cannot lock it ({error}): start no other demo here", place());
                terminal.say(Speaker::POD, &warning);
            }
        }
        Ok(Self::Kept { dir, _lock: opened })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Kept { dir, .. } => dir,
        }
    }

    /// Removes the folder, or says where it is.
    pub(crate) fn leave(self, terminal: &Terminal) {
        match self {
            Self::Kept { dir, .. } => {
                terminal.say(Speaker::POD, &format!("the volumes are in {}", dir.display()));
            }
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

fn temporary(prefix: &str) -> anyhow::Result<TempDir> {
    let place = std::env::temp_dir();
    let made = tempfile::Builder::new().prefix(prefix).tempdir();
    made.with_context(|| format!("cannot make a folder for the volumes in {}", place.display()))
}

/// How the name of a temporary folder begins, by the kubelet that has made it.
fn own_prefix(kubelet: impl std::fmt::Display) -> String {
    format!("pod-{kubelet}-")
}

/// The temporary folder of a kubelet that was killed, where it is still there: what the arguments of its containers name.
///
/// SECURITY: in a shared temporary folder, any user can make a folder of this name, and an older kubelet may have had the same
/// process id. The person is told to remove only what is this user's, and in use by the processes that are to be killed as well.
pub(crate) fn left_by(kubelet: i32, containers: &[i32]) -> Option<PathBuf> {
    let prefix = own_prefix(kubelet);
    let is_its = |name: &OsStr| name.as_bytes().starts_with(prefix.as_bytes());
    let arguments: Vec<_> = containers.iter().flat_map(|pid| arguments(*pid)).collect();
    let mut folders = arguments.iter().filter_map(|argument| {
        Path::new(argument).ancestors().find(|folder| folder.file_name().is_some_and(is_its))
    });
    let is_own_folder =
        |folder: &Path| folder.symlink_metadata().is_ok_and(|data| data.is_dir() && is_own(&data));
    folders.find(|folder| is_own_folder(folder)).map(Path::to_owned)
}
