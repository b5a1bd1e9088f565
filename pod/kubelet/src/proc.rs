//! Processes of this machine, as far as /proc tells this user (proc(5)).

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use rustix::process::geteuid;

/// The variable in the environment of every process that a kubelet starts: the kubelet's process id. It tells whose they are when the
/// kubelet is gone.
pub(crate) const KUBELET_PID: &str = "KUBELET_PID";

/// All process ids.
pub(crate) fn processes() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The program's name, as the kernel has it.
pub(crate) fn program(pid: i32) -> Option<String> {
    Some(std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned())
}

/// The fields of /proc/PID/stat after the name: the state is the first, the parent the second, the process group the third.
pub(crate) fn stat(pid: i32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// The kubelet of this user that has started the process.
pub(crate) fn kubelet_of(pid: i32) -> Option<i32> {
    // SECURITY: root can read every environment, and the process of another user can have any.
    let process = std::fs::metadata(format!("/proc/{pid}")).ok()?;
    if !is_own(&process) {
        return None;
    }
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let environment = String::from_utf8_lossy(&environment);
    let mut variables = environment.split('\0').filter_map(|variable| variable.split_once('='));
    variables.find(|(name, _)| *name == KUBELET_PID)?.1.parse().ok()
}

/// The arguments that the process was started with.
pub(crate) fn arguments(pid: i32) -> Vec<OsString> {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments.split(|byte| *byte == 0).map(|argument| OsString::from_vec(argument.to_vec())).collect()
}

/// Whether a file, or a process's folder in /proc, is this user's.
pub(crate) fn is_own(data: &Metadata) -> bool {
    data.uid() == geteuid().as_raw()
}

/// How long the process has been running: both numbers count from the boot.
pub(crate) fn age(pid: i32) -> Option<Duration> {
    let ticks: u64 = stat(pid)?.get(19)?.parse().ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
    let started = Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second());
    Some(Duration::from_secs_f64(uptime).saturating_sub(started))
}
