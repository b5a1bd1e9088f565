//! One process of a container: a child process, and everything that it says.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Pid;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::console::{Prefix, Stream};
use crate::spec::ContainerSpec;

/// How long the last lines of a dead container may take. They are in a pipe already, unless a child of its own still holds it.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A running container.
#[derive(Debug)]
pub(crate) struct ContainerProcess {
    child: Child,
    prefixes: Vec<JoinHandle<()>>,
}

impl ContainerProcess {
    /// Starts the container's process. It inherits nothing but what its declaration gives it: a variable that happens to
    /// be set in somebody's shell is no part of the Pod.
    ///
    /// # Errors
    /// As the system gives them.
    pub(crate) fn spawn(container: &ContainerSpec, prefix: &Prefix) -> io::Result<Self> {
        let mut child = Command::new(&container.binary)
            .args(&container.args)
            .env_clear()
            .envs(container.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        prefix.say(Stream::Stderr, &format!("[kubelet] started, pid {}", child.id().unwrap_or_default()));
        let stdout =
            child.stdout.take().map(|pipe| tokio::spawn(prefix.clone().repeat(pipe, Stream::Stdout)));
        let stderr =
            child.stderr.take().map(|pipe| tokio::spawn(prefix.clone().repeat(pipe, Stream::Stderr)));
        Ok(Self { child, prefixes: stdout.into_iter().chain(stderr).collect() })
    }

    /// Its process, unless that was waited for.
    pub(crate) fn pid(&self) -> Option<Pid> {
        self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }

    /// Until it ends by itself.
    ///
    /// # Errors
    /// As the system gives them.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends it.
    ///
    /// # Errors
    /// As the system gives them.
    pub(crate) async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Repeats what it had said last.
    pub(crate) async fn finish(self) {
        for prefix in self.prefixes {
            // Longer than that, and somebody else holds the pipe.
            drop(tokio::time::timeout(LAST_LINES, prefix).await);
        }
    }
}
