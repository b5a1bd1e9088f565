//! A container's binary as a child process, killed when the test lets go of it.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::Value;

use crate::wait::{eventually, wait_until};

/// A running binary. Its diagnostics are read as JSON, which is how a test learns ports and events.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

/// What a pipe has brought so far.
#[derive(Debug)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// Reads the pipe to its end, on a thread of its own.
    pub fn of(pipe: impl Read + Send + 'static) -> Self {
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let into = Arc::clone(&lines);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(pipe);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                into.lock().push(text);
                line.clear();
            }
        });
        Self(lines)
    }

    /// All lines so far.
    pub fn so_far(&self) -> Vec<String> {
        self.0.lock().clone()
    }

    /// Whether the pipe is at its end: its thread holds the list until then.
    fn are_complete(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Process {
    /// Starts `binary` with `args`, JSON diagnostics and an admin server on a free port.
    #[track_caller]
    pub fn start<S: AsRef<OsStr>>(binary: impl AsRef<Path>, args: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(binary.as_ref());
        command.args(args);
        Self::start_command(command)
    }

    /// Starts a command that the test has prepared: its own environment, directory or limits.
    #[track_caller]
    pub fn start_command(mut command: Command) -> Self {
        command.args(["--log-format", "json", "--admin-addr", "127.0.0.1:0"]);
        Self::start_as_is(command)
    }

    /// Starts a command without adding anything: for subcommands, wrong flags and tests of the flags themselves.
    #[track_caller]
    pub fn start_as_is(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = Lines::of(child.stdout.take().expect("stdout is piped"));
        let stderr = Lines::of(child.stderr.take().expect("stderr is piped"));
        Self { child, stdout, stderr }
    }

    /// Starts a command whose stdout and stderr the test has chosen. Neither is read here.
    #[track_caller]
    pub fn start_unread(mut command: Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, stdout: Lines::of(std::io::empty()), stderr: Lines::of(std::io::empty()) }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The address that the listener called `role` is bound to, as soon as the log says so.
    #[track_caller]
    pub fn addr(&self, role: &str) -> SocketAddr {
        let event = self.event(&format!("listening as {role}"), |event| {
            event["message"] == "listening" && event["listener"] == role
        });
        event["addr"].as_str().and_then(|addr| addr.parse().ok()).expect("the event carries an address")
    }

    /// The first diagnostic for which `matches` holds, as soon as it is there.
    #[track_caller]
    pub fn event(&self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || self.events().into_iter().find(|event| matches(event)))
    }

    /// All diagnostics so far.
    pub fn events(&self) -> Vec<Value> {
        self.stderr.so_far().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Everything on stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.so_far().join("\n")
    }

    /// All lines on stdout so far.
    pub fn stdout_lines(&self) -> Vec<String> {
        self.stdout.so_far()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a process id"), signal)
            .expect("the process is there to be signalled");
    }

    /// SIGTERM, then the exit status and everything that was printed.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// SIGKILL, and the process is gone.
    #[track_caller]
    pub fn kill(&mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process can be waited for");
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it can be waited for").is_some()
    }

    /// Waits for the process to end by itself, and for its output to be complete.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let id = self.id();
        let status = eventually(&format!("process {id} ends"), || {
            self.child.try_wait().expect("it can be waited for")
        });
        wait_until("its output is complete", || self.stdout.are_complete() && self.stderr.are_complete());
        status
    }

    /// CPU time so far in clock ticks of 10 ms; see [`cpu_time`].
    #[track_caller]
    pub fn cpu_ticks(&self) -> u64 {
        u64::try_from(cpu_time(self.id()).as_millis() / 10).expect("less than an age")
    }

    /// Resident memory in bytes; see [`resident_bytes`].
    #[track_caller]
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            // What the process said is half of why the test failed; the harness shows it with the failure.
            println!("process {} said:\n{}", self.id(), self.stderr());
        }
    }
}

/// Resident memory of a process in bytes, as the kernel counts it (`VmRSS` in proc(5)): none once it has ended and its parent has not
/// waited for it yet.
#[track_caller]
pub fn resident_bytes(pid: u32) -> u64 {
    memory(pid, "VmRSS:")
}

/// Resident memory that no file backs, in bytes (`RssAnon` in proc(5)): what a process takes besides its program, which is several times
/// as large in a test's build as in a release.
#[track_caller]
pub fn anonymous_bytes(pid: u32) -> u64 {
    memory(pid, "RssAnon:")
}

#[track_caller]
fn memory(pid: u32, kind: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is running");
    let Some(line) = status.lines().find(|line| line.starts_with(kind)) else { return 0 };
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("it is in KiB");
    kib * 1024
}

/// CPU time of a process so far, user and system (`utime` and `stime` in proc(5), in hundredths of a second).
#[track_caller]
pub fn cpu_time(pid: u32) -> Duration {
    let fields = stat(pid).expect("the process is running");
    let ticks = [&fields[11], &fields[12]].map(|ticks| ticks.parse::<u64>().expect("a number"));
    Duration::from_millis(10 * (ticks[0] + ticks[1]))
}

/// The fields of /proc/PID/stat after the name (proc(5)): the state is the first, the parent the second.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// Whether no such process runs. A zombie does not: where PID 1 waits for no orphan, as in a container without an init, an orphan stays
/// one.
pub fn is_gone(pid: u32) -> bool {
    stat(pid).is_none_or(|fields| fields[0] == "Z")
}

/// The processes that this process has started, and that run.
pub fn children(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is there").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parent = parent.to_string();
    pids.filter(|pid| stat(*pid).is_some_and(|fields| fields[0] != "Z" && fields[1] == parent)).collect()
}

/// Runs a command to its end: exit code, stdout and stderr.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(
    binary: impl AsRef<Path>,
    args: impl IntoIterator<Item = S>,
) -> (i32, String, String) {
    let mut command = Command::new(binary.as_ref());
    command.args(args);
    let mut process = Process::start_as_is(command);
    let status = process.wait();
    let code = status.code().unwrap_or_else(|| panic!("ended by a signal: {status}"));
    (code, process.stdout_lines().join("\n"), process.stderr())
}

/// A program's README has each flag of its `--help`, in backquotes.
#[track_caller]
pub fn assert_documents_all_flags(readme: &str, binary: impl AsRef<Path>, command: &[&str]) {
    let (_, help, _) = run(binary, command.iter().chain(&["--help"]));
    let flags = help.lines().filter_map(|line| {
        let names = line
            .trim_start()
            .split([' ', ',', '[', '='])
            .take_while(|word| word.is_empty() || word.starts_with('-'));
        names.filter(|word| word.starts_with("--")).last()
    });
    // Every program has these two, and says so itself.
    let flags = flags.filter(|flag| !["--help", "--version"].contains(flag));
    let missing: Vec<_> = flags.filter(|flag| !readme.contains(&format!("`{flag}`"))).collect();
    assert!(missing.is_empty(), "not in the README: {missing:?}");
}

/// Cargo, without what the cargo that runs this test has told it about its own package. Some build scripts read those
/// variables, and would run again, with all that depends on them, whenever one differs from the last build's.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let of_a_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_a_package)) {
        command.env_remove(name);
    }
    command
}
