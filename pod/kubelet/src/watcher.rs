//! Nothing outlives the Pod, not even when the kubelet itself is killed.
//!
//! SIGKILL gives the kubelet no time to stop its containers. So it starts a second process of this program, which does
//! nothing but read a pipe. Through the pipe the kubelet names what there is to clean up; the pipe's end without a farewell
//! means that the kubelet is dead, and then the watcher ends the containers and removes the temporary folder.

use std::io::{self, BufRead, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lifecycle::Ignore as _;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The argument that makes this program the watcher.
pub(crate) const ARGUMENT: &str = "watch-over-kubelet";
/// The last word of a kubelet that has cleaned up itself.
const FAREWELL: &str = "done";
/// How long a container may take to stop, after SIGTERM and after SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// The kubelet's end of the pipe. The last clone to be dropped says farewell.
#[derive(Debug, Clone)]
pub(crate) struct Watcher(Arc<Mutex<Child>>);

impl Watcher {
    /// Starts the watcher, out of reach of the terminal's Ctrl-C.
    pub(crate) fn start() -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let watcher = command.process_group(0).spawn()?;
        Ok(Self(Arc::new(Mutex::new(watcher))))
    }

    /// A container's process has been started.
    pub(crate) fn guard(&self, pid: Pid) {
        self.write(&format!("pid {}", pid.as_raw_nonzero()));
    }

    /// A temporary folder has been made.
    pub(crate) fn remove_after(&self, folder: &Path) {
        self.write(&format!("folder {}", folder.display()));
    }

    fn write(&self, line: &str) {
        if let Some(pipe) = &mut self.0.lock().stdin {
            // A watcher that was killed watches no more. The Pod runs on without it.
            writeln!(pipe, "{line}").ignore();
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
pub(crate) fn run(lines: impl BufRead) {
    let mut containers: Vec<OwnedFd> = Vec::new();
    let mut folder: Option<PathBuf> = None;
    // An error of the pipe is its end.
    for line in lines.lines().map_while(Result::ok) {
        match line.split_once(' ') {
            Some(("pid", pid)) => {
                containers.retain(|container| !ends_within(container, Duration::ZERO));
                let pid = pid.parse().ok().and_then(Pid::from_raw);
                // A descriptor, because a number may be another process's by the time that it is used. An error means that the
                // process has ended already.
                containers.extend(pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()));
            }
            Some(("folder", path)) => folder = Some(path.into()),
            _ if line == FAREWELL => return,
            _ => {}
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

    #[test]
    fn without_a_farewell_everything_is_cleaned_up_and_with_one_nothing_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (left, kept) = (dir.path().join("left"), dir.path().join("kept"));
        std::fs::create_dir_all(left.join("content")).unwrap();
        std::fs::create_dir(&kept).unwrap();
        let (mut container, mut other) = (sleeper(), sleeper());

        run(format!("folder {}\npid {}\n{FAREWELL}\n", kept.display(), other.id()).as_bytes());
        assert!(kept.exists() && other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();

        run(format!("pid {}\nfolder {}\npid {}\n", other.id(), left.display(), container.id()).as_bytes());
        assert!(!left.exists());
        assert!(container.wait().unwrap().to_string().contains("15"));
    }
}
