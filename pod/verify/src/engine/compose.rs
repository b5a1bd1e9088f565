//! The Pod of `deploy/compose.yaml`, as a project of its own: its own networks, volumes, port and content folder.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;
use testkit::http::{Message, try_get};

use super::command::{clean_up, run, run_prepared, text};
use super::{Confinement, Containers, Engine, Name, in_order, last_lines, until_it_serves};
use crate::scenario::killing::DEAD_SIDECAR;

/// How long images that are there may take to become a Pod that serves.
const STARTUP: Duration = Duration::from_secs(60);

/// A Compose project.
#[derive(Debug)]
pub struct Compose {
    program: &'static [&'static str],
    file: PathBuf,
    project: String,
    port: u16,
    content: TempDir,
    environment: Vec<(&'static str, String)>,
    shell_image: String,
}

impl Compose {
    /// A project over the Compose file in the folder `deploy`, with images of this tag.
    pub fn new(deploy: &Path, tag: &str, shell_image: &str) -> io::Result<Self> {
        let content = super::copy_of_content(deploy)?;
        let port = super::free_port()?;
        let environment = vec![
            ("POD_PORT", port.to_string()),
            ("CONTENT_DIR", content.path().display().to_string()),
            ("TAG", tag.to_owned()),
            ("SHELL_IMAGE", shell_image.to_owned()),
        ];
        Ok(Self {
            program: installed_compose()?,
            file: deploy.join("compose.yaml"),
            project: format!("verify-{}", std::process::id()),
            port,
            content,
            environment,
            shell_image: shell_image.to_owned(),
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let (program, first) = self.program.split_first().unwrap_or((&"docker", &["compose"]));
        let mut command = Command::new(program);
        command.args(first).args(["--project-name", &self.project, "--file"]).arg(&self.file);
        // `down` takes away what belongs to a profile only where the profile is named.
        command.args(["--profile", "shell"]).args(args);
        command.envs(self.environment.iter().map(|(name, value)| (*name, value.as_str())));
        command
    }

    fn compose(&self, args: &[&str]) -> io::Result<String> {
        run_prepared(&mut self.command(args)).map(|printed| text(&printed))
    }

    fn id(&self, service: &str) -> io::Result<String> {
        let id = self.compose(&["ps", "--all", "--quiet", service])?;
        if id.is_empty() {
            return Err(io::Error::other(format!("there is no container for {service}")));
        }
        Ok(id)
    }

    fn inspect(&self, service: &str, what: &str) -> io::Result<String> {
        run("docker", ["inspect", "--format", what, &self.id(service)?]).map(|printed| text(&printed))
    }

    /// Runs a command line beside the given process-id namespace, as the user that the containers run as and no other.
    fn beside(&self, pid_namespace: &str, command: &str) -> io::Result<Vec<u8>> {
        let confined = ["--network=none", "--user=65532:65532", "--cap-drop=ALL", "--read-only"];
        let mut args = vec!["run", "--rm"];
        args.extend(confined);
        args.extend([
            "--pid",
            pid_namespace,
            "--label",
            &self.project,
            &self.shell_image,
            "bash",
            "-c",
            command,
        ]);
        run("docker", args)
    }
}

impl Engine for Compose {
    fn get(&self, path: &str) -> io::Result<Message> {
        try_get(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.port), path)
    }

    fn get_inside(&self, port: u16, path: &str) -> io::Result<Message> {
        let curl = super::curl(port, path);
        run("docker", ["exec", &self.id("shell")?, "bash", "-c", &curl])
            .and_then(|answer| Message::parse(&answer))
    }

    fn put_content(&self, path: &str, body: &str) -> io::Result<()> {
        super::put_file(self.content.path(), path, body)
    }

    fn kill(&self, name: Name) -> io::Result<()> {
        // `docker kill` counts as a wish to stop, after which no restart policy applies. A death does not.
        let pid = self.inspect(name.as_str(), "{{.State.Pid}}")?;
        self.beside("host", &format!("kill -9 {pid}")).map(drop)
    }

    fn stop_content_manager(&self) -> io::Result<()> {
        self.compose(&["stop", "content-manager"]).map(drop)
    }

    fn start_content_manager(&self) -> io::Result<()> {
        self.compose(&["start", "content-manager"]).map(drop)
    }

    fn shipped(&self) -> io::Result<Vec<Value>> {
        run("docker", ["logs", &self.id("log-agent")?]).map(|printed| super::records(&printed))
    }
}

impl Containers for Compose {
    fn start(&self) -> io::Result<()> {
        self.compose(&["up", "--detach", "--no-build"])?;
        until_it_serves(self, STARTUP)
    }

    fn in_shell(&self, command: &str) -> io::Result<String> {
        // Byte for byte: not even white space at the end is taken away.
        let printed = run("docker", ["exec", &self.id("shell")?, "bash", "-c", command])?;
        String::from_utf8(printed).map_err(io::Error::other)
    }

    fn confinement(&self, name: Name) -> io::Result<Confinement> {
        let namespace = format!("container:{}", self.id(name.as_str())?);
        let proc = self.beside(&namespace, r#"echo "$(</proc/1/status)"; echo "$(</proc/1/mountinfo)""#)?;
        Confinement::read(&text(&proc))
    }

    fn stop(&self) -> io::Result<Vec<Name>> {
        self.compose(&["stop"])?;
        let mut ended = Vec::new();
        for name in Name::ALL {
            let at = self.inspect(name.as_str(), "{{.State.FinishedAt}}")?;
            let at: SystemTime = humantime::parse_rfc3339(&at).map_err(io::Error::other)?;
            ended.push((at, name));
        }
        Ok(in_order(ended))
    }

    fn beyond(&self) -> &[(&'static str, &'static str)] {
        &[(
            DEAD_SIDECAR,
            "Compose has no Services, and its port leads to web-server whatever the sidecars do",
        )]
    }

    fn logs(&self) -> String {
        let services = Name::ALL.map(Name::as_str).into_iter().chain(["content-manager"]);
        services.map(|service| last_lines("docker", service, self.id(service))).collect()
    }

    fn remove(&self) -> io::Result<()> {
        // A helper that an interrupt has cut off from us still holds on to its container.
        let helpers = ["ps", "--all", "--quiet", "--filter", &format!("label={}", self.project)];
        for helper in text(&clean_up(Command::new("docker").args(helpers))?).lines() {
            clean_up(Command::new("docker").args(["rm", "--force", helper]))?;
        }
        clean_up(&mut self.command(&["down", "--volumes", "--remove-orphans", "--timeout", "2"]))?;
        super::remove_copy(&self.content)
    }
}

/// Compose as docker's plug-in, or the program that it was before.
fn installed_compose() -> io::Result<&'static [&'static str]> {
    let candidates: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
    let found = candidates.into_iter().find(|words| {
        let (program, first) = words.split_first().unwrap_or((&"docker", &[]));
        run(program, first.iter().chain(&["version"])).is_ok()
    });
    let missing = "there is neither `docker compose` nor `docker-compose` here; install one of them";
    found.ok_or_else(|| io::Error::other(missing))
}
