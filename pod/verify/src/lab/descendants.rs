//! Every process that a page has started, and their end.
//!
//! What a command leaves behind is adopted by this process instead of by the machine's first, so that it can be found and
//! ended by its id, whatever it calls itself and wherever it has gone.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use lifecycle::Ignore as _;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};

/// How long something may take that was asked to stop.
const TIMEOUT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);

/// From now on, what our children leave behind is ours.
pub fn adopt() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// The processes that this one has started itself.
pub fn children(parent: Pid) -> Vec<Pid> {
    let parent = parent.as_raw_nonzero().get();
    living().into_iter().filter(|(_, of)| *of == parent).filter_map(|(pid, _)| Pid::from_raw(pid)).collect()
}

/// All processes beneath us that run, nearest first: those that have ended and wait to be asked are not among them.
pub fn all() -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for (pid, parent) in living() {
        children.entry(parent).or_default().push(pid);
    }
    let mut found = vec![getpid().as_raw_nonzero().get()];
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        next += 1;
        found.extend(children.remove(parent).unwrap_or_default());
    }
    found.into_iter().skip(1).filter_map(Pid::from_raw).collect()
}

/// What a process is called, for a person.
pub fn command_line(pid: Pid) -> String {
    let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
}

/// Ends them: asks, waits, and does not ask again. Returns when none is left.
pub fn end_all() {
    for (signal, limit) in [(Signal::TERM, TIMEOUT), (Signal::KILL, TIMEOUT)] {
        let asked = Instant::now();
        for pid in all() {
            // An error means that the process has ended by itself meanwhile, which is what is wanted.
            kill_process(pid, signal).ignore();
        }
        while asked.elapsed() < limit {
            reap();
            if all().is_empty() {
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Reaps the adopted processes that have ended: this process is their parent now.
fn reap() {
    while let Ok(Some(_)) = waitpid(None, WaitOptions::NOHANG) {}
}

/// Every process and its parent, zombies left out (`state` and `ppid` in proc_pid_stat(5)).
fn living() -> Vec<(i32, i32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut after_name = stat.rsplit(')').next()?.split_whitespace();
        let state = after_name.next()?;
        let parent = after_name.next()?.parse().ok()?;
        (state != "Z").then_some((pid, parent))
    })
    .collect()
}
