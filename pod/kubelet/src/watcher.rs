//! Nothing outlives the Pod, not even when the kubelet itself is killed.
//!
//! SIGKILL gives the kubelet no time to stop its containers. So it starts a second process of this program, which does
//! nothing but read a pipe. Through the pipe the kubelet names what there is to clean up; the pipe's end without a farewell
//! means that the kubelet is dead, and then the watcher ends the containers and removes the temporary folder.
//!
//! Each message ends in a NUL, which no path can hold.

use std::ffi::OsString;
use std::io::{self, BufRead, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lifecycle::Ignore as _;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::proc::KUBELET_PID;

/// The argument that makes this program the watcher.
pub(crate) const ARGUMENT: &str = "watch-over-pod";
/// The watcher's name among all processes. It is not this program's, so that `pkill -9 kubelet` leaves the watcher to clean up.
pub(crate) const NAME: &str = "pod-watcher";
/// The last message of a kubelet that has cleaned up itself.
const FAREWELL: &[u8] = b"done";
/// How long a container may take to stop, after SIGTERM and after SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// The kubelet's end of the pipe. The last clone to be dropped says farewell.
#[derive(Debug, Clone)]
pub(crate) struct Watcher(Arc<Mutex<Child>>);

impl Watcher {
    /// Starts the watcher, out of reach of the terminal's Ctrl-C.
    pub(crate) fn start() -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg0(NAME).arg(ARGUMENT).env(KUBELET_PID, std::process::id().to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let watcher = command.process_group(0).spawn()?;
        Ok(Self(Arc::new(Mutex::new(watcher))))
    }

    /// A container's process has been started.
    pub(crate) fn guard(&self, pid: Pid) {
        self.write(format!("pid {}", pid.as_raw_nonzero()).as_bytes());
    }

    /// A temporary folder has been made.
    pub(crate) fn remove_after(&self, folder: &Path) {
        self.write(&[b"folder ", folder.as_os_str().as_bytes()].concat());
    }

    fn write(&self, message: &[u8]) {
        if let Some(pipe) = &mut self.0.lock().stdin {
            // A watcher that was killed watches no more. The Pod runs on without it.
            pipe.write_all(&[message, b"\0"].concat()).ignore();
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if Arc::strong_count(&self.0) == 1 {
            self.write(FAREWELL);
            // Its own child can always be waited for.
            self.0.lock().wait().ignore();
        }
    }
}

/// The watcher's `main`.
pub(crate) fn run(messages: impl BufRead) {
    // Without a name of its own it watches as well; it is only found more easily.
    std::fs::write("/proc/self/comm", NAME).ignore();
    clean_up(messages);
}

fn clean_up(messages: impl BufRead) {
    let mut containers: Vec<OwnedFd> = Vec::new();
    let mut folder: Option<PathBuf> = None;
    // An error of the pipe is its end.
    for message in messages.split(0).map_while(Result::ok) {
        if message == FAREWELL {
            return;
        }
        if let Some(path) = message.strip_prefix(b"folder ") {
            folder = Some(OsString::from_vec(path.to_vec()).into());
        }
        if let Some(pid) = message.strip_prefix(b"pid ") {
            containers.retain(|container| !ends_within(container, Duration::ZERO));
            let pid = std::str::from_utf8(pid).ok().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
            // A descriptor, because a number may be another process's by the time that it is used. An error means that the
            // process has ended already.
            containers.extend(pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()));
        }
    }
    // As in the Pod's own order: the last one that was started stops first.
    for container in containers.iter().rev() {
        for signal in [Signal::TERM, Signal::KILL] {
            // An error means that it has ended already.
            pidfd_send_signal(container, signal).ignore();
            if ends_within(container, GRACE) {
                break;
            }
        }
    }
    if let Some(folder) = folder {
        // No kubelet is left to tell.
        std::fs::remove_dir_all(folder).ignore();
    }
}

/// Whether the process ends within that time; its descriptor is readable then (pidfd_open(2)).
fn ends_within(process: &OwnedFd, time: Duration) -> bool {
    let timeout = Timespec::try_from(time).ok();
    poll(&mut [PollFd::new(process, PollFlags::IN)], timeout.as_ref()).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").spawn().unwrap()
    }

    /// As the kubelet sends them.
    fn messages(messages: &[String]) -> Vec<u8> {
        messages.iter().flat_map(|message| [message.as_bytes(), b"\0"].concat()).collect()
    }

    /// The folder's name has a newline, and what is before it is the name of another folder.
    #[test]
    fn without_a_farewell_everything_is_cleaned_up_and_with_one_nothing_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (left, kept) = (dir.path().join("kept\nleft"), dir.path().join("kept"));
        std::fs::create_dir_all(left.join("content")).unwrap();
        std::fs::create_dir(&kept).unwrap();
        let (mut container, mut other) = (sleeper(), sleeper());
        let pid = |process: &Child| format!("pid {}", process.id());
        let folder = |folder: &Path| format!("folder {}", folder.display());

        clean_up(&messages(&[folder(&kept), pid(&other), "done".to_owned()])[..]);
        assert!(kept.exists() && other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();

        clean_up(&messages(&[pid(&other), folder(&left), pid(&container)])[..]);
        assert!(!left.exists() && kept.exists());
        assert!(container.wait().unwrap().to_string().contains("15"));
    }
}
