//! The classic Pod of `deploy/kubernetes`, played by podman from the same manifests that a cluster gets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use testkit::http::{Message, try_get};

use super::command::{clean_up, feed, run, text};
use super::kustomize::{Images, Kustomization};
use super::{Confinement, Containers, Engine, Name, in_order, last_lines, until_it_serves};
use crate::scenario::killing::DEAD_SIDECAR;

/// How long images that are there may take to become a Pod that serves.
const STARTUP: Duration = Duration::from_secs(60);
/// The Deployments, and the lesson's Pod. podman names a Deployment's Pod after it, with an ending that depends on podman's
/// version, and the containers after their Pod.
const POD: &str = "sidecar-pod";
const CONTENT_MANAGER: &str = "content-manager";
const NETWORK: &str = "podman-default-kube-network";
const LESSON: &str = "twocontainers";

/// A played manifest.
#[derive(Debug)]
pub struct Podman {
    deploy: PathBuf,
    images: Images,
    content: TempDir,
    port: u16,
    content_port: u16,
    /// The network that podman makes at the first `kube play`, where it was not there before us.
    network: Option<&'static str>,
}

impl Podman {
    /// Plays the manifests in the folder `deploy`, with images of this tag.
    pub fn new(deploy: &Path, tag: &str, shell_image: &str) -> io::Result<Self> {
        run("podman", ["version"])?;
        for deployment in [POD, CONTENT_MANAGER, LESSON] {
            // podman names what it plays after the manifest alone, so that two of them would be one.
            if let Some(pod) = pods_of(&run("podman", LIST)?, deployment).first() {
                let problem =
                    format!("there is a Pod {pod} already; remove it with `podman pod rm --force {pod}`");
                return Err(io::Error::other(problem));
            }
        }
        let images = Images::new("", tag, shell_image);
        Ok(Self {
            deploy: deploy.to_owned(),
            images,
            content: super::copy_of_content(deploy)?,
            port: super::free_port()?,
            content_port: super::free_port()?,
            network: run("podman", ["network", "exists", NETWORK]).is_err().then_some(NETWORK),
        })
    }

    /// What is played: the overlay with our images, on ports that are free, and the content manager over a folder that can be
    /// edited.
    fn manifests(&self) -> io::Result<String> {
        let content = self.content.path().display();
        let Self { port, content_port, .. } = self;
        let template = "path: /spec/template/spec";
        let patch = format!(
            "- target: {{kind: Deployment, name: {CONTENT_MANAGER}}}
  patch: |-
    - {{op: add, {template}/volumes, value: [{{name: site, hostPath: {{path: {content}, type: Directory}}}}]}}
    - {{op: add, {template}/containers/0/volumeMounts, value: [{{name: site, mountPath: /content, readOnly: true}}]}}
    - {{op: replace, {template}/containers/0/ports/0/hostPort, value: {content_port}}}
- target: {{kind: Deployment, name: {POD}}}
  patch: |-
    - {{op: replace, {template}/containers/2/ports/0/hostPort, value: {port}}}
"
        );
        let manifests = Kustomization::over(&self.deploy.join("kubernetes/overlays/podman"));
        let manifests = manifests.images(&self.images).patch(&patch).render()?;
        Ok(manifests.replace("internal:9880/", &format!("internal:{content_port}/")))
    }

    fn play(manifests: &str) -> io::Result<()> {
        // Without --build=false podman would build an image from any folder here that is called like one.
        feed(Command::new("podman").args(["kube", "play", "--build=false", "-"]), manifests).map(drop)
    }

    fn inspect(name: Name, what: &str) -> io::Result<String> {
        run("podman", ["inspect", "--format", what, &container(name)?]).map(|printed| text(&printed))
    }

    /// Runs a command line in a container of its own, as the user that the Pod's containers run as and with nothing more.
    fn beside(&self, place: &[&str], command: &str) -> io::Result<Vec<u8>> {
        let confined = ["--user=65532:65532", "--cap-drop=ALL", "--read-only", "--pull=never"];
        let mut args = vec!["run", "--rm"];
        args.extend(confined);
        args.extend(place);
        args.extend([self.images.shell(), "bash", "-c", command]);
        run("podman", args)
    }
}

