//! A volume as file-puller writes it, and a server on it.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;
use testkit::http::{Message, get, request};
use testkit::{Process, wait_until};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_web-server");

/// A content volume.
pub(crate) struct Volume {
    dir: TempDir,
}

impl Volume {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("releases")).unwrap();
        Self { dir }
    }

    /// With one release of these files.
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let volume = Self::new();
        volume.publish("one", files);
        volume
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("current")
    }

    pub(crate) fn release(&self, id: &str) -> PathBuf {
        self.dir.path().join("releases").join(id)
    }

    /// Writes a release without publishing it.
    pub(crate) fn stage(&self, id: &str, files: &[(&str, &str)]) {
        write_tree(&self.release(id), files);
    }

    /// Makes `current` point to a release in one step.
    pub(crate) fn swap(&self, id: &str) {
        let link = self.dir.path().join(".current.tmp");
        symlink(Path::new("releases").join(id), &link).unwrap();
        std::fs::rename(&link, self.root()).unwrap();
    }

    pub(crate) fn publish(&self, id: &str, files: &[(&str, &str)]) {
        self.stage(id, files);
        self.swap(id);
    }
}

pub(crate) fn write_tree(root: &Path, files: &[(&str, &str)]) {
    std::fs::create_dir_all(root).unwrap();
    for (path, text) in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) addr: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Server {
    #[track_caller]
    pub(crate) fn start(root: &Path, args: &[&str]) -> Self {
        Self::start_with(root, args, &[])
    }

    #[track_caller]
    pub(crate) fn start_with(root: &Path, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let server = Self::start_loading(root, args, variables);
        // Not what a test is about that changes the content next.
        wait_until("the first look is over", || {
            !get(server.admin, "/readyz").text().contains("is being loaded")
        });
        server
    }

    /// Does not wait for the content.
    #[track_caller]
    pub(crate) fn start_loading(root: &Path, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(BINARY);
        command.arg("--root").arg(root).args(["--listen", "127.0.0.1:0"]).args(args);
        command.envs(variables.iter().copied());
        Self::of(Process::start_command(command))
    }

    pub(crate) fn of(process: Process) -> Self {
        let (addr, admin) = (process.addr("content"), process.addr("admin"));
        Self { process, addr, admin }
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Message {
        get(self.addr, path)
    }

    #[track_caller]
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Message {
        request(self.addr, method, path, headers)
    }

    /// The value of a metric, named without its prefix and with its labels.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let metrics = get(self.admin, "/metrics");
        let value =
            metrics.text().lines().find_map(|line| line.strip_prefix("web_server_")?.strip_prefix(name));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// Waits until a path is answered with this body.
    #[track_caller]
    pub(crate) fn wait_for(&self, path: &str, body: &str) {
        wait_until(&format!("{path} says {body:?}"), || self.get(path).body == body.as_bytes());
    }
}

/// Stops the other threads of a test when the test ends or fails; without it they would never stop.
pub(crate) struct Over<'t>(pub(crate) &'t AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sorted, and without what differs from response to response.
pub(crate) fn lasting_headers(message: &Message) -> Vec<(String, String)> {
    let passing = ["date", "x-request-id"];
    let mut headers: Vec<_> =
        message.headers.iter().filter(|(name, _)| !passing.contains(&name.as_str())).cloned().collect();
    headers.sort();
    headers
}
