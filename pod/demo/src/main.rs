//! `cargo demo`: builds the Pod's programs, then becomes the kubelet that runs them.
//!
//! One `cargo build` for all four, so that cargo chooses one set of features for the crates that they share and builds
//! each of those once. This program itself has no dependencies, so that building it costs nothing.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

const PACKAGES: [&str; 4] = ["kubelet", "file-puller", "web-server", "log-agent"];
/// A defect, as in `lifecycle::exit`.
const INTERNAL: u8 = 70;

#[expect(clippy::print_stderr, reason = "the reason for its end is all that this program prints")]
fn main() -> ExitCode {
    // On success the kubelet has taken this process's place.
    let Err(reason) = demo();
    eprintln!("cargo demo: {reason}");
    ExitCode::from(INTERNAL)
}

fn demo() -> Result<std::convert::Infallible, String> {
    let own = std::env::current_exe().map_err(|error| format!("cannot find its own folder: {error}"))?;
    let folder = own.parent().unwrap_or(Path::new("."));
    build(folder)?;
    let kubelet = folder.join("kubelet");
    let error = Command::new(&kubelet).args(std::env::args_os().skip(1)).exec();
    Err(format!("cannot run {}: {error}", kubelet.display()))
}

/// Builds with the profile that built this program: it is in `target/<profile>`, where the folder of `dev` is `debug`.
fn build(folder: &Path) -> Result<(), String> {
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(&cargo);
    command
        .args(["build", "--profile", profile, "--no-default-features"])
        .args(PACKAGES.iter().flat_map(|name| ["--package", name]));
    // What the cargo that runs this program says of its package. Some build scripts read these variables, and would run
    // again, with all that depends on them, whenever one differs from the last build's.
    let package = |name: &OsString| {
        name.to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
    };
    for name in std::env::vars_os().map(|(name, _)| name).filter(package) {
        command.env_remove(name);
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cargo build failed: {status}")),
        Err(error) => Err(format!("cannot run {}: {error}", cargo.display())),
    }
}
