//! Real pullers with volumes of their own, and the server of a Pod.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;
use testkit::Process;
use testkit::http::{Connection, get};

/// How often it is looked whether something has happened.
const LOOK: Duration = Duration::from_millis(1);
const DEADLINE: Duration = Duration::from_secs(60);

/// A `file-puller` on a volume of its own.
#[derive(Debug)]
pub(crate) struct RealPuller {
    volume: TempDir,
    process: Process,
}

impl RealPuller {
    pub(crate) fn start(binaries: &Path, source: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let volume = tempfile::tempdir()?;
        let path = volume.path().to_str().context("a path in UTF-8")?;
        let always = ["--source", source, "--volume", path];
        let process = Process::start(binaries.join("file-puller"), always.iter().chain(flags));
        Ok(Self { volume, process })
    }

    /// What a server serves of its volume.
    pub(crate) fn root(&self) -> PathBuf {
        self.volume.path().join("current")
    }

    /// The release that is published.
    pub(crate) fn release(&self) -> Option<String> {
        let target = std::fs::read_link(self.root()).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    pub(crate) fn waits(&self) -> bool {
        get(self.process.addr("admin"), "/status").json()["waiting"] == true
    }

    pub(crate) fn resident(&self) -> u64 {
        self.process.resident_bytes()
    }
}

/// Ten pullers, or however many.
#[derive(Debug)]
pub(crate) struct RealPullers(Vec<RealPuller>);

impl RealPullers {
    pub(crate) fn start(binaries: &Path, source: &str, count: usize, flags: &[&str]) -> anyhow::Result<Self> {
        let pullers = (0..count).map(|_| RealPuller::start(binaries, source, flags));
        Ok(Self(pullers.collect::<anyhow::Result<_>>()?))
    }

    pub(crate) fn wait(&self) {
        testkit::wait_until("all real pullers wait", || self.0.iter().all(RealPuller::waits));
    }

    pub(crate) fn releases(&self) -> Vec<Option<String>> {
        self.0.iter().map(RealPuller::release).collect()
    }

    pub(crate) fn resident(&self) -> u64 {
        self.0.iter().map(RealPuller::resident).max().unwrap_or_default()
    }

    /// Looks until each has another release than before, and returns how long after `since` each had it.
    pub(crate) fn published(
        &self,
        before: &[Option<String>],
        since: Instant,
    ) -> anyhow::Result<Vec<Duration>> {
        let mut took = vec![None; self.0.len()];
        while took.contains(&None) {
            anyhow::ensure!(
                since.elapsed() < DEADLINE,
                "a real puller has published nothing in {DEADLINE:?}"
            );
            for ((puller, before), took) in self.0.iter().zip(before).zip(&mut took) {
                if took.is_none() && puller.release() != *before {
                    *took = Some(since.elapsed());
                }
            }
            std::thread::sleep(LOOK);
        }
        Ok(took.into_iter().flatten().collect())
    }
}

/// A puller and the server of its volume.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) puller: RealPuller,
    server: Process,
}

impl Pod {
    pub(crate) fn start(binaries: &Path, source: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let puller = RealPuller::start(binaries, source, flags)?;
        let root = puller.root();
        let root = root.to_str().context("a path in UTF-8")?;
        let server = Process::start(binaries.join("web-server"), ["--root", root, "--listen", "127.0.0.1:0"]);
        Ok(Self { puller, server })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.server.addr("content")
    }

    /// Asks for a page until it begins with this text, and returns how long after `since` that was.
    pub(crate) fn serves(&self, path: &str, text: &str, since: Instant) -> anyhow::Result<Duration> {
        let mut connection = Connection::try_open(self.addr())?;
        loop {
            connection.send(format!("GET {path} HTTP/1.1\r\nHost: pod\r\n\r\n"))?;
            let page = connection.receive("GET")?;
            if page.status() == 200 && page.body.starts_with(text.as_bytes()) {
                return Ok(since.elapsed());
            }
            anyhow::ensure!(since.elapsed() < DEADLINE, "{path} is not served within {DEADLINE:?}");
            std::thread::sleep(LOOK);
        }
    }
}
