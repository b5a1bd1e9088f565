//! The folder and the programs that a page's commands find.
//!
//! A reader stands at the repository's root, in which `cargo demo` has built `target/demo`. The workspace is a fresh folder that
//! looks the same: what a page makes in it is gone with it, and the repository stays as it is.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::engine::kubectl::Context;

/// `cargo demo` runs the binaries that are built already, whatever profile they are of; any other word goes to cargo.
const CARGO: &str = r#"#!/bin/sh
[ "$1" = demo ] || exec "$REAL_CARGO" "$@"
shift
exec "$BINARIES/kubelet" --binaries "$BINARIES" "$@"
"#;

/// Where Compose is a program of its own, it is found under its newer name as well.
const DOCKER: &str = r#"#!/bin/sh
[ "$1" = compose ] || exec "$REAL_DOCKER" "$@"
shift
exec docker-compose "$@"
"#;

/// A folder that looks like the repository's root.
#[derive(Debug)]
pub struct Workspace {
    dir: TempDir,
    environment: Vec<(String, OsString)>,
}

impl Workspace {
    /// Makes it, with the binaries in `binaries`.
    pub fn create(repository: &Path, binaries: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("lab-").tempdir()?;
        // Containers read what a page puts here, and they are other users.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
        for entry in std::fs::read_dir(repository)? {
            let entry = entry?;
            let name = entry.file_name();
            // A `lab` that a reader has left in the repository is none of this page's.
            if name != "target" && name != "lab" && name != ".git" {
                symlink(entry.path(), dir.path().join(name))?;
            }
        }
        std::fs::create_dir(dir.path().join("target"))?;
        symlink(binaries, dir.path().join("target/demo"))?;
        let programs = dir.path().join("target/programs");
        std::fs::create_dir(&programs)?;

        let mut environment = vec![
            ("BINARIES".to_owned(), binaries.into()),
            ("REAL_CARGO".to_owned(), std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
            // Messages as the pages show them.
            ("LC_ALL".to_owned(), "C.UTF-8".into()),
        ];
        program(&programs.join("cargo"), CARGO)?;
        if let Some(docker) = find("docker").filter(|docker| !has_plugin(docker)) {
            environment.push(("REAL_DOCKER".to_owned(), docker.into()));
            program(&programs.join("docker"), DOCKER)?;
        }
        let mut path = OsString::from(programs);
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        environment.push(("PATH".to_owned(), path));
        Ok(Self { dir, environment })
    }

    /// Makes the pages' `kubectl` know this cluster alone, whatever context is current, and the lesson's Pod be of these images.
    /// Returns the kubeconfig.
    pub fn on_cluster(&mut self, cluster: &Context, shell_image: &str, tag: &str) -> io::Result<PathBuf> {
        let kubeconfig = self.dir.path().join("target/kubeconfig");
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&kubeconfig)?;
        file.write_all(&cluster.kubeconfig()?)?;
        self.environment.push(("KUBECONFIG".to_owned(), kubeconfig.clone().into()));

        let lesson = Path::new("deploy/kubernetes/twocontainers.yaml");
        let text = std::fs::read_to_string(self.dir.path().join(lesson))?;
        let text = text.replace("almalinux:9-minimal", shell_image);
        let text = text.replace("web-server:dev", &format!("web-server:{tag}"));
        self.make_own("deploy")?;
        self.make_own("deploy/kubernetes")?;
        let own = self.dir.path().join(lesson);
        std::fs::remove_file(&own)?;
        std::fs::write(own, text)?;
        Ok(kubeconfig)
    }

    /// Replaces a link to a folder of the repository by a folder with links to all that is in it.
    fn make_own(&self, folder: &str) -> io::Result<()> {
        let folder = self.dir.path().join(folder);
        let target = folder.canonicalize()?;
        std::fs::remove_file(&folder)?;
        std::fs::create_dir(&folder)?;
        for entry in std::fs::read_dir(target)? {
            let entry = entry?;
            symlink(entry.path(), folder.join(entry.file_name()))?;
        }
        Ok(())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What a shell in it has in its environment.
    pub fn environment(&self) -> &[(String, OsString)] {
        &self.environment
    }
}

fn program(path: &Path, text: &str) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(path)?;
    file.write_all(text.as_bytes())
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn has_plugin(docker: &Path) -> bool {
    let asked = std::process::Command::new(docker).args(["compose", "version"]).output();
    asked.is_ok_and(|output| output.status.success())
}
