//! The content manager: the built web-server, and what it has used so far.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use testkit::Process;
use testkit::http::{get, try_get};
use testkit::process::cpu_time;

/// A running `web-server --manifest`.
#[derive(Debug)]
pub(crate) struct Manager {
    process: Process,
    addr: SocketAddr,
    started: Instant,
}

/// What it has used and done: since it was started, or in a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) took: Duration,
    pub(crate) cpu: Duration,
    pub(crate) requests: u64,
    /// Of bodies.
    pub(crate) bytes: u64,
}

impl Manager {
    /// Starts it over a directory, on any port.
    pub(crate) fn start(binaries: &Path, root: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        Self::start_at(binaries, root, "127.0.0.1:0", flags)
    }

    /// Starts it at an address, and waits until it has a manifest.
    pub(crate) fn start_at(
        binaries: &Path,
        root: &Path,
        listen: &str,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let root = root.to_str().context("a path in UTF-8")?;
        let always = ["--manifest", "--no-lesson", "--root", root, "--listen", listen];
        let process = Process::start(binaries.join("web-server"), always.iter().chain(flags));
        let addr = process.addr("content");
        let manager = Self { process, addr, started: Instant::now() };
        testkit::wait_until("the manifest is made", || {
            try_get(addr, "/manifest.json").is_ok_and(|answer| answer.status() == 200)
        });
        Ok(manager)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/manifest.json", self.addr)
    }

    /// Ends it as an out-of-memory killer does.
    pub(crate) fn kill(mut self) {
        self.process.kill();
    }

    pub(crate) fn resident(&self) -> u64 {
        self.process.resident_bytes()
    }

    pub(crate) fn usage(&self) -> Usage {
        let metrics = get(self.process.addr("admin"), "/metrics");
        let sum = |name: &str| {
            let lines = metrics.text().lines().filter(|line| line.starts_with(name));
            let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            values.sum::<f64>() as u64
        };
        Usage {
            took: self.started.elapsed(),
            cpu: cpu_time(self.process.id()),
            requests: sum("web_server_http_requests_total"),
            bytes: sum("web_server_http_response_body_bytes_total"),
        }
    }

    /// How many pullers wait.
    pub(crate) fn waiters(&self) -> u64 {
        get(self.process.addr("admin"), "/status").json()["manifest_waiters"].as_u64().unwrap_or_default()
    }
}

impl Usage {
    /// What was used since then.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            took: self.took.saturating_sub(before.took),
            cpu: self.cpu.saturating_sub(before.cpu),
            requests: self.requests - before.requests,
            bytes: self.bytes - before.bytes,
        }
    }
}
