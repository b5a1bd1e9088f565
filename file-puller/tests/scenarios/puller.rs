//! The binary, its volume, and what a test asks of both.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use testkit::http::{self, Message};
use testkit::{Process, eventually};

use crate::content::{ContentManager, Tree};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_file-puller");

/// A volume of the test's own.
pub(crate) struct Volume {
    // The volume is a directory in it, so that a test can also see what is beside the volume.
    above: TempDir,
}

impl Volume {
    pub(crate) fn new() -> Self {
        let volume = Self { above: tempfile::tempdir().expect("a temporary directory") };
        fs::create_dir(volume.path()).expect("a new directory");
        volume
    }

    pub(crate) fn above(&self) -> &Path {
        self.above.path()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.above.path().join("volume")
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The release that `current` names.
    pub(crate) fn current(&self) -> Option<String> {
        let target = fs::read_link(self.join("current")).ok()?;
        let target = target.to_str().expect("the link is text");
        Some(target.strip_prefix("releases/").expect("the link is relative").to_owned())
    }

    /// The current release's files.
    #[track_caller]
    pub(crate) fn tree(&self) -> Tree {
        tree(&self.join("current"))
    }

    /// The inode of a file of the current release.
    pub(crate) fn inode(&self, path: &str) -> u64 {
        fs::metadata(self.join("current").join(path)).expect("the file is there").ino()
    }

    /// The ids of the releases that have a tree, and of those that have a manifest: the same, always.
    #[track_caller]
    pub(crate) fn releases(&self) -> Vec<String> {
        let names = names(&self.join("releases"));
        let (manifests, trees): (Vec<String>, Vec<String>) =
            names.into_iter().partition(|name| Path::new(name).extension().is_some());
        let manifests: Vec<_> = manifests.iter().map(|name| name.replace(".json", "")).collect();
        assert_eq!(manifests, trees, "each release has a tree and a manifest");
        trees
    }

    /// What is in `.staging` besides the lock: what the processes' own directories hold, which have names of their own, and
    /// anything else.
    pub(crate) fn staging(&self) -> Vec<String> {
        let staging = self.join(".staging");
        let (private, others): (Vec<_>, Vec<_>) =
            names(&staging).into_iter().partition(|name| name.starts_with("process-"));
        let mut all: Vec<_> = others.into_iter().filter(|name| name != "lock").collect();
        for directory in private {
            // It may be on its way out.
            let entries = fs::read_dir(staging.join(directory)).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            all.extend(names.filter(|name| name != "lock"));
        }
        all.sort();
        all
    }

    /// Where a process has something in its own directory, or would have it.
    pub(crate) fn staged(&self, name: &str) -> PathBuf {
        let staging = self.join(".staging");
        let private = names(&staging).into_iter().filter(|name| name.starts_with("process-"));
        let mut places = private.map(|private| staging.join(private).join(name));
        places
            .find(|place| place.symlink_metadata().is_ok())
            .unwrap_or_else(|| staging.join("none").join(name))
    }

    /// Everything there is on the volume, with what changes when something is written.
    pub(crate) fn snapshot(&self) -> BTreeMap<PathBuf, (u64, i64, i64, i64)> {
        let mut seen = BTreeMap::new();
        let mut open = vec![self.path()];
        while let Some(path) = open.pop() {
            let metadata = fs::symlink_metadata(&path).expect("it is there");
            if metadata.is_dir() {
                open.extend(names(&path).iter().map(|name| path.join(name)));
            }
            let (changed, nanoseconds) = (metadata.ctime(), metadata.ctime_nsec());
            seen.insert(path, (metadata.ino(), changed, nanoseconds, metadata.mtime_nsec()));
        }
        seen
    }

    /// The volume holds nothing but empty directories of its own, and nothing is beside it.
    #[track_caller]
    pub(crate) fn assert_nothing_written(&self) {
        assert_eq!(names(self.above()), ["volume"]);
        assert_eq!(names(&self.path()), [".staging", "releases"]);
        assert_eq!(names(&self.join("releases")), [] as [&str; 0]);
        assert_eq!(self.staging(), [] as [&str; 0]);
    }
}

/// Names in a directory, sorted.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[track_caller]
pub(crate) fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut open = vec![root.to_owned()];
    while let Some(at) = open.pop() {
        for name in names(&at) {
            let path = at.join(name);
            let metadata = fs::symlink_metadata(&path).expect("it is there");
            if metadata.is_dir() {
                assert_eq!(metadata.permissions().mode() & 0o7777, 0o755, "{}", path.display());
                open.push(path);
            } else {
                assert!(metadata.is_file(), "{}", path.display());
                let relative = path.strip_prefix(root).expect("beneath the root");
                let content = fs::read(&path).expect("it can be read");
                let name = relative.to_str().expect("UTF-8").to_owned();
                tree.insert(name, (metadata.permissions().mode() & 0o7777, content));
            }
        }
    }
    tree
}

