//! What a scenario may ask of a running Pod, whatever runs it.
//!
//! Processes are driven by this crate's tests; containers and clusters by `deploy/verify`, with
//!
//! - [`compose`]: the Pod of `deploy/compose.yaml`
//! - [`podman`]: the classic Pod of `deploy/kubernetes`, played by podman
//! - [`kubectl`]: the native Pod of `deploy/kubernetes`, in a cluster that is named
//! - [`kustomize`]: manifests with other images, in another namespace
//! - [`command`]: the commands that all three are driven with

pub mod command;
pub mod compose;
pub mod kubectl;
mod kustomize;
pub mod podman;

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use testkit::http::Message;

use crate::wait::within;

/// A container of the Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// Syncs the content.
    FilePuller,
    /// Serves it.
    WebServer,
    /// Ships its log.
    LogAgent,
}

impl Name {
    /// All three, in the order of a request's way through them.
    pub const ALL: [Self; 3] = [Self::FilePuller, Self::WebServer, Self::LogAgent];

    /// As folders, images and manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FilePuller => "file-puller",
            Self::WebServer => "web-server",
            Self::LogAgent => "log-agent",
        }
    }

    /// Its admin port, by the contract.
    pub fn admin_port(self) -> u16 {
        match self {
            Self::WebServer => 9877,
            Self::FilePuller => 9878,
            Self::LogAgent => 9879,
        }
    }
}

/// A running Pod with its content manager outside and its log sink behind it.
pub trait Engine: Sync {
    /// `GET` on the published port, as a user of the Pod sees it.
    fn get(&self, path: &str) -> io::Result<Message>;

    /// `GET` over the Pod's localhost, as a neighbour in it sees it.
    fn get_inside(&self, port: u16, path: &str) -> io::Result<Message>;

    /// Puts a file at the content manager, in one step.
    fn put_content(&self, path: &str, body: &str) -> io::Result<()>;

    /// Ends a container with SIGKILL.
    fn kill(&self, name: Name) -> io::Result<()>;

    /// Takes the content manager away.
    fn stop_content_manager(&self) -> io::Result<()>;

    /// Brings it back.
    fn start_content_manager(&self) -> io::Result<()>;

    /// Every record that the log sink has got so far.
    fn shipped(&self) -> io::Result<Vec<Value>>;
}

/// A Pod of containers, which can be asked for more than processes can.
pub trait Containers: Engine {
    /// Brings up a Pod of its own, apart from any that may run here already, and waits until it serves.
    fn start(&self) -> io::Result<()>;

    /// Runs a command line in the lesson's `shell` container, and returns what it printed.
    fn in_shell(&self, command: &str) -> io::Result<String>;

    /// The status of a `GET` through the Pod's Service, as a client elsewhere in the cluster sees it; `None` where the connection
    /// was refused or not answered. An engine without Services says so in [`Containers::beyond`].
    fn get_through_service(&self, path: &str) -> io::Result<Option<u16>> {
        Err(io::Error::other(format!("there is no Service to ask for {path}")))
    }

    /// What a container may do.
    fn confinement(&self, name: Name) -> io::Result<Confinement>;

    /// Stops the Pod as the engine does it, and returns the containers in the order in which they ended. What was
    /// shipped can be asked for afterwards; nothing else can.
    fn stop(&self) -> io::Result<Vec<Name>>;

    /// The scorecard's rows that this engine has no way to pass, and why.
    fn beyond(&self) -> &[(&'static str, &'static str)];

    /// What a person would look at after a failure.
    fn logs(&self) -> String;

    /// Leaves nothing behind. May be called at any time, also twice.
    fn remove(&self) -> io::Result<()>;
}

/// Waits until a Pod that was just started serves its content.
fn until_it_serves(pod: &dyn Engine, budget: Duration) -> io::Result<()> {
    let serves = || pod.get("/").ok().filter(|answer| answer.status() == 200).map(drop);
    within(budget, "the Pod serves", serves).map_err(io::Error::other)
}

/// The end of what a container has said on stderr, or why there is none.
fn last_lines(program: &str, name: &str, container: io::Result<String>) -> String {
    let said = container
        .map(|container| command::diagnostics(Command::new(program).args(["logs", "--tail=30", &container])));
    format!("--- {name}\n{}", said.unwrap_or_else(|error| error.to_string()))
}

