//! The Pod as child processes of the built `kubelet`, as an engine for the scenarios.
//!
//! Every Pod gets a loopback address of its own, as a Pod in a cluster gets an IP of its own. So each uses the ports
//! of the contract, and tests run in parallel.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use testkit::http::{Message, try_get};
use testkit::{Process, eventually, wait_until};
use verify::engine::{Engine, Name};

/// How long a demo that is asked twice may take.
const LAST_WAIT: Duration = Duration::from_secs(10);

/// A running `cargo demo` with a content manager that the test can take away.
pub(crate) struct Processes {
    pub(crate) ip: Ipv4Addr,
    pub(crate) dir: TempDir,
    pub(crate) demo: Mutex<Demo>,
    content_manager: Mutex<Option<Process>>,
}

impl Processes {
    /// Starts a Pod and waits until it serves.
    pub(crate) fn start(flags: &[&str]) -> Self {
        let pod = Self::start_without_content_manager(flags);
        pod.start_content_manager().expect("the content manager starts");
        pod.wait_until_it_serves();
        pod
    }

    /// Starts a Pod whose content manager is not there yet.
    pub(crate) fn start_without_content_manager(flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let content = dir.path().join("source");
        std::fs::create_dir(&content).expect("a content folder");
        std::fs::write(content.join("index.html"), "<!doctype html><html><p>hello</html>").expect("a page");
        let ip = fresh_address();
        let mut command = demo(ip, &dir.path().join("volumes"));
        command.arg("--source").arg(format!("http://{ip}:9880/manifest.json")).args(flags);
        let demo = Mutex::new(Demo::start(command));
        Self { ip, dir, demo, content_manager: Mutex::default() }
    }

    pub(crate) fn wait_until_it_serves(&self) {
        wait_until("the Pod serves", || self.get("/").is_ok_and(|answer| answer.status() == 200));
    }

    pub(crate) fn addr(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip.into(), port)
    }

    pub(crate) fn stderr(&self) -> String {
        self.demo.lock().expect("no holder panics").stderr()
    }

    /// The process id of a container's latest life.
    pub(crate) fn pid(&self, name: Name) -> Option<i32> {
        let stderr = self.stderr();
        let mut said = stderr.lines().rev().filter_map(|line| said_of(line, name.as_str()));
        said.find_map(|text| text.strip_prefix("started, pid ")).and_then(|pid| pid.parse().ok())
    }

    /// Ctrl-C, and everything is over.
    pub(crate) fn stop(&self) -> std::process::ExitStatus {
        let mut demo = self.demo.lock().expect("no holder panics");
        demo.signal(Signal::INT);
        demo.wait()
    }
}

/// A running `cargo demo`, which a failing test must not leave behind with its containers.
pub(crate) struct Demo(Process);

impl Demo {
    pub(crate) fn start(command: Command) -> Self {
        Self(Process::start_as_is(command))
    }

    /// Starts a demo whose stdout and stderr the test has chosen.
    pub(crate) fn start_unread(command: Command) -> Self {
        Self(Process::start_unread(command))
    }
}

impl Deref for Demo {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Demo {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It ends its containers when it is asked, not when it is killed; asked twice it does not wait for anybody. This may be
        // a panic's way out, so nothing here may panic.
        for _ in 0..2 {
            if !self.has_ended() {
                self.signal(Signal::INT);
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        let asked = Instant::now();
        while !self.has_ended() && asked.elapsed() < LAST_WAIT {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Engine for Processes {
    fn get(&self, path: &str) -> io::Result<Message> {
        try_get(self.addr(9876), path)
    }

    fn get_inside(&self, port: u16, path: &str) -> io::Result<Message> {
        try_get(self.addr(port), path)
    }

    fn put_content(&self, path: &str, body: &str) -> io::Result<()> {
        let target = self.dir.path().join("source").join(path);
        let temporary = self.dir.path().join("edit-in-the-making");
        std::fs::write(&temporary, body)?;
        std::fs::rename(temporary, target)
    }

    fn kill(&self, name: Name) -> io::Result<()> {
        let pid = self.pid(name).and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        Ok(kill_process(pid, Signal::KILL)?)
    }

    fn stop_content_manager(&self) -> io::Result<()> {
        *self.content_manager.lock().expect("no holder panics") = None;
        Ok(())
    }

    fn start_content_manager(&self) -> io::Result<()> {
        let source = self.dir.path().join("source");
        let listen = self.addr(9880).to_string();
        let args = [
            "--manifest".as_ref(),
            "--root".as_ref(),
            source.as_os_str(),
            "--listen".as_ref(),
            listen.as_ref(),
        ];
        let started = Process::start(binaries().join("web-server"), args);
        *self.content_manager.lock().expect("no holder panics") = Some(started);
        Ok(())
    }

    fn shipped(&self) -> io::Result<Vec<Value>> {
        let lines = self.demo.lock().expect("no holder panics").stdout_lines();
        Ok(lines.iter().map(|record| serde_json::from_str(record)).collect::<Result<_, _>>()?)
    }
}

/// What a line says of the container: `   1.3s  web-server       started, pid 12`.
pub(crate) fn said_of<'a>(line: &'a str, container: &str) -> Option<&'a str> {
    let (_, line) = line.trim_start().split_once("s  ")?;
    line.strip_prefix(container).and_then(|rest| rest.strip_prefix(' ')).map(str::trim_start)
}

/// `cargo demo` on an address of its own, with the binaries that are already built and volumes in `dir`.
pub(crate) fn demo(ip: Ipv4Addr, dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubelet"));
    command.arg("--binaries").arg(binaries()).arg(format!("--ip={ip}"));
    let mut keep = OsString::from("--keep-dir=");
    keep.push(dir);
    command.arg(keep);
    command
}

/// An address in 127.0.0.0/8 that no other Pod of this or of another test run uses.
pub(crate) fn fresh_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 63), low, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The folder of the built binaries. `cargo test` at the workspace's root has just built them; where a narrower command
/// has not, or has left old ones, they are built here, once.
pub(crate) fn binaries() -> &'static Path {
    static BINARIES: OnceLock<PathBuf> = OnceLock::new();
    BINARIES.get_or_init(|| {
        let dir =
            Path::new(env!("CARGO_BIN_EXE_kubelet")).parent().expect("a binary is in a folder").to_owned();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .expect("the package is in the workspace");
        let packages = Name::ALL.map(Name::as_str);
        if packages.iter().any(|name| is_stale(&dir.join(name), root, name)) {
            let built = testkit::process::cargo().args(["build", "--bins"]).current_dir(root).status();
            assert!(built.is_ok_and(|status| status.success()), "cargo build failed");
        }
        dir
    })
}

fn is_stale(binary: &Path, root: &Path, package: &str) -> bool {
    let Ok(built) = binary.metadata().and_then(|data| data.modified()) else { return true };
    newest(&root.join(package).join("src")).max(newest(&root.join("lifecycle/src"))) > built
}

fn newest(dir: &Path) -> SystemTime {
    let entries =
        std::fs::read_dir(dir).expect("the sources are readable").map(|entry| entry.expect("an entry"));
    let times = entries.map(|entry| {
        let data = entry.metadata().expect("an entry has metadata");
        if data.is_dir() { newest(&entry.path()) } else { data.modified().expect("a file has a time") }
    });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A running container's process id, as soon as it has one.
pub(crate) fn pid_of(pod: &Processes, name: Name) -> i32 {
    eventually(&format!("{} is started", name.as_str()), || pod.pid(name))
}