/// A puller that syncs when it starts and when it is told to, so that the test knows which sync it looks at.
pub(crate) fn start(manager: &ContentManager, volume: &Volume, flags: &[&str]) -> Process {
    start_when_asked(&manager.url(), volume, flags)
}

/// The same, of a source at another URL than the content manager's own.
pub(crate) fn start_when_asked(url: &str, volume: &Volume, flags: &[&str]) -> Process {
    let mut command = Command::new(BINARY);
    command.args(["--source", url, "--log-level", "debug", "--volume"]).arg(volume.path()).args(flags);
    Process::start_command(when_asked(command))
}

/// The puller under a umask of the test's own.
pub(crate) fn with_umask(umask: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "umask \"$0\" && exec \"$@\"", umask, BINARY]);
    command
}

/// Makes it one that syncs when it starts and when it is told to: a failed sync is not tried again by itself either.
pub(crate) fn when_asked(mut command: Command) -> Command {
    command.args(["--period", "1h"]).env("FILE_PULLER_WITHOUT", "retries");
    command
}

/// A puller with the test's own `--period`.
pub(crate) fn start_with_period(manager: &ContentManager, volume: &Volume, flags: &[&str]) -> Process {
    start_from(&manager.url(), volume, flags)
}

/// The same, of a source at another URL than the content manager's own.
pub(crate) fn start_from(url: &str, volume: &Volume, flags: &[&str]) -> Process {
    let path = volume.path();
    let mut all = vec!["--source", url, "--volume", path.to_str().expect("UTF-8"), "--log-level", "debug"];
    all.extend(flags);
    Process::start(BINARY, all)
}

/// A puller whose first sync has ended well.
#[track_caller]
pub(crate) fn start_in_step(manager: &ContentManager, volume: &Volume, flags: &[&str]) -> Process {
    let process = start(manager, volume, flags);
    assert_eq!(sync(&process)["result"], "unchanged", "the first sync had published");
    assert_eq!(volume.tree(), manager.site().files);
    manager.upstream.forget();
    process
}

/// `--once`: exit code and stderr.
pub(crate) fn once(url: &str, volume: &Path, flags: &[&str]) -> (i32, String) {
    let mut all = vec!["--once", "--source", url, "--volume", volume.to_str().expect("UTF-8")];
    all.extend(flags);
    let (code, stdout, stderr) = testkit::process::run(BINARY, all);
    assert_eq!(stdout, "", "stdout belongs to others");
    (code, stderr)
}

/// Asks for a sync and waits until it has ended.
#[track_caller]
pub(crate) fn try_sync(process: &Process) -> Message {
    http::request(process.addr("admin"), "POST", "/sync", &[])
}

/// Asks for a sync that has to end well, and returns what it did.
#[track_caller]
pub(crate) fn sync(process: &Process) -> Value {
    let answer = try_sync(process);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()
}

/// Asks for a sync that has to fail, for this reason, and returns what it did.
#[track_caller]
pub(crate) fn fails(process: &Process, status: u16, reason: &str) -> Value {
    let answer = try_sync(process);
    assert_eq!(
        (answer.status(), answer.json()["reason"].as_str()),
        (status, Some(reason)),
        "{}",
        answer.text()
    );
    answer.json()
}

/// Asks for a sync that has to publish exactly what the content manager has.
#[track_caller]
pub(crate) fn publishes(process: &Process, volume: &Volume, manager: &ContentManager) -> Value {
    let outcome = sync(process);
    assert_eq!(outcome["result"], "published");
    assert_eq!(outcome["release"].as_str(), volume.current().as_deref());
    assert_eq!(volume.tree(), manager.site().files);
    outcome
}

/// A metric's value, or 0 where it was never counted.
pub(crate) fn metric(process: &Process, name: &str) -> f64 {
    let text = http::get(process.addr("admin"), "/metrics").text().to_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

pub(crate) fn readyz(process: &Process) -> Message {
    http::get(process.addr("admin"), "/readyz")
}

/// Waits until the puller is ready.
#[track_caller]
pub(crate) fn ready(process: &Process) {
    eventually(&format!("ready; stderr so far: {}", process.stderr()), || {
        (readyz(process).status() == 200).then_some(())
    });
}
