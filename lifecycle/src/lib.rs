//! What every container owes its kubelet, and nothing else.
//!
//! The three binaries of the Pod are different programs with one way of living: they read their flags the same way,
//! log the same way, answer the same probes, stop on the same signals and end with the same exit codes. That way of
//! living is here, once. No file format and no wire format is: those are contracts between containers, written in
//! `docs/contract.md` and implemented on each side of it.
//!
//! In the order in which a container meets them:
//!
//! - [`cli`]: flags and their environment variables; a wrong one is one line and exit code 64
//! - [`units`]: durations and sizes as people write them
//! - [`logging`]: diagnostics to stderr, as text or JSON
//! - [`signals`]: SIGTERM and SIGINT begin the drain, a second one aborts, SIGHUP asks for a refresh
//! - [`rlimit`]: as many open files and connections as the system allows
//! - [`cgroup`]: the memory limit to stay within
//! - [`listen`]: a port, or one line that names it and the flag that moves it
//! - [`admin`]: `/livez`, `/readyz`, `/metrics`, `/status`, and actions for neighbours on localhost
//! - [`downward`]: what the kubelet tells a container about its Pod
//! - [`healthcheck`]: the same question asked from inside, for images without a shell
//! - [`exit`]: exit codes and the reason for one, on stderr and in the termination message
//!
//! And five helpers, so that each thing is done in one way: [`blocking`], [`Ignore`], [`metrics`], [`escape`], [`quality`].

pub mod admin;
mod blocking;
pub mod cgroup;
pub mod cli;
pub mod downward;
pub mod escape;
pub mod exit;
pub mod healthcheck;
mod ignore;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod quality;
pub mod rlimit;
pub mod signals;
pub mod units;

pub use blocking::blocking;
pub use ignore::Ignore;

/// Who this container is: the one place where a binary states its name and its ports.
#[derive(Debug, Clone, Copy)]
pub struct Container {
    /// Folder, crate, binary, image and container name, such as `web-server`.
    pub name: &'static str,
    /// Port of the admin server unless `--admin-addr` says otherwise.
    pub admin_port: u16,
    /// The crate's version, for `--version` and the `_build_info` metric.
    pub version: &'static str,
}

impl Container {
    /// The name as metric names spell it: `web_server`.
    pub fn metric_prefix(&self) -> String {
        self.name.replace('-', "_")
    }

    /// The environment variable that stands for a flag: `WEB_SERVER_CACHE_SIZE` for `--cache-size`.
    pub fn env_name(&self, flag: &str) -> String {
        format!("{}_{}", self.name, flag).replace('-', "_").to_uppercase()
    }
}