/// The containers, by the time at which each ended.
fn in_order(mut ended: Vec<(impl Ord, Name)>) -> Vec<Name> {
    ended.sort_by(|(a, _), (b, _)| a.cmp(b));
    ended.into_iter().map(|(_, name)| name).collect()
}

/// A folder of its own with the sample site, for a scenario to edit.
fn copy_of_content(deploy: &Path) -> io::Result<TempDir> {
    let copy = tempfile::Builder::new().prefix("verify-content-").tempdir()?;
    copy_folder(&deploy.join("content"), copy.path())?;
    // The content manager is another user.
    std::fs::set_permissions(copy.path(), std::fs::Permissions::from_mode(0o755))?;
    Ok(copy)
}

/// Removes the copy: the engine is not dropped when the process ends.
fn remove_copy(content: &TempDir) -> io::Result<()> {
    match std::fs::remove_dir_all(content.path()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&target)?;
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Puts a file into a folder in one step: written beside it, then renamed over it.
fn put_file(folder: &Path, path: &str, body: &str) -> io::Result<()> {
    let target = folder.join(path);
    let temporary = folder.with_extension("edit-in-the-making");
    std::fs::write(&temporary, body)?;
    std::fs::rename(temporary, target)
}

/// A port that is free now, for an engine to publish on: one that it chose itself would change when a container is restarted.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The records among what log-agent has printed.
fn records(printed: &[u8]) -> Vec<Value> {
    let lines = printed.split(|byte| *byte == b'\n');
    // Its diagnostics may be between them where an engine keeps one log for both streams; they have no `attributes`.
    let objects = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    objects.filter(|object| object.get("attributes").is_some()).collect()
}

/// The command line that asks over a Pod's localhost from within its `shell` container, and prints the whole answer.
fn curl(port: u16, path: &str) -> String {
    format!("curl --silent --show-error --include --max-time 10 'http://localhost:{port}{path}'")
}

/// What a container may do, as the kernel or the engine tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// The user that it runs as.
    pub user: u32,
    /// Whether it can write nowhere but in its volumes.
    pub read_only_root: bool,
    /// The capabilities that it has or could get, as the kernel's bit set.
    pub capabilities: u64,
}

impl Confinement {
    /// Reads a process's `/proc/<pid>/status` and `/proc/<pid>/mountinfo` (proc(5)), one after the other.
    pub fn read(proc: &str) -> io::Result<Self> {
        let missing = |what: &str| io::Error::other(format!("no {what} in: {proc}"));
        let field = |name: &str| {
            let line = proc.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()).ok_or_else(|| missing(name))
        };
        let bits = |name: &str| u64::from_str_radix(field(name)?, 16).map_err(|_| missing(name));
        let user = field("Uid:")?.parse().map_err(|_| missing("Uid:"))?;
        let capabilities = bits("CapPrm:")? | bits("CapEff:")? | bits("CapBnd:")? | bits("CapAmb:")?;
        // mountinfo: id, parent, device, root in the file system, mount point, options.
        let options = proc.lines().find_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (words.len() > 6 && words[4] == "/").then(|| words[5])
        });
        let read_only_root =
            options.ok_or_else(|| missing("root mount"))?.split(',').any(|option| option == "ro");
        Ok(Self { user, read_only_root, capabilities })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confinement_is_read_as_the_kernel_writes_it() {
        let proc = "Uid:\t65532\t65532\t65532\t65532\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
                    CapEff:\t0000000000000000\nCapBnd:\t0000000000000400\nCapAmb:\t0000000000000000\n\
                    512 490 0:60 / / ro,relatime - overlay overlay rw\n\
                    513 512 0:61 / /proc rw,nosuid - proc proc rw\n";
        let read = Confinement::read(proc).unwrap();
        let expected = Confinement { user: 65532, read_only_root: true, capabilities: 0x400 };
        assert_eq!(read, expected);
        let writable = Confinement::read(&proc.replace("/ / ro,", "/ / rw,")).unwrap();
        assert!(!writable.read_only_root);
        assert!(Confinement::read("").is_err());
    }
}