impl Engine for Podman {
    fn get(&self, path: &str) -> io::Result<Message> {
        try_get(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.port), path)
    }

    fn get_inside(&self, port: u16, path: &str) -> io::Result<Message> {
        let answer = self.beside(&["--pod", &pod(POD)?], &super::curl(port, path))?;
        Message::parse(&answer)
    }

    fn put_content(&self, path: &str, body: &str) -> io::Result<()> {
        super::put_file(self.content.path(), path, body)
    }

    fn kill(&self, name: Name) -> io::Result<()> {
        // `podman kill` counts as a wish to stop, after which no restart policy applies. A death does not.
        let pid = Self::inspect(name, "{{.State.Pid}}")?;
        self.beside(&["--network=none", "--pid=host"], &format!("kill -9 {pid}")).map(drop)
    }

    fn stop_content_manager(&self) -> io::Result<()> {
        run("podman", ["pod", "stop", &pod(CONTENT_MANAGER)?]).map(drop)
    }

    fn start_content_manager(&self) -> io::Result<()> {
        run("podman", ["pod", "start", &pod(CONTENT_MANAGER)?]).map(drop)
    }

    fn shipped(&self) -> io::Result<Vec<Value>> {
        run("podman", ["logs", &container(Name::LogAgent)?]).map(|printed| super::records(&printed))
    }
}

impl Containers for Podman {
    fn start(&self) -> io::Result<()> {
        Self::play(&self.manifests()?)?;
        until_it_serves(self, STARTUP)
    }

    fn in_shell(&self, command: &str) -> io::Result<String> {
        let lesson = Kustomization::over(&self.deploy.join("kubernetes/twocontainers.yaml"));
        // podman would publish the port that the lesson declares, on the host, where another program may have it already.
        let unpublished =
            "- target: {kind: Pod}\n  patch: |-\n    - {op: remove, path: /spec/containers/0/ports}\n";
        Self::play(&lesson.images(&self.images).patch(unpublished).render()?)?;
        let shell = format!("{LESSON}-shell");
        let printed = run("podman", ["exec", &shell, "bash", "-c", command])?;
        String::from_utf8(printed).map_err(io::Error::other)
    }

    fn confinement(&self, name: Name) -> io::Result<Confinement> {
        let namespace = format!("container:{}", container(name)?);
        let look = r#"echo "$(</proc/1/status)"; echo "$(</proc/1/mountinfo)""#;
        // podman lets a container look into one of a Pod only from within that Pod.
        let proc = self.beside(&["--pod", &pod(POD)?, "--pid", &namespace], look)?;
        Confinement::read(&text(&proc))
    }

    fn stop(&self) -> io::Result<Vec<Name>> {
        run("podman", ["pod", "stop", &pod(POD)?])?;
        let mut ended = Vec::new();
        for name in Name::ALL {
            let at = Self::inspect(name, "{{.State.FinishedAt.UnixNano}}")?;
            ended.push((at.parse::<i64>().map_err(io::Error::other)?, name));
        }
        Ok(in_order(ended))
    }

    fn beyond(&self) -> &[(&'static str, &'static str)] {
        &[
            (DEAD_SIDECAR, "podman has no Services"),
            (
                "pod_shutdown_order",
                "podman stops the containers of a Pod together, in no order; native sidecars hang it",
            ),
        ]
    }

    fn logs(&self) -> String {
        Name::ALL.map(|name| last_lines("podman", name.as_str(), container(name))).concat()
    }

    fn remove(&self) -> io::Result<()> {
        for deployment in [POD, CONTENT_MANAGER, LESSON] {
            for pod in pods_of(&clean_up(Command::new("podman").args(LIST))?, deployment) {
                clean_up(Command::new("podman").args(["pod", "rm", "--force", "--time=2", &pod]))?;
            }
        }
        if let Some(network) = self.network {
            clean_up(Command::new("podman").args(["network", "rm", "--force", network]))?;
        }
        super::remove_copy(&self.content)
    }
}

const LIST: [&str; 4] = ["pod", "ps", "--format", "{{.Name}}"];

/// The names of a Deployment's Pods, or of a Pod that was declared as one, in the list of all.
fn pods_of(all: &[u8], deployment: &str) -> Vec<String> {
    let prefix = format!("{deployment}-pod");
    let of_it = |name: &&str| *name == deployment || name.starts_with(&prefix);
    text(all).lines().filter(of_it).map(str::to_owned).collect()
}

fn pod(deployment: &str) -> io::Result<String> {
    let missing = || io::Error::other(format!("there is no Pod of {deployment}"));
    pods_of(&run("podman", LIST)?, deployment).pop().ok_or_else(missing)
}

fn container(name: Name) -> io::Result<String> {
    Ok(format!("{}-{}", pod(POD)?, name.as_str()))
}
