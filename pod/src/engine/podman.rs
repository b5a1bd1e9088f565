//! The classic Pod of `deploy/kubernetes`, played by podman from the same manifests that a cluster gets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use testkit::http::{Message, try_get};

use super::command::{clean_up, diagnostics, feed, run, text};
use super::kustomize::{Images, Kustomization};
use super::{Confinement, Containers, Engine, Name};
use crate::scenario::until_it_serves;

/// How long images that are there may take to become a Pod that serves.
const STARTUP: Duration = Duration::from_secs(60);
/// podman 4 makes the Pod of a Deployment from the Deployment's name, and its containers' names from the Pod's.
const POD: &str = "sidecar-pod-pod";
const CONTENT_MANAGER: &str = "content-manager-pod";
const LESSON: &str = "twocontainers";

/// A played manifest.
#[derive(Debug)]
pub struct Podman {
    deploy: PathBuf,
    images: Images,
    content: TempDir,
}

impl Podman {
    /// Plays the manifests in the folder `deploy`, with images of this tag.
    ///
    /// # Errors
    /// Where there is no podman or no kubectl to render with, or where a Pod of that name is already there.
    pub fn new(deploy: &Path, tag: &str, shell_image: &str) -> io::Result<Self> {
        run("podman", ["version"])?;
        for pod in [POD, CONTENT_MANAGER, LESSON] {
            // podman names what it plays after the manifest alone, so that two of them would be one.
            if run("podman", ["pod", "exists", pod]).is_ok() {
                let problem =
                    format!("there is a Pod {pod} already; remove it with `podman pod rm --force {pod}`");
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, problem));
            }
        }
        let images = Images::new("", tag, shell_image);
        Ok(Self { deploy: deploy.to_owned(), images, content: super::copy_of_content(deploy)? })
    }

    /// What is played: the overlay with our images, and the content manager over a folder that can be edited.
    fn manifests(&self) -> io::Result<String> {
        let content = format!(
            "- target: {{kind: Deployment, name: content-manager}}\n  patch: |-\n    \
             - {{op: add, path: /spec/template/spec/volumes, value: [{{name: site, hostPath: {{path: {}, type: Directory}}}}]}}\n    \
             - {{op: add, path: /spec/template/spec/containers/0/volumeMounts, value: [{{name: site, mountPath: /content, readOnly: true}}]}}\n",
            self.content.path().display()
        );
        Kustomization::over(&self.deploy.join("kubernetes/overlays/podman"))
            .images(&self.images)
            .patch(&content)
            .render()
    }

    fn play(manifests: &str) -> io::Result<()> {
        // Without --build=false podman would build an image from any folder here that is called like one.
        feed("podman", ["kube", "play", "--build=false", "-"], manifests).map(drop)
    }

    fn inspect(name: Name, what: &str) -> io::Result<String> {
        run("podman", ["inspect", "--format", what, &container(name)]).map(|printed| text(&printed))
    }

    /// Runs a command line beside the given process-id namespace, as the user that the containers run as and no other.
    fn beside(&self, pid_namespace: &str, command: &str) -> io::Result<Vec<u8>> {
        let confined =
            ["--network=none", "--user=65532:65532", "--cap-drop=ALL", "--read-only", "--pull=never"];
        let mut args = vec!["run", "--rm"];
        args.extend(confined);
        args.extend(["--pid", pid_namespace, self.images.shell(), "bash", "-c", command]);
        run("podman", args)
    }
}

impl Engine for Podman {
    fn get(&self, path: &str) -> io::Result<Message> {
        try_get(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9876), path)
    }

    fn get_inside(&self, port: u16, path: &str) -> io::Result<Message> {
        let network = format!("container:{}", container(Name::WebServer));
        let curl = super::curl(port, path);
        let args =
            ["run", "--rm", "--pull=never", "--network", &network, self.images.shell(), "bash", "-c", &curl];
        run("podman", args).and_then(|answer| Message::parse(&answer))
    }

    fn put_content(&self, path: &str, body: &str) -> io::Result<()> {
        super::put_file(self.content.path(), path, body)
    }

    fn kill(&self, name: Name) -> io::Result<()> {
        // `podman kill` counts as a wish to stop, after which no restart policy applies. A death does not.
        let pid = Self::inspect(name, "{{.State.Pid}}")?;
        self.beside("host", &format!("kill -9 {pid}")).map(drop)
    }

    fn stop_content_manager(&self) -> io::Result<()> {
        run("podman", ["pod", "stop", CONTENT_MANAGER]).map(drop)
    }

    fn start_content_manager(&self) -> io::Result<()> {
        run("podman", ["pod", "start", CONTENT_MANAGER]).map(drop)
    }

    fn shipped(&self) -> io::Result<Vec<Value>> {
        run("podman", ["logs", &container(Name::LogAgent)]).map(|printed| super::records(&printed))
    }
}

impl Containers for Podman {
    fn start(&self) -> io::Result<()> {
        Self::play(&self.manifests()?)?;
        until_it_serves(self, STARTUP)
    }

    fn in_shell(&self, command: &str) -> io::Result<String> {
        let lesson = Kustomization::of_file(&self.deploy.join("kubernetes/twocontainers.yaml"));
        Self::play(&lesson.images(&self.images).render()?)?;
        let shell = format!("{LESSON}-shell");
        let printed = run("podman", ["exec", &shell, "bash", "-c", command])?;
        String::from_utf8(printed).map_err(io::Error::other)
    }

    fn confinement(&self, name: Name) -> io::Result<Confinement> {
        let namespace = format!("container:{}", container(name));
        let proc = self.beside(&namespace, r#"echo "$(</proc/1/status)"; echo "$(</proc/1/mountinfo)""#)?;
        Confinement::read(&text(&proc))
    }

    fn stop(&self) -> io::Result<Vec<Name>> {
        run("podman", ["pod", "stop", POD])?;
        let mut ended = Vec::new();
        for name in Name::ALL {
            let at = Self::inspect(name, "{{.State.FinishedAt.UnixNano}}")?;
            ended.push((at.parse::<i64>().map_err(io::Error::other)?, name));
        }
        ended.sort_by_key(|(at, _)| *at);
        Ok(ended.into_iter().map(|(_, name)| name).collect())
    }

    fn beyond(&self) -> &[(&'static str, &'static str)] {
        &[(
            "pod_shutdown_order",
            "podman stops the containers of a Pod together, in no order; native sidecars hang it",
        )]
    }

    fn logs(&self) -> String {
        let containers =
            Name::ALL.map(container).into_iter().chain([format!("{CONTENT_MANAGER}-content-manager")]);
        let logs = containers.map(|container| {
            let said = diagnostics(Command::new("podman").args(["logs", "--tail=30", &container]));
            format!("--- {container}\n{said}")
        });
        logs.collect()
    }

    fn remove(&self) -> io::Result<()> {
        for pod in [POD, CONTENT_MANAGER, LESSON] {
            clean_up(Command::new("podman").args(["pod", "rm", "--force", "--ignore", "--time=2", pod]))?;
        }
        Ok(())
    }
}

fn container(name: Name) -> String {
    format!("{POD}-{}", name.as_str())
}
