//! One process of a container, from its start to its last line.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lifecycle::Ignore as _;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::log_line;
use crate::proc::KUBELET_PID;
use crate::spec::ContainerSpec;
use crate::terminal::{Speaker, Terminal};

/// How long the last lines of a dead container may take. They are in a pipe already, unless a child of its own still holds it.
const LAST_LINES: Duration = Duration::from_secs(1);
/// How many times as long a reader of this program's stdout may take for the last records, as long as it takes some of them.
const LAST_RECORDS: u32 = 10;
/// How many bytes of records are passed on at once. A reader that takes less within [`LAST_LINES`] counts as one that hangs.
const CHUNK: usize = 8 << 10;

/// A running container.
#[derive(Debug)]
pub(crate) struct ContainerProcess {
    child: Child,
    records: Option<JoinHandle<()>>,
    diagnostics: Option<JoinHandle<()>>,
    /// How many chunks of its records were taken.
    shipped: Arc<AtomicU64>,
    last_line: Arc<Mutex<String>>,
}

impl ContainerProcess {
    /// Starts the container's process, in a process group of its own. It inherits nothing but what its declaration gives it:
    /// a variable that happens to be set in a person's shell is no part of the Pod. [`KUBELET_PID`] is the mark of what a kubelet
    /// has started.
    pub(crate) fn spawn(container: &ContainerSpec, terminal: &Arc<Terminal>) -> io::Result<Self> {
        let mut child = Command::new(&container.binary)
            .args(&container.args)
            .env_clear()
            .envs(container.env.iter().map(|(name, value)| (name, value)))
            .env(KUBELET_PID, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let last_line = Arc::<Mutex<String>>::default();
        let shipped = Arc::<AtomicU64>::default();
        let records = child.stdout.take();
        let records =
            records.map(|pipe| tokio::spawn(ship(pipe, Arc::clone(terminal), Arc::clone(&shipped))));
        let speaker = Speaker::container(container.name);
        let diagnostics = child
            .stderr
            .take()
            .map(|pipe| tokio::spawn(repeat(pipe, speaker, Arc::clone(terminal), Arc::clone(&last_line))));
        Ok(Self { child, records, diagnostics, shipped, last_line })
    }

    /// Its process id, until its end was waited for.
    pub(crate) fn pid(&self) -> Option<Pid> {
        self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }

    /// Waits until it ends.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        if let Some(pid) = self.pid() {
            // An error means that it has ended by itself in this very moment, which is what was wanted.
            kill_process(pid, Signal::TERM).ignore();
        }
    }

    /// Sends SIGKILL, and waits until it has ended.
    pub(crate) async fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.start_kill()?;
        self.child.wait().await
    }

    /// Waits for what it has printed last, and returns its last line of diagnostics. The wait is short once the Pod is to be killed.
    pub(crate) async fn last_line(self, kill: &CancellationToken) -> String {
        if let Some(mut records) = self.records {
            for _ in 0..LAST_RECORDS {
                let before = self.shipped.load(Ordering::Relaxed);
                let ended = tokio::time::timeout(LAST_LINES, &mut records).await.is_ok();
                // Nothing was taken: the reader hangs, or another process holds the pipe.
                if ended || self.shipped.load(Ordering::Relaxed) == before || kill.is_cancelled() {
                    break;
                }
            }
        }
        if let Some(diagnostics) = self.diagnostics {
            // Longer than that, and another process holds the pipe.
            tokio::time::timeout(LAST_LINES, diagnostics).await.ignore();
        }
        self.last_line.lock().clone()
    }
}

/// Shows a container's diagnostics until they end.
async fn repeat(
    pipe: impl AsyncRead + Unpin,
    speaker: Speaker,
    terminal: Arc<Terminal>,
    last: Arc<Mutex<String>>,
) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    // An error of a pipe is its end.
    while reader.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if let Some(shown) = log_line::shown(&text, terminal.detail) {
            terminal.say(speaker, &shown);
        }
        *last.lock() = text;
        line.clear();
    }
}

/// Passes on records, in whole lines, as fast as they are taken: a reader of this program's stdout that is slow slows log-agent
/// down, and nothing else.
async fn ship(mut pipe: impl AsyncRead + Unpin, terminal: Arc<Terminal>, shipped: Arc<AtomicU64>) {
    let mut records = Vec::with_capacity(CHUNK);
    // An error of a pipe is its end.
    while pipe.read_buf(&mut records).await.is_ok_and(|read| read > 0) {
        if let Some(end) = records.iter().rposition(|byte| *byte == b'\n') {
            let rest = records.split_off(end + 1);
            let whole = std::mem::replace(&mut records, rest);
            let terminal = Arc::clone(&terminal);
            lifecycle::blocking(move || terminal.ship(&whole)).await;
            shipped.fetch_add(1, Ordering::Relaxed);
            records.reserve(CHUNK);
        }
    }
    lifecycle::blocking(move || terminal.ship(&records)).await;
}
